"""Moondream's own forms and ours; and which file of a folder is meant."""

from __future__ import annotations

import re

import numpy as np
import pytest

from jaxphoton.models.adapters import Adapter, LowRank
from jaxphoton.weights.adapters import load_adapter, save_adapter
from jaxphoton.weights.checkpoint import WeightsError
from jaxphoton.weights.safetensors import TensorFile

from .conftest import pair

VARIANT = {
    "text_model.transformer.h.1.mixer.Wqkv": ("text.blocks.1.attn.qkv", (32, 16)),
    "text_model.transformer.h.1.mixer.out_proj": ("text.blocks.1.attn.proj@input", (16, 16)),
    "text_model.transformer.h.2.mlp.fc1": ("text.blocks.2.mlp.fc1", (36, 16)),
    "text_model.transformer.h.2.mlp.fc2": ("text.blocks.2.mlp.fc2", (16, 36)),
}
FINETUNE = {
    "dense.0.up": ("text.blocks.0.mlp.fc1", (36, 16)),
    "dense.0.down": ("text.blocks.0.mlp.fc2", (16, 36)),
    "moe.1.up": ("text.blocks.2.mlp.fc1", (5, 12, 16)),
    "moe.1.down": ("text.blocks.2.mlp.fc2", (5, 16, 6)),
}


def variant(suffix: str = ".parametrizations.weight.0", rename=lambda name: name):
    tensors = {}
    for name, (_, shape) in VARIANT.items():
        a, b = pair(shape, seed=len(tensors))
        tensors |= {rename(f"{name}{suffix}.A"): a, rename(f"{name}{suffix}.B"): b}
    return tensors


def finetune(prefix: str = "text_lora."):
    tensors = {}
    for name, (_, shape) in FINETUNE.items():
        a, b = pair(shape, 2 if "moe" in name else 4, len(tensors))
        tensors |= {f"{prefix}{name}_a": a, f"{prefix}{name}_b": b}
    return tensors


def check(adapter: Adapter, expected, tensors) -> None:
    assert list(adapter.pairs) == sorted(module for module, _ in expected.values())
    for i, (module, _) in enumerate(expected.values()):
        a, b = list(tensors.values())[2 * i : 2 * i + 2]
        np.testing.assert_array_equal(adapter.pairs[module].a, a)
        np.testing.assert_array_equal(adapter.pairs[module].b, b)


def renamed(name: str) -> str:
    for old, new in (
        ("text_model.transformer.h", "text.blocks"),
        ("mixer.Wqkv", "attn.qkv"),
        ("mixer.out_proj", "attn.proj"),
    ):
        name = name.replace(old, new)
    return name


@pytest.mark.parametrize("suffix", [".parametrizations.weight.0", ""])
@pytest.mark.parametrize("rename", [str, renamed])
def test_variants(tmp_path, write_torch, write_file, family, suffix, rename):
    tensors = variant(suffix, rename)
    adapter = load_adapter(write_torch(tmp_path / "final.pt", tensors), family)
    check(adapter, VARIANT, tensors)
    same = load_adapter(write_file(tmp_path / "final.safetensors", tensors), family, "other")
    assert same.digest == adapter.digest and (adapter.name, same.name) == ("final", "other")


def test_finetunes(tmp_path, write_torch, write_file, expert_family):
    tensors = finetune()
    adapter = load_adapter(write_torch(tmp_path / "a.pt", tensors, "lora_state_dict"), expert_family)
    check(adapter, FINETUNE, tensors)
    for prefix in ("_text.", "engine._text.", ""):
        same = load_adapter(write_file(tmp_path / "b.safetensors", finetune(prefix)), expert_family)
        assert same.digest == adapter.digest


def test_finetunes_of_a_model_without_experts(tmp_path, write_file, family):
    a, b = pair((36, 16))
    file = write_file(tmp_path / "a.safetensors", {"text_lora.dense.2.up_a": a, "text_lora.dense.2.up_b": b})
    assert list(load_adapter(file, family).pairs) == ["text.blocks.2.mlp.fc1"]
    with pytest.raises(WeightsError, match="fewer or other layers"):
        load_adapter(write_file(tmp_path / "b.safetensors", finetune()), family)


def test_one_module_under_both_of_its_names(tmp_path, write_torch, expert_family):
    both = finetune() | finetune("_text.")
    adapter = load_adapter(write_torch(tmp_path / "a.pt", both, "lora_state_dict"), expert_family)
    check(adapter, FINETUNE, finetune())
    both["_text.dense.0.up_a"] = both["_text.dense.0.up_a"] + np.float32(1)
    with pytest.raises(WeightsError, match="of other numbers than text_lora.dense.0.up_a"):
        load_adapter(write_torch(tmp_path / "b.pt", both, "lora_state_dict"), expert_family)


def _text(value: str) -> bytes:
    return b"X" + len(value).to_bytes(4, "little") + value.encode()


def test_what_stands_beside_the_adapter_in_its_file(tmp_path, write_torch, expert_family):
    plain = _text("step") + b"K\x07" + _text("config") + b"}" + _text("self") + b"]q\x01h\x01a"
    file = write_torch(tmp_path / "a.pt", finetune(), "lora_state_dict", plain)
    check(load_adapter(file, expert_family), FINETUNE, finetune())
    tensor = _text("vision") + b"}(" + _text("x") + b"]ctorch\nFloatStorage\nau"
    file = write_torch(tmp_path / "b.pt", finetune(), "lora_state_dict", tensor)
    with pytest.raises(WeightsError, match="tensors beside lora_state_dict: in vision"):
        load_adapter(file, expert_family)
    file = write_torch(tmp_path / "c.pt", finetune(), "state_dict")
    with pytest.raises(WeightsError, match="'state_dict' is not a tensor"):
        load_adapter(file, expert_family)


@pytest.mark.parametrize(
    ("name", "shape", "said"),
    [
        ("_vision.proj_mlp.fc2.down_a", (4, 28), "unknown tensors: _vision.proj_mlp.fc2.down_a"),
        ("text_lora.dense.1.up_alpha", (1,), "unknown tensors"),
        ("text_lora.dense.1.up_a", (4, 16), "one matrix of a pair without the other: text_lora.dense.1.up_a"),
        ("base_model.model.text.blocks.0.attn.qkv.lora_A.weight", (4, 16), "without their adapter_config.json"),
    ],
)
def test_tensors_that_are_refused(tmp_path, write_file, expert_family, name, shape, said):
    tensors = finetune() | {name: np.zeros(shape, np.float32)}
    with pytest.raises(WeightsError, match=re.escape(said)):
        load_adapter(write_file(tmp_path / "a.safetensors", tensors), expert_family)


@pytest.mark.parametrize(
    ("shape", "rank"), [((36, 15), 4), ((35, 16), 4), ((5, 36, 16), 4), ((36, 16), 0)], ids=["in", "out", "3d", "none"]
)
def test_shapes_of_another_model_are_named_with_ours(tmp_path, write_file, family, shape, rank):
    a, b = pair(shape, rank)
    file = write_file(tmp_path / "a.safetensors", {"text_lora.dense.2.up_a": a, "text_lora.dense.2.up_b": b})
    said = f"{list(a.shape)} and {list(b.shape)}, where this model's are [rank, 16] and [36, rank]"
    with pytest.raises(WeightsError, match=re.escape(said)):
        load_adapter(file, family)


def ours() -> Adapter:
    return Adapter.of("mine", {module: LowRank(*pair(shape)) for module, shape in VARIANT.values()}, "")


def test_what_is_saved_is_loaded(tmp_path, family):
    adapter, path = ours(), tmp_path / "new" / "mine.safetensors"
    save_adapter(path, adapter, family)
    again = load_adapter(path, family)
    assert (again.name, again.digest, again.source) == ("mine", adapter.digest, str(path))
    assert load_adapter(path.parent, family).digest == adapter.digest
    assert [file.name for file in path.parent.iterdir()] == ["mine.safetensors"]
    # Whatever the strides: the file holds the numbers in order.
    turned = {name: LowRank(np.asfortranarray(p.a), np.asfortranarray(p.b)) for name, p in adapter.pairs.items()}
    save_adapter(path, Adapter("mine", b"", turned, ""), family)
    assert load_adapter(path, family).digest == adapter.digest


def test_what_cannot_be_saved(tmp_path, family, expert_family):
    with pytest.raises(WeightsError, match="must end in .safetensors"):
        save_adapter(tmp_path / "mine", ours(), family)
    with pytest.raises(WeightsError, match=r"not a module.*attn.proj@input"):
        save_adapter(tmp_path / "mine.safetensors", ours(), expert_family)
    (tmp_path / "file").touch()
    with pytest.raises(WeightsError, match="cannot be written"):
        save_adapter(tmp_path / "file" / "mine.safetensors", ours(), family)
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_our_own_files_hold_nothing_else(tmp_path, write_file, family):
    save_adapter(tmp_path / "mine.safetensors", ours(), family)
    file = TensorFile(tmp_path / "mine.safetensors")
    from safetensors.numpy import save_file

    tensors = {name: np.array(file.read(name)) for name in file.entries}
    for extra, said in (("text.wte", "unknown tensors: text.wte"), ("vision.patch.a", "without the other")):
        save_file(tensors | {extra: np.zeros((2, 2), np.float32)}, tmp_path / "other.safetensors", file.metadata)
        with pytest.raises(WeightsError, match=said):
            load_adapter(tmp_path / "other.safetensors", family)


def test_the_digest_knows_modules_and_numbers_and_not_the_name():
    one = ours()
    assert Adapter.of("other", one.pairs, "elsewhere").digest == one.digest
    assert Adapter.of("mine", dict(reversed([*one.pairs.items()])), "").digest == one.digest
    moved = {name.replace("blocks.2", "blocks.0"): held for name, held in one.pairs.items()}
    scaled = {name: LowRank(held.a, held.b * 2) for name, held in one.pairs.items()}
    assert len({Adapter.of("mine", pairs, "").digest for pairs in (one.pairs, moved, scaled)}) == 3


def test_folders(tmp_path, write_file, write_torch, write_peft, family):
    with pytest.raises(WeightsError, match="missing: no such file or folder"):
        load_adapter(tmp_path / "missing", family)
    with pytest.raises(WeightsError, match="no adapter: neither adapter_config.json nor a file"):
        load_adapter(tmp_path, family)
    write_peft(tmp_path / "below", {})
    with pytest.raises(WeightsError, match="no adapter in the folder itself; below it are below"):
        load_adapter(tmp_path, family)
    with pytest.raises(WeightsError, match="no pairs"):
        load_adapter(tmp_path / "below", family)
    for name in ("one.pt", "two.pt"):
        write_torch(tmp_path / name, variant())
    with pytest.raises(WeightsError, match="which file\\? The folder holds one.pt, two.pt"):
        load_adapter(tmp_path, family)
    write_file(tmp_path / "final.safetensors", variant())
    assert load_adapter(tmp_path, family).name == tmp_path.name


@pytest.mark.parametrize("held", [b"", b"\x00" * 100, b"[]", b"{"])
def test_damaged_files_name_themselves(tmp_path, write_peft, family, held):
    for name in ("a.safetensors", "a.pt"):
        (tmp_path / name).write_bytes(held)
        with pytest.raises(WeightsError, match=re.escape(str(tmp_path / name))):
            load_adapter(tmp_path / name, family)
    folder = write_peft(tmp_path / "peft", {})
    (folder / "adapter_config.json").write_bytes(held)
    with pytest.raises(WeightsError, match=r"peft: adapter_config.json: "):
        load_adapter(folder, family)
