"""The command `convert`."""

from __future__ import annotations

import argparse
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save

from jaxphoton.cli import convert
from jaxphoton.models.moondream.reading import config_to_dict
from tests.layers.forms import dense_of, scaled_of
from tests.weights.loading import load_model


@pytest.fixture
def source(tmp_path, write_file, mini_config, mini_tensors, mini_tokenizer):
    folder = tmp_path / "source"
    write_file(folder / "model.safetensors", mini_tensors)
    (folder / "config.json").write_text(json.dumps(config_to_dict(mini_config)))
    (folder / "tokenizer.json").write_text(mini_tokenizer)
    return folder


def _run(*arguments) -> int:
    parser = argparse.ArgumentParser()
    convert.add_parser(parser.add_subparsers())
    args = parser.parse_args(["convert", *map(str, arguments)])
    return args.run(args)


def test_convert(tmp_path, source, mini_tokenizer, capsys):
    out = tmp_path / "out"
    assert _run(source, out) == 0
    printed = capsys.readouterr().out
    config, params = load_model(out)
    held = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    assert printed.startswith(f"{out}: ") and "parameters as bfloat16" in printed and f"{held:,} bytes" in printed
    assert (out / "tokenizer.json").read_text() == mini_tokenizer
    original, wanted = load_model(source)
    assert config == original
    assert params.text.wte.dtype == jnp.bfloat16
    for one, two in zip(jax.tree.leaves(params), jax.tree.leaves(wanted), strict=True):
        assert np.asarray(one).tobytes() == np.asarray(two).tobytes()
    assert _run(out, tmp_path / "again", "--dtype", "float32") == 0, "a converted checkpoint converts again"
    assert load_model(tmp_path / "again", jnp.float32)[1].text.wte.dtype == jnp.float32


def test_convert_with_float8_experts(tmp_path, write_torch, moe_config, float8_tensors, training_style, mini_tokenizer):
    folder = tmp_path / "source"
    write_torch(folder / "model_fp8.pt", training_style(float8_tensors))
    (folder / "config.json").write_text(json.dumps(config_to_dict(moe_config)))
    (folder / "tokenizer.json").write_text(mini_tokenizer)
    assert _run(folder, tmp_path / "kept", "--float8-experts") == 0
    assert _run(folder, tmp_path / "plain") == 0
    kept = load_model(tmp_path / "kept", quantized=True)[1]
    plain = load_model(tmp_path / "plain")[1]
    assert scaled_of(kept.text.layers[1].experts.fc1_w).matrix.dtype == jnp.float8_e4m3fn
    assert dense_of(plain.text.layers[1].experts.fc1_w).matrix.dtype == jnp.bfloat16
    for one, two in zip(jax.tree.leaves(load_model(tmp_path / "kept")[1]), jax.tree.leaves(plain), strict=True):
        assert np.asarray(one).tobytes() == np.asarray(two).tobytes()


def test_an_adapter_is_merged(tmp_path, source, capsys):
    a, b = np.full((2, 16), 0.25, np.float32), np.full((36, 2), 0.5, np.float32)
    named = {"text.blocks.1.mlp.fc1.a": a, "text.blocks.1.mlp.fc1.b": b}
    file = tmp_path / "mine.safetensors"
    file.write_bytes(save(named, {"format": "jaxphoton-adapter"}))
    assert _run(source, tmp_path / "out", "--merge-adapter", file, "--dtype", "float32") == 0
    plain, merged = (load_model(each, jnp.float32)[1].text.layers[1] for each in (source, tmp_path / "out"))
    added = merged.in_w.matrix - plain.in_w.matrix
    np.testing.assert_allclose(added[-36:], np.full((36, 16), 0.25), atol=1e-6)
    np.testing.assert_array_equal(added[:-36], 0)
    np.testing.assert_array_equal(merged.out_w.matrix, plain.out_w.matrix)
    assert _run(tmp_path / "out", tmp_path / "again", "--merge-adapter", file) == 1
    assert "adapters are merged when a model is converted" in capsys.readouterr().err
    direct = {"text.blocks.0.attn.proj@input.a": a, "text.blocks.0.attn.proj@input.b": b[:16]}
    file.write_bytes(save(direct, {"format": "jaxphoton-adapter"}))
    assert _run(source, tmp_path / "again", "--merge-adapter", file) == 1
    assert "no matrix that can be merged into: text.blocks.0.attn.proj@input" in capsys.readouterr().err


def test_faults_are_one_message(tmp_path, source, capsys):
    assert _run(tmp_path / "absent", tmp_path / "out") == 1
    assert "absent: no such file or folder" in capsys.readouterr().err
    assert _run(source, source) == 1
    assert "not an empty folder" in capsys.readouterr().err
    tokenizer = (source / "tokenizer.json").read_text()
    (source / "tokenizer.json").write_text(tokenizer.replace("35", "40"))
    assert _run(source, tmp_path / "out") == 1
    assert "its token 40 is beyond the model's vocabulary of 40" in capsys.readouterr().err
    (source / "tokenizer.json").write_text("{}")
    assert _run(source, tmp_path / "out") == 1
    assert "tokenizer.json: not a tokenizer" in capsys.readouterr().err
    (source / "tokenizer.json").write_text(tokenizer)
    assert _run(source, tmp_path / ("x" * 300)) == 1
    assert "File name too long" in capsys.readouterr().err
    (source / "model.safetensors").write_bytes(b"nothing")
    assert _run(source, tmp_path / "out") == 1
    assert "too short" in capsys.readouterr().err
    (source / "config.json").write_text('{"config": {"text": {"n_layers": 100000000000}}}')
    assert _run(source, tmp_path / "out") == 1
    assert "text.n_layers must be an integer from 1 to 1024" in capsys.readouterr().err
    (source / "config.json").unlink()
    assert _run(source, tmp_path / "out") == 1
    assert "config.json" in capsys.readouterr().err
    (source / "tokenizer.json").unlink()
    assert not (tmp_path / "out").exists()
