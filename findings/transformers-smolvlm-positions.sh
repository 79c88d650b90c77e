#!/usr/bin/env bash
# transformers 4.57.1 (Linux, CPU, torch 2.13.0): SmolVLM's vision encoder gives the patches of a whole frame positions
# that are one too low along both sides: 0, 0, 1, 2 ... instead of 0, 1, 2, 3 ..., so that all but the first of 1,024
# patches get the embedding of another. A fraction of the side is put among borders from which rounding takes it. With
# 5.24.0 every patch has its own. No error, no warning; answers change.
# It matters to us because outputs of these models that were recorded with one release are not those of another: we
# follow the order of the patches, and compare with recordings of 5.24.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
cat > "$place/positions.py" <<'PY'
import sys

import torch
import transformers
from transformers import SmolVLMVisionConfig
from transformers.models.smolvlm.modeling_smolvlm import SmolVLMVisionEmbeddings

side, seen = 32, []
sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
embeddings = SmolVLMVisionEmbeddings(SmolVLMVisionConfig(**sizes, image_size=16 * side, patch_size=16))
embeddings.position_embedding.register_forward_hook(lambda module, given, result: seen.append(given[0][0]))
embeddings(torch.zeros(1, 3, 16 * side, 16 * side), torch.ones(1, side, side, dtype=torch.bool))
wrong = int((seen[0] != torch.arange(side**2)).sum())
print(f"transformers {transformers.__version__}, torch {torch.__version__}: {wrong} of {side**2} patches have the "
      f"position of another; the first are {seen[0][:5].tolist()}")
sys.exit(0 if wrong == int(sys.argv[1]) else 1)
PY
for expected in 4.57.1:1023 5.24.0:0; do
    version=${expected%:*}
    python3 -m venv "$place/$version"
    "$place/$version/bin/pip" install --quiet --disable-pip-version-check "transformers==$version" "torch==2.13.0" "numpy<3"
    "$place/$version/bin/python" "$place/positions.py" "${expected#*:}"
done
