#!/usr/bin/env bash
# peft 0.21.2 (Linux, CPU, torch 2.14.1): an adapter whose `alpha_pattern` has two expressions for one module answers
# otherwise once it was saved and loaded, without an error or a warning. The first expression that matches decides, and
# `save_pretrained` writes the expressions sorted by name: what was the exception in front is then behind the rule.
# (With `rank_pattern` the loading fails, as the matrices are of another shape.)
# It matters to us because we read these folders: we take the first match in the order of the file, as PEFT does when it
# loads them, which need not be what the adapter was trained with.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check "peft==0.21.2" "torch==2.14.1" "numpy<3"
cat > "$place/order.py" <<'PY'
import json
import sys
import tempfile

import peft
import torch
from torch import nn


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        return self.second(self.first(x))


def scales(model):
    return [layer.scaling["default"] for layer in model.modules() if hasattr(layer, "scaling")]


rules = {"second": 2, "first|second": 32}  # the exception, then the rule
config = peft.LoraConfig(r=4, target_modules=["first", "second"], alpha_pattern=rules, init_lora_weights=False)
made, x = peft.get_peft_model(Model(), config).eval(), torch.ones(1, 4)
folder = tempfile.mkdtemp(dir=sys.argv[1])
made.save_pretrained(folder)
loaded = peft.PeftModel.from_pretrained(Model(), folder).eval()
with open(f"{folder}/adapter_config.json") as file:
    print(f"peft {peft.__version__}, torch {torch.__version__}: given {rules}, saved {json.load(file)['alpha_pattern']}")
print(f"scales when made {scales(made)}, when loaded {scales(loaded)}")
with torch.no_grad():
    print(f"made   {made(x).tolist()}\nloaded {loaded(x).tolist()}")
sys.exit(0 if scales(made) != scales(loaded) else 1)
PY
"$place/venv/bin/python" "$place/order.py" "$place"
