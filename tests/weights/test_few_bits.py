"""Files in few bits of other programs, written here as their own libraries write them."""

from __future__ import annotations

import json
from collections.abc import Callable

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from jaxphoton.layers.grouped import Grouped
from jaxphoton.layers.placed import placed
from jaxphoton.layers.weight import Dense, RowScaled, matmul
from jaxphoton.models.moondream.reading import config_to_dict
from jaxphoton.weights.load import WeightsError, load_model
from tests.weights.conftest import CODES
from tests.weights.loading import load_params

BF16 = np.dtype(ml_dtypes.bfloat16)
MATRICES = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
Stored = tuple[dict[str, np.ndarray], np.ndarray]  # the tensors of a module by the ends of their names, and its values


def packed(levels: np.ndarray, bits: int) -> np.ndarray:
    """Whole numbers from 0 on [rows, columns] -> int32, the first in the lowest bits; zeros behind the last column."""
    per = 32 // bits
    padded = np.pad(levels.astype(np.uint32), ((0, 0), (0, -levels.shape[1] % per))).reshape(len(levels), -1, per)
    return np.bitwise_or.reduce(padded << (np.arange(per, dtype=np.uint32) * bits), axis=2).view(np.int32)


def drawn(random, shape, groups: int, low: int, high: int) -> tuple[np.ndarray, np.ndarray]:
    scale = random.uniform(0.01, 0.1, (shape[0], groups)).astype(BF16)
    return random.integers(low, high + 1, shape), scale


def values(levels, scale, zero=0) -> np.ndarray:
    grouped = levels.reshape(*scale.shape, -1).astype(np.float64)
    return ((grouped - np.asarray(zero)[..., None] * 1.0) * scale.astype(np.float64)[..., None]).reshape(levels.shape)


def int4(random, shape) -> Stored:
    levels, scale = drawn(random, shape, shape[1] // 4, -8, 7)
    tensors = {"packed": packed(levels + 8, 4), "scale": scale, "shape": np.array(shape, np.int64)}
    return {f".weight_{name}": tensor for name, tensor in tensors.items()}, values(levels, scale)


def int4_with_zeros(random, shape) -> Stored:
    tensors, _ = int4(random, shape)
    levels, scale = drawn(random, shape, shape[1] // 4, -8, 7)
    zero = random.integers(-8, 8, scale.shape)
    tensors |= {".weight_packed": packed(levels + 8, 4), ".weight_scale": scale}
    tensors[".weight_zero_point"] = packed(zero.T + 8, 4).T
    return tensors, values(levels, scale, zero)


def int8_packed(random, shape) -> Stored:
    levels, scale = drawn(random, shape, 1, -128, 127)
    tensors = {"packed": packed(levels + 128, 8), "scale": scale, "shape": np.array(shape, np.int64)}
    return {f".weight_{name}": tensor for name, tensor in tensors.items()}, values(levels, scale)


def int8(random, shape) -> Stored:
    levels, scale = drawn(random, shape, 1, -128, 127)
    return {".weight": levels.astype(np.int8), ".weight_scale": scale}, values(levels, scale)


def float8(random, shape) -> Stored:
    """One factor for the whole tensor."""
    numbers = random.normal(0, 30, shape).astype(ml_dtypes.float8_e4m3fn)
    scale = np.array([0.03], np.float32)
    return {".weight": numbers, ".weight_scale": scale}, numbers.astype(np.float64) * scale


def of_a_tensor(random, shape) -> Stored:
    """One factor and one zero point for the whole tensor."""
    levels, _ = drawn(random, shape, 1, -128, 127)
    scale, zero = np.array([0.03], BF16), np.array([5], np.int8)
    tensors = {".weight": levels.astype(np.int8), ".weight_scale": scale, ".weight_zero_point": zero}
    return tensors, (levels - 5.0) * scale.astype(np.float64)


def int4_of_a_tensor(random, shape) -> Stored:
    tensors, _ = int4(random, shape)
    levels, _ = drawn(random, shape, 1, -8, 7)
    scale, zero = np.array([0.03], BF16), packed(np.array([[3 + 8]]), 4)
    tensors |= {".weight_packed": packed(levels + 8, 4), ".weight_scale": scale, ".weight_zero_point": zero}
    return tensors, (levels - 3.0) * scale.astype(np.float64)


def torchao_of_a_tensor(random, shape) -> Stored:
    numbers = random.normal(0, 30, shape).astype(ml_dtypes.float8_e4m3fn)
    scale = np.array([[0.03]], np.float32)
    return {"._weight_qdata": numbers, "._weight_scale": scale}, numbers.astype(np.float64) * scale


def torchao(random, shape) -> Stored:
    levels, scale = drawn(random, shape, 1, -128, 127)
    zero = np.zeros((shape[0], 1), np.int8)
    tensors = {"qdata": levels.astype(np.int8), "scale": scale.astype(np.float32), "zero_point": zero}
    return {f"._weight_{name}": tensor for name, tensor in tensors.items()}, values(levels, scale)


def torchao_with_zeros(random, shape) -> Stored:
    """Of groups; the factors are wider than the zero points."""
    levels, scale = drawn(random, shape, shape[1] // 4, -8, 7)
    zero, scale = random.integers(-8, 8, scale.shape).astype(np.int8), scale.astype(np.float32)
    tensors = {"qdata": levels.astype(np.int8), "scale": scale, "zero_point": zero}
    return {f"._weight_{name}": tensor for name, tensor in tensors.items()}, values(levels, scale, zero)


FORMS: dict[str, tuple[Callable[..., Stored], str, type[RowScaled] | type[Grouped]]] = {
    "int4": (int4, "uint8", Grouped),
    "int4 with zeros": (int4_with_zeros, "uint8", Grouped),
    "int8 packed": (int8_packed, "int8", RowScaled),
    "int8": (int8, "int8", RowScaled),
    "float8": (float8, "float8_e4m3fn", RowScaled),
    "int8 of a tensor": (of_a_tensor, "int8", Grouped),
    "int4 of a tensor": (int4_of_a_tensor, "uint8", Grouped),
    "torchao": (torchao, "int8", RowScaled),
    "torchao with zeros": (torchao_with_zeros, "int8", Grouped),
    "torchao of a tensor": (torchao_of_a_tensor, "float8_e4m3fn", RowScaled),
}


def stored(mini_tensors, config, form) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Tensors with the text's matrices in a form, and the values of these by canonical name."""
    random, tensors, wanted = np.random.default_rng(5), dict(mini_tensors), {}
    for i in range(config.text.n_layers):
        for name in MATRICES:
            module = f"model.text.blocks.{i}.{name}"
            parts, wanted[f"{i}.{name}"] = form(random, tensors.pop(f"{module}.weight").shape)
            tensors |= {f"{module}{end}": tensor for end, tensor in parts.items()}
    return tensors, wanted


def write(path, tensors, metadata):
    """As safetensors' own writer: no order, no padding."""
    header, data = {"__metadata__": metadata}, b""
    for name, tensor in tensors.items():
        blob = np.ascontiguousarray(tensor).tobytes()
        offsets = [len(data), len(data) + len(blob)]
        header[name] = {"dtype": CODES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": offsets}
        data += blob
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def described(tensors, kind="Int8Tensor") -> dict[str, str]:
    modules = {name.removesuffix("._weight_qdata") for name in tensors if name.endswith("._weight_qdata")}
    return {f"{module}.weight": json.dumps({"_type": kind, "_data": {}}) for module in modules}


@pytest.mark.parametrize("name", FORMS)
def test_matrices_are_kept_as_they_are_stored_and_mean_the_same(tmp_path, mini_config, mini_tensors, name):
    form, dtype, kind = FORMS[name]
    tensors, wanted = stored(mini_tensors, mini_config, form)
    path = write(tmp_path / "a.safetensors", tensors, described(tensors))
    kept, wide = (load_params(path, mini_config, jnp.float32, quantize=how) for how in (None, "none"))
    q, attended = mini_config.text.qkv_dim, mini_config.text.n_heads * mini_config.text.head_dim
    for i in range(mini_config.text.n_layers):
        small, dense = kept.text.layers[i], wide.text.layers[i]
        assert isinstance(small.in_w, kind) and small.in_w.matrix.dtype == dtype
        # Two parts beside each other have factors of their own.
        assert isinstance(small.out_w, Grouped) and small.out_w.matrix.dtype == dtype
        for weight in (small.in_w, small.out_w):
            # As the kernel takes them.
            assert not isinstance(weight, Grouped) or weight.zero is None or weight.zero.dtype == weight.scale.dtype
        for layer in (small, dense):
            into, out = (np.asarray(weight.dense(jnp.float32).matrix) for weight in (layer.in_w, layer.out_w))
            sides = (into[:q], out[:, :attended], into[q:], out[:, attended:])
            for matrix, got in zip(MATRICES, sides, strict=True):
                np.testing.assert_allclose(got, wanted[f"{i}.{matrix}"], rtol=1e-6, atol=1e-6)
        assert isinstance(dense.in_w, Dense) and isinstance(dense.out_w, Dense)
    assert isinstance(kept.text.lm_head_w, Dense)


def test_parts_of_a_matrix_in_different_forms_are_brought_to_the_dtype(tmp_path, mini_config, mini_tensors):
    tensors, wanted = stored(mini_tensors, mini_config, int4)
    for end in (".weight_packed", ".weight_scale", ".weight_shape"):
        del tensors[f"model.text.blocks.1.attn.qkv{end}"]
    tensors["model.text.blocks.1.attn.qkv.weight"] = mini_tensors["model.text.blocks.1.attn.qkv.weight"]
    params = load_params(write(tmp_path / "a.safetensors", tensors, {}), mini_config, jnp.float32)
    mixed, q = params.text.layers[1].in_w, mini_config.text.qkv_dim
    assert isinstance(mixed, Dense) and isinstance(params.text.layers[1].out_w, Grouped)
    np.testing.assert_array_equal(mixed.matrix[:q], tensors["model.text.blocks.1.attn.qkv.weight"].astype(np.float32))
    np.testing.assert_allclose(mixed.matrix[q:], wanted["1.mlp.fc1"], rtol=1e-6)


def test_a_type_without_kernels_is_brought_to_the_dtype(tmp_path, mini_config, mini_tensors):
    def wide(random, shape) -> Stored:
        numbers, scale = random.normal(0, 30, shape).astype(ml_dtypes.float8_e5m2), np.array([0.03], np.float32)
        return {".weight": numbers, ".weight_scale": scale}, numbers.astype(np.float64) * scale

    tensors, wanted = stored(mini_tensors, mini_config, wide)
    params = load_params(write(tmp_path / "a.safetensors", tensors, {}), mini_config, jnp.float32)
    into, q = params.text.layers[0].in_w, mini_config.text.qkv_dim
    assert isinstance(into, Dense)
    np.testing.assert_allclose(into.matrix[:q], wanted["0.attn.qkv"], rtol=1e-6)


def test_the_kernel_takes_moondreams_own_4_bits(goldens):
    params = load_model(goldens / "md2-tiny-int4", jnp.bfloat16)[1]
    for weight in (params.text.layers[0].in_w, params.text.layers[0].out_w):
        assert isinstance(weight, Grouped) and weight.zero is not None
        x = jnp.ones((2, weight.numbers.shape[1]), jnp.bfloat16)
        result = jax.eval_shape(lambda x, weight: matmul(x, placed(weight, "interpret")), x, weight)
        assert result.shape == (2, len(weight.matrix))


REFUSED = {
    ".SCB": "bitsandbytes",
    ".weight.quant_map": "bitsandbytes",
    ".qweight": "AWQ or GPTQ",
    ".g_idx": "GPTQ",
    ".weight_global_scale": "nvfp4",
    ".weight_g_idx": "in the order of activations",
}


@pytest.mark.parametrize("end", REFUSED)
def test_other_forms_are_refused_by_name(tmp_path, mini_config, mini_tensors, end):
    name = f"model.text.blocks.0.attn.qkv{end}"
    path = write(tmp_path / "a.safetensors", {**mini_tensors, name: np.ones(4, np.float32)}, {})
    with pytest.raises(WeightsError, match=rf"a.safetensors: weights of .*{REFUSED[end]} \({name}\) are not read"):
        load_params(path, mini_config)


def test_settings_that_name_another_form_are_refused(tmp_path, mini_config, mini_tensors):
    write(tmp_path / "model.safetensors", mini_tensors, {})
    settings = config_to_dict(mini_config)
    for said, message in (
        ({"quant_method": "awq"}, "weights of 'awq' are not read"),
        ({"quant_method": "compressed-tensors", "format": "nvfp4-pack-quantized"}, "nvfp4-pack-quantized are not read"),
        ({"quant_method": "compressed-tensors", "transform_config": {"a": 1}}, "rotated matrices"),
    ):
        (tmp_path / "config.json").write_text(json.dumps({**settings, "quantization_config": said}))
        with pytest.raises(WeightsError, match=f"config.json: .*{message}"):
            load_model(tmp_path)
    said = {"quant_method": "compressed-tensors", "format": "pack-quantized"}
    (tmp_path / "config.json").write_text(json.dumps({**settings, "quantization_config": said}))
    load_model(tmp_path)


def test_damaged_parts_are_named(tmp_path, mini_config, mini_tensors):
    tensors, _ = stored(mini_tensors, mini_config, int4_with_zeros)
    module = "model.text.blocks.0.attn.qkv"
    faults = [
        (".weight_packed", np.ones((3, 3), np.int32), "is not packed in 4 or 8 bits"),
        (".weight_scale", np.ones((32, 3), np.float32), r"scale \(\[32, 3\] instead of \[32, 16\]\)|instead of"),
        (".weight_scale", np.ones((32, 4), np.int64), r"qkv.scale \(int64, not a floating type\)"),
        (".weight_zero_point", np.ones((3, 3), np.float32), "no zero point"),
        (".weight_shape", np.ones(3, np.int64), "no weight_shape of two whole numbers"),
        (".weight_shape", np.full(2, np.nan, np.float32), "no weight_shape of two whole numbers"),
        (".weight", np.ones((32, 16), np.float32), "both .weight and .weight_packed"),
    ]
    for end, tensor, message in faults:
        path = write(tmp_path / "a.safetensors", {**tensors, f"{module}{end}": tensor}, {})
        with pytest.raises(WeightsError, match=message):
            load_params(path, mini_config)
    tensors, _ = stored(mini_tensors, mini_config, torchao)
    path = write(tmp_path / "b.safetensors", tensors, described(tensors, "Int4TilePackedTo4dTensor"))
    with pytest.raises(WeightsError, match=r"of torchao's type 'Int4TilePackedTo4dTensor'; those read are"):
        load_params(path, mini_config)


def test_a_gguf_file_is_refused_by_name(tmp_path, mini_config):
    (tmp_path / "a.gguf").write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(WeightsError, match="GGUF files are not read"):
        load_params(tmp_path / "a.gguf", mini_config)
