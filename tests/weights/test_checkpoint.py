"""Safetensors reading: every type, every damage, and which files make a checkpoint."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jaxphoton.weights.checkpoint import WeightsError, open_checkpoint
from jaxphoton.weights.safetensors import DTYPES, TensorFile


def _file(path: Path, header: object, data: bytes = b"") -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def _tensor(shape, begin, end, dtype="F32") -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


@pytest.mark.parametrize("code", DTYPES)
def test_every_type_is_read_back_bit_for_bit(tmp_path, write_file, code):
    tensor = np.arange(48).astype(np.uint8).view(np.uint8) % 2 if code == "BOOL" else np.arange(48, dtype=np.uint8)
    tensor = tensor.view(DTYPES[code]).reshape(2, -1)
    odd = np.array([True, False, True])
    file = TensorFile(write_file(tmp_path / "a.safetensors", {"odd": odd, "x": tensor, "scalar": tensor[0, 0]}))
    read = file.read("x")
    assert read.dtype == DTYPES[code] and read.shape == tensor.shape
    assert read.tobytes() == tensor.tobytes()
    assert not read.flags.writeable
    assert file.read("scalar").shape == ()
    np.testing.assert_array_equal(file.read("odd"), odd)


def test_float8_values_are_those_of_the_format(tmp_path):
    # e4m3fn: 1 sign, 4 exponent (bias 7), 3 mantissa; e5m2: 1, 5 (bias 15), 2.
    data = bytes([0x38, 0x3C, 0x7E, 0xB8, 0x01]) + bytes([0x3C, 0x7B, 0x01])
    header = {"a": _tensor([5], 0, 5, "F8_E4M3"), "b": _tensor([3], 5, 8, "F8_E5M2")}
    file = TensorFile(_file(tmp_path / "f8.safetensors", header, data))
    np.testing.assert_array_equal(file.read("a").astype(np.float32), [1, 1.5, 448, -1, 2**-9])
    np.testing.assert_array_equal(file.read("b").astype(np.float32), [1, 57344, 2**-16])


def test_empty_tensors_and_empty_files(tmp_path, write_file):
    file = TensorFile(write_file(tmp_path / "a.safetensors", {"none": np.zeros((0, 3), np.float32)}))
    assert file.read("none").shape == (0, 3)
    assert len(open_checkpoint(_file(tmp_path / "b.safetensors", {}))) == 0


DAMAGED = {
    "gap": ({"a": _tensor([1], 0, 4), "b": _tensor([1], 8, 12)}, 12, "gap"),
    "gap at the start": ({"a": _tensor([1], 4, 8)}, 8, "gap"),
    "overlap": ({"a": _tensor([2], 0, 8), "b": _tensor([2], 4, 12)}, 12, "overlaps"),
    "same bytes": ({"a": _tensor([2], 0, 8), "b": _tensor([2], 0, 8)}, 8, "overlaps"),
    "trailing": ({"a": _tensor([1], 0, 4)}, 9, "5 trailing bytes"),
    "truncated data": ({"a": _tensor([2], 0, 8)}, 7, "not within the 7 bytes"),
    "backwards": ({"a": _tensor([0], 4, 0)}, 4, "not within"),
    "shape and offsets": ({"a": _tensor([3], 0, 8)}, 8, "does not take 8 bytes"),
    "unknown type": ({"a": _tensor([2], 0, 8, "F4")}, 8, "'F4' is not supported"),
    "type no string": ({"a": _tensor([2], 0, 8, ["F32"])}, 8, "not supported"),  # type: ignore[arg-type]
    "negative extent": ({"a": _tensor([-1], 0, 4)}, 4, "shape"),
    "extent no integer": ({"a": _tensor([1.0], 0, 4)}, 4, "shape"),
    "extent a bool": ({"a": _tensor([True], 0, 4)}, 4, "shape"),
    "no shape": ({"a": {"dtype": "F32", "data_offsets": [0, 4]}}, 4, "shape"),
    "rank": ({"a": _tensor([1] * 33, 0, 4)}, 4, "shape"),
    "huge empty": ({"a": _tensor([0, 2**40, 2**40], 0, 0)}, 0, "shape"),
    "negative offset": ({"a": _tensor([1], -4, 0)}, 4, "data_offsets"),
    "one offset": ({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0]}}, 4, "data_offsets"),
    "entry no object": ({"a": 3}, 0, "not an object"),
    "header no object": ([1], 0, "not a JSON object"),
    "metadata": ({"__metadata__": 3}, 0, "__metadata__"),
    "no JSON": (b"{nope", 0, "not JSON"),
    "no UTF-8": (b'{"\xff\xfe": 1}', 0, "not JSON"),
    "deep": (b"[" * 100_000, 0, "not JSON"),
    "name twice": (b'{"a": 1, "b": 2, "a": 1}', 0, "'a' occurs twice"),
}


@pytest.mark.parametrize("fault", DAMAGED)
def test_damage_is_named_with_its_file(tmp_path, fault):
    header, data_bytes, message = DAMAGED[fault]
    path = _file(tmp_path / "damaged.safetensors", header, bytes(data_bytes))
    with pytest.raises(WeightsError, match=message) as caught:
        TensorFile(path)
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "too short"),
        (b"1234567", "too short"),
        ((100).to_bytes(8, "little") + b"{}", "truncated"),
        (b"version https://git-lfs.github.com/spec/v1\n", "beyond the limit"),
        (b"\xff" * 64, "beyond the limit"),
    ],
)
def test_header_lengths(tmp_path, data, message):
    path = tmp_path / "short.safetensors"
    path.write_bytes(data)
    with pytest.raises(WeightsError, match=message):
        open_checkpoint(path)


SOUND = json.dumps(
    {"__metadata__": {"format": "pt"}, "a": _tensor([2, 3], 0, 24), "b": _tensor([4], 24, 32, "BF16")}
).encode()
SOUND = len(SOUND).to_bytes(8, "little") + SOUND + bytes(range(32))


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    edits=st.lists(st.tuples(st.integers(0, len(SOUND) - 1), st.binary(max_size=3)), max_size=4),
    length=st.integers(0, 2 * len(SOUND)),
)
def test_mutations_raise_or_read(edits, length):
    data = bytearray(SOUND)
    for position, replacement in edits:
        data[position : position + 1] = replacement
    data = data[:length]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mutated.safetensors"
        path.write_bytes(data)
        try:
            checkpoint = open_checkpoint(path)
        except WeightsError as error:
            assert str(path) in str(error)
            return
        for name in checkpoint:
            tensor = checkpoint.read(name)
            assert tensor.nbytes <= len(data)
            tensor.tobytes()


def test_a_folder_with_an_index(tmp_path, write_file):
    one, two = np.ones(3, ml_dtypes.bfloat16), np.zeros(2, np.float32)
    write_file(tmp_path / "model-1.safetensors", {"a": one})
    write_file(tmp_path / "model-2.safetensors", {"b": two})
    write_file(tmp_path / "other.safetensors", {"c": two})
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}))
    checkpoint = open_checkpoint(tmp_path)
    assert set(checkpoint) == {"a", "b"}
    np.testing.assert_array_equal(checkpoint.read("b"), two)


@pytest.mark.parametrize(
    ("weight_map", "message"),
    [
        ({"a": "model-1.safetensors", "b": "absent.safetensors"}, "1 of 2 shards are missing: absent.safetensors"),
        ({"a": "model-1.safetensors", "z": "model-2.safetensors"}, r"not in their shard: z \(model-2.safetensors\)"),
        ({"a": "model-1.safetensors", "b": "model-2.safetensors", "c": "copy.safetensors"}, "'a' is in both"),
        ({"a": "../model-1.safetensors"}, "not a plain file name"),
        ({"a": ".."}, "not a plain file name|missing"),
        ({"a": 3}, "weight_map"),
        ({}, "weight_map"),
        (None, "weight_map"),
        ("{", "JSON"),
    ],
)
def test_faults_of_an_index(tmp_path, write_file, weight_map, message):
    ones = np.ones(3, np.float32)
    write_file(tmp_path / "model-1.safetensors", {"a": ones})
    write_file(tmp_path / "model-2.safetensors", {"b": ones})
    write_file(tmp_path / "copy.safetensors", {"a": ones, "c": ones})
    text = weight_map if isinstance(weight_map, str) else json.dumps({"weight_map": weight_map})
    (tmp_path / "model.safetensors.index.json").write_text(text)
    with pytest.raises(WeightsError, match=message):
        open_checkpoint(tmp_path)


def test_a_folder_without_an_index(tmp_path, write_file):
    ones = np.ones(3, np.float32)
    with pytest.raises(WeightsError, match=r"no .safetensors and no .pt file"):
        open_checkpoint(tmp_path)
    write_file(tmp_path / "part-a.safetensors", {"a": ones})
    write_file(tmp_path / "part-b.safetensors", {"b": ones})
    assert set(open_checkpoint(tmp_path)) == {"a", "b"}
    write_file(tmp_path / "part-c.safetensors", {"b": ones})
    with pytest.raises(WeightsError, match="'b' is in both part-b.safetensors and part-c.safetensors"):
        open_checkpoint(tmp_path)
    write_file(tmp_path / "model.safetensors", {"only": ones})
    assert set(open_checkpoint(tmp_path)) == {"only"}


def test_nothing_there(tmp_path):
    with pytest.raises(WeightsError, match="no such file or folder"):
        open_checkpoint(tmp_path / "absent")
