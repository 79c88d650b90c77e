"""Adapters of the golden files: each form is read, and what we write of it is read again."""

from __future__ import annotations

import numpy as np
import pytest

from jaxphoton.models.registry import read_family, settings_file
from jaxphoton.weights.adapters import load_adapter, save_adapter
from jaxphoton.weights.checkpoint import WeightsError, open_checkpoint


@pytest.mark.parametrize("form", ["md2-tiny/peft", "md2-tiny/peft_patterns", "md2-tiny/upstream", "md3-tiny/kestrel"])
def test_read_and_written_again(goldens, tmp_path, form):
    model, name = form.split("/")
    family = read_family(settings_file(goldens / model))
    adapter = load_adapter(goldens / model / "adapters" / name, family)
    assert (adapter.name, len(adapter.pairs)) == (name, 8 if model == "md3-tiny" else 16)
    save_adapter(tmp_path / "ours.safetensors", adapter, family)
    again = load_adapter(tmp_path / "ours.safetensors", family)
    assert again.digest == adapter.digest
    assert again.name == "ours"


@pytest.mark.parametrize("files", ["md2-tiny/adapters/upstream/final", "md3-tiny/adapters/kestrel/adapter"])
def test_torch_and_safetensors_are_the_same(goldens, files):
    family = read_family(settings_file(goldens / files.split("/")[0]))
    one, two = (load_adapter(goldens / f"{files}{suffix}", family) for suffix in (".pt", ".safetensors"))
    assert one.digest == two.digest


def test_ranks_and_scales_of_patterns(goldens):
    """`alpha_pattern` and `rank_pattern` of the golden file: alpha 5 over rank 2, alpha 1 over 4, alpha 4 over 6."""
    family = read_family(settings_file(goldens / "md2-tiny"))
    adapter = load_adapter(goldens / "md2-tiny" / "adapters" / "peft_patterns", family)
    stored = open_checkpoint(goldens / "md2-tiny" / "adapters" / "peft_patterns" / "adapter_model.safetensors")
    scales = {"0.attn.qkv": 5 / 2, "1.attn.qkv": 4 / 4, "2.attn.proj": 1 / 4, "1.mlp.fc1": 4 / 6, "3.mlp.fc1": 4 / 4}
    for module, scale in scales.items():
        b = stored.read(f"base_model.model.model.text.blocks.{module}.lora_B.weight")
        np.testing.assert_array_equal(adapter.pairs[f"text.blocks.{module}"].b, b * np.float32(scale))


def test_the_variants_own_pair_reads_the_input(goldens):
    family = read_family(settings_file(goldens / "md2-tiny"))
    pairs = load_adapter(goldens / "md2-tiny" / "adapters" / "upstream", family).pairs
    assert "text.blocks.0.attn.proj@input" in pairs and "text.blocks.0.attn.proj" not in pairs


def test_an_adapter_of_another_model(goldens):
    family = read_family(settings_file(goldens / "md3-tiny"))
    with pytest.raises(WeightsError, match=r"\[4, 64\] and \[256, 4\], where this model's are \[8, rank, 64\]"):
        load_adapter(goldens / "md2-tiny" / "adapters" / "peft", family)
