"""Writing and reading the model folder: config.json, model.safetensors, tokenizer.json."""

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from .layers import Sizes
from .net import Shapes
from .tokenizer import Words


def export(checkpoint: Path, tokenizer: Path, folder: Path) -> None:
    """Write the model folder from a training checkpoint; the weights are rounded to bfloat16."""
    folder.mkdir(parents=True, exist_ok=True)
    words = Words.load(tokenizer)
    state = torch.load(checkpoint, map_location="cpu")["net"]
    tensors = {f"model.{name}": value.bfloat16().contiguous() for name, value in state.items()}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    # the writer leaves the file readable by its owner only
    (folder / "model.safetensors").chmod(0o644)
    inner = {**Sizes(vocab=words.size).config(), "tokenizer": words.config()}
    wrapper = {
        "architectures": ["HfMoondream"],
        "model_type": "moondream1",
        "torch_dtype": "bfloat16",
        "config": inner,
    }
    (folder / "config.json").write_text(json.dumps(wrapper, indent=1) + "\n")
    shutil.copyfile(tokenizer, folder / "tokenizer.json")


def load(folder: Path) -> tuple[Shapes, Words]:
    """Read a model folder; computes in float32."""
    words = Words.load(folder / "tokenizer.json")
    net = Shapes(Sizes(vocab=words.size))
    tensors = load_file(folder / "model.safetensors")
    net.load_state_dict({k.removeprefix("model."): v.float() for k, v in tensors.items()})
    return net.eval().requires_grad_(False), words
