#!/usr/bin/env bash
# transformers 5.24.0 and 4.57.1 (Linux, CPU, torch 2.13.0): a LLaVA that 5.24.0 saves has tensors of two generations of
# names in one file. Those of the text and the head are written as 4 had them (`language_model.model...`), those of the
# SigLIP tower without the `vision_model` that 4 has in them. 4.57.1 loads the folder without an error, and gives the
# whole tower random numbers: a warning says so, among others that one is used to.
# It matters to us because such folders are fine-tuned captioners: names of any mixture must be read, each prefix by
# itself, and a tower that is missing must be an error.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
for version in 5.24.0 4.57.1; do
    python3 -m venv "$place/$version"
    "$place/$version/bin/pip" install --quiet --disable-pip-version-check "transformers==$version" "torch==2.13.0" "numpy<3"
done
cat > "$place/save.py" <<'PY'
import sys

import torch
import transformers
from safetensors import safe_open
from transformers import LlamaConfig, LlavaConfig, LlavaForConditionalGeneration, SiglipVisionConfig

sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
vision = SiglipVisionConfig(**sizes, image_size=8, patch_size=4)
text = LlamaConfig(**sizes, vocab_size=32)
torch.manual_seed(0)
config = LlavaConfig(vision_config=vision, text_config=text, image_token_index=3)
LlavaForConditionalGeneration(config).save_pretrained(sys.argv[1])
with safe_open(f"{sys.argv[1]}/model.safetensors", "pt") as file:
    names = sorted(file.keys())
shown = [name for name in names if name.endswith(("q_proj.weight", "lm_head.weight"))]
print(f"saved by transformers {transformers.__version__}, torch {torch.__version__}: {shown}")
PY
cat > "$place/load.py" <<'PY'
import logging
import sys

import transformers
from safetensors.torch import load_file
from transformers import LlavaForConditionalGeneration

logging.disable(logging.WARNING)
model, told = LlavaForConditionalGeneration.from_pretrained(sys.argv[1], output_loading_info=True)
missing, faults = list(told["missing_keys"]), list(told["error_msgs"])
tower = [name for name in model.state_dict() if "vision_tower" in name]
saved = load_file(f"{sys.argv[1]}/model.safetensors")["vision_tower.embeddings.patch_embedding.weight"]
same = bool((model.state_dict()[next(n for n in tower if "patch_embedding.weight" in n)] == saved).all())
print(f"loaded by transformers {transformers.__version__}: errors {faults}, {len(missing)} tensors made at random, of "
      f"{len(tower)} in the tower; its patch embedding is the saved one: {same}")
sys.exit(0 if not faults and sorted(missing) == sorted(tower) and not same else 1)
PY
"$place/5.24.0/bin/python" "$place/save.py" "$place/model" 2> /dev/null
"$place/4.57.1/bin/python" "$place/load.py" "$place/model"
