"""Fixtures of the weights tests: writers of our own for both file formats, and checkpoints of distinct tensors."""

from __future__ import annotations

import dataclasses
import json
import re
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import tokenizers

from jaxphoton.layers.spec import by_path, with_forms
from jaxphoton.models.forms import with_factors
from jaxphoton.models.moondream.config import ModelConfig, MoeConfig
from jaxphoton.models.moondream.names import placements
from jaxphoton.models.moondream.params import Form, abstract
from jaxphoton.models.moondream.reading import config_from_dict
from jaxphoton.models.naming import placed_shape
from jaxphoton.weights.safetensors import DTYPES
from tests.layers.forms import float8_forms

CODES = {dtype: code for code, dtype in DTYPES.items()}

Tensors = Mapping[str, np.ndarray]
Writer = Callable[..., Path]

# Canonical -> training-style names, written apart from the table under test.
TO_TRAINING = (
    (r"vision\.patch_emb\.", r"vision_encoder.encoder.model.visual.patch_embed.linear."),
    (r"vision\.pos_emb$", r"vision_encoder.encoder.model.visual.pos_embed"),
    (r"vision\.blocks\.(\d+)\.ln(\d)", r"vision_encoder.encoder.model.visual.blocks.\1.norm\2"),
    (r"vision\.blocks\.", r"vision_encoder.encoder.model.visual.blocks."),
    (r"vision\.post_ln\.", r"vision_encoder.encoder.model.visual.norm."),
    (r"vision\.proj_mlp\.", r"vision_encoder.projection.mlp."),
    (r"text\.wte$", r"text_model.transformer.embd.wte.weight"),
    (r"text\.blocks\.(\d+)\.attn\.qkv\.", r"text_model.transformer.h.\1.mixer.Wqkv."),
    (r"text\.blocks\.(\d+)\.attn\.proj\.", r"text_model.transformer.h.\1.mixer.out_proj."),
    (r"text\.blocks\.(\d+)\.attn\.tau\.", r"text_model.transformer.h.\1.tau_"),
    (r"text\.blocks\.(\d+)\.attn\.([kv]_scale)", r"text_model.transformer.h.\1.kv_quantizer.\2"),
    (r"text\.blocks\.(\d+)\.mlp\.router\.", r"text_model.transformer.h.\1.gate."),
    (r"text\.blocks\.(\d+)\.mlp\.fc1\.scale", r"text_model.transformer.h.\1.moe_quant.up_scale"),
    (r"text\.blocks\.(\d+)\.mlp\.fc2\.scale", r"text_model.transformer.h.\1.moe_quant.down_scale"),
    (r"text\.blocks\.", r"text_model.transformer.h."),
    (r"text\.post_ln\.", r"text_model.lm_head.ln."),
    (r"text\.lm_head\.", r"text_model.lm_head.linear."),
    (r"region\.coord_features$", r"region_model.coordinate_features.weight"),
    (r"region\.size_features$", r"region_model.size_features.weight"),
    (r"region\.coord_decoder\.(weight|bias)$", r"region_model.coordinate_head.\1"),
    (r"region\.size_decoder\.(weight|bias)$", r"region_model.size_head.\1"),
    (r"region\.coord_", r"region_model.coordinate_"),
    (r"region\.", r"region_model."),
)


def training_style(tensors: Tensors) -> dict[str, np.ndarray]:
    """Published-style tensors under their training-style names."""
    renamed = {}
    for name, tensor in tensors.items():
        short = name.removeprefix("model.")
        pattern, replacement = next(row for row in TO_TRAINING if re.match(row[0], short))
        new = re.sub(pattern, replacement, short)
        if tensor.ndim == 3 and "mlp" in new:
            new = new.replace("mlp.fc1", "mlp.experts").replace("mlp.fc2", "mlp.output_experts")
        renamed[new] = tensor.T if short.endswith("_features") else tensor
    return renamed


@pytest.fixture(scope="session", name="training_style")
def _training_style():
    return training_style


@pytest.fixture(scope="session")
def write_file() -> Writer:
    """Writes tensors as one safetensors file, header padded to 8 bytes."""

    def write(path: Path, tensors: Mapping[str, np.ndarray]) -> Path:
        header, blobs, position = {}, [], 0
        for name, tensor in tensors.items():
            blob = np.ascontiguousarray(tensor).tobytes()
            offsets = [position, position + len(blob)]
            header[name] = {"dtype": CODES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": offsets}
            position += len(blob)
            blobs.append(blob)
        text = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
        text += b" " * (-len(text) % 8)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(blobs))
        return path

    return write


@pytest.fixture(scope="session")
def write_torch() -> Writer:
    """Writes tensors as `torch.save` writes a dictionary of them; `part`: inside another one, under this name, with
    `beside`, opcodes of more entries."""

    def write(path: Path, tensors: Tensors, part: str | None = None, beside: bytes = b"") -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(path, "w") as archive:
            entries = [_text(name) + _tensor(str(i), tensor) for i, (name, tensor) in enumerate(tensors.items())]
            held = b"}(" + b"".join(entries) + b"u"
            if part is not None:
                held = b"}(" + _text(part) + held + beside + b"u"
            archive.writestr(f"{path.stem}/data.pkl", b"\x80\x02" + held + b".")
            archive.writestr(f"{path.stem}/byteorder", "little")
            for i, tensor in enumerate(tensors.values()):
                archive.writestr(f"{path.stem}/data/{i}", np.ascontiguousarray(tensor).tobytes())
        return path

    return write


def _text(value: str) -> bytes:
    return b"X" + len(value.encode()).to_bytes(4, "little") + value.encode()


def _tuple(*values: int) -> bytes:
    return b"(" + b"".join(b"J" + value.to_bytes(4, "little") for value in values) + b"t"


def _tensor(key: str, tensor: np.ndarray) -> bytes:
    """The opcodes that rebuild one contiguous tensor."""
    storage = {np.dtype(np.float32): "FloatStorage", DTYPES["BF16"]: "BFloat16Storage"}.get(tensor.dtype)
    rebuild = b"ctorch._utils\n_rebuild_tensor_v" + (b"2\n" if storage else b"3\n")
    kind = f"ctorch\n{storage}\n".encode() if storage else b"ctorch.storage\nUntypedStorage\n"
    held = b"(" + _text("storage") + kind + _text(key) + _text("cpu") + b"J" + tensor.size.to_bytes(4, "little") + b"tQ"
    strides = [int(np.prod(tensor.shape[axis + 1 :])) for axis in range(tensor.ndim)]
    view = b"K\x00" + _tuple(*tensor.shape) + _tuple(*strides) + b"\x89" + b"ccollections\nOrderedDict\n)R"
    dtype = b"" if storage else f"ctorch\n{tensor.dtype.name}\n".encode()
    return rebuild + b"(" + held + view + dtype + b"tR"


@pytest.fixture(scope="session")
def mini_config() -> ModelConfig:
    """A model of a few thousand parameters whose extents all differ."""
    vision = {"enc_dim": 12, "enc_n_layers": 2, "enc_ff_dim": 20, "enc_n_heads": 3, "proj_out_dim": 16}
    vision |= {"proj_inner_dim": 28, "crop_size": 42, "overlap_margin": 1}
    text = {"dim": 16, "ff_dim": 36, "n_layers": 3, "vocab_size": 40, "max_context": 64, "n_heads": 4}
    text |= {"n_kv_heads": 2, "prefix_attn": 10}
    region = {"dim": 16, "coord_feat_dim": 8, "coord_out_dim": 32, "size_feat_dim": 10, "size_out_dim": 64}
    region |= {"inner_dim": 24}
    tokenizer = {"templates": {"caption": {"normal": [1, 38, 39]}}}
    return config_from_dict({"config": {"vision": vision, "text": text, "region": region, "tokenizer": tokenizer}})


@pytest.fixture(scope="session")
def moe_config(mini_config: ModelConfig) -> ModelConfig:
    """`mini_config` with experts from layer 1 on, tau attention and linear region decoders behind a LayerNorm."""
    moe = MoeConfig(num_experts=5, start_layer=1, experts_per_token=2, expert_inner_dim=6)
    text = dataclasses.replace(mini_config.text, n_kv_heads=4, tau_attn=True, rope_theta=1.5e6, moe=moe)
    region = dataclasses.replace(mini_config.region, decoder_arch="linear", use_ln=True)
    return dataclasses.replace(mini_config, text=text, region=region)


@pytest.fixture(scope="session")
def mini_tokenizer() -> str:
    """A `tokenizer.json` within the vocabulary of `mini_config`."""
    words = {"<|endoftext|>": 0} | {chr(ord("a") + i): 10 + i for i in range(26)}
    return tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="a")).to_str()


def published_tensors(config: ModelConfig, form: Form, float8: bool = False) -> dict[str, np.ndarray]:
    """Published-style tensors of a model, from a seed: bfloat16, but for float8 experts and scales."""
    rng = np.random.default_rng(0)
    tree = abstract(config, form=form)
    forms = float8_forms(tree) if float8 else {}
    leaves = by_path(with_forms(tree, forms))
    tensors = {}
    for place in with_factors(placements(config, form), forms):
        leaf = leaves[place.leaf]
        shape = placed_shape(leaf.shape, place.index)
        shape = (1, *shape) if place.name == "vision.pos_emb" else shape
        stored = leaf.dtype if "scale" in place.name or leaf.dtype.itemsize == 1 else DTYPES["BF16"]
        tensors[f"model.{place.name}"] = rng.standard_normal(shape, np.float32).astype(stored)
    return tensors


@pytest.fixture(scope="session", name="published_tensors")
def _published_tensors():
    return published_tensors


@pytest.fixture
def mini_tensors(mini_config: ModelConfig) -> dict[str, np.ndarray]:
    return published_tensors(mini_config, Form())


@pytest.fixture
def moe_tensors(moe_config: ModelConfig) -> dict[str, np.ndarray]:
    return published_tensors(moe_config, Form())


@pytest.fixture
def float8_tensors(moe_config: ModelConfig) -> dict[str, np.ndarray]:
    """With experts in float8, their row scales, and scales of keys and values."""
    return published_tensors(moe_config, Form(kv_scales=True), float8=True)
