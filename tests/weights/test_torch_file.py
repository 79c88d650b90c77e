"""Files of `torch.save`: tensors as torch wrote them, and nothing else whatever the pickle asks for."""

from __future__ import annotations

import os
import pickle
import shutil
import tempfile
import zipfile
from collections import OrderedDict
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxphoton.weights.checkpoint import WeightsError, open_checkpoint
from jaxphoton.weights.torch_file import TorchFile

FIXTURE = Path(__file__).parent / "data" / "tensors.pt"  # written by scripts/make_torch_fixture.py
COUNTING = np.arange(24, dtype=np.float32).reshape(4, 6)


def _pt(path: Path, pickled: bytes, records: dict[str, bytes] | None = None, compression=zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("a/data.pkl", pickled)
        for name, data in (records or {}).items():
            archive.writestr(f"a/{name}", data)
    return path


def _tensor_pickle(shape=(2, 3), strides=(3, 1), offset=0, key="0", storage="torch\nFloatStorage") -> bytes:
    def extents(values) -> bytes:
        return b"(" + b"".join(b"J" + value.to_bytes(4, "little", signed=True) for value in values) + b"t"

    held = b"(" + b"".join([_text("storage"), f"c{storage}\n".encode(), _text(key), _text("cpu"), b"K\x06tQ"])
    view = b"J" + offset.to_bytes(4, "little", signed=True) + extents(shape) + extents(strides) + b"\x89)"
    return b"\x80\x02}" + _text("x") + b"ctorch._utils\n_rebuild_tensor_v2\n(" + held + view + b"tRs."


def _text(value: str) -> bytes:
    return b"X" + len(value).to_bytes(4, "little") + value.encode()


def test_what_torch_wrote():
    file = TorchFile(FIXTURE)
    expected = {
        "weight": np.ones(3, ml_dtypes.bfloat16),
        "bias": np.zeros(3, ml_dtypes.bfloat16),
        "parameter": COUNTING / 2,
        "row of float32": COUNTING[2],
        "columns of float32": COUNTING[:, 1:5:2],
        "expanded": np.array([[1, 1, 1], [2, 2, 2]], np.float32),
        "scalar": np.float32(0.375),
        "empty": np.zeros((0, 3), np.float32),
    }
    types = ("float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2")
    types += ("int64", "int32", "int16", "int8", "uint8", "uint16", "uint32", "uint64", "bool")
    expected |= {name: COUNTING.astype(np.dtype(getattr(ml_dtypes, name, name))) for name in types}
    expected |= {f"transposed {name}": expected[name].T for name in ("bfloat16", "float8_e4m3fn", "float8_e5m2")}
    assert set(file.entries) == set(expected)
    for name, wanted in expected.items():
        read = file.read(name)
        assert (read.dtype, read.shape) == (wanted.dtype, wanted.shape), name
        assert read.tobytes() == wanted.tobytes(), name
        assert not read.flags.writeable


def test_the_writer_of_these_tests_agrees_with_torch(tmp_path, write_torch):
    real = TorchFile(FIXTURE)
    names = ["bfloat16", "float8_e4m3fn", "float32", "weight"]
    file = TorchFile(write_torch(tmp_path / "b.pt", {name: real.read(name) for name in names}))
    assert all(file.read(name).tobytes() == real.read(name).tobytes() for name in names)


class _Call:
    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


@pytest.mark.smoke
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize(
    ("call", "name"),
    [
        (_Call(os.system, "exit 1"), rf"{os.name}.system"),
        (_Call(eval, "1"), "builtins.eval"),
        (_Call(getattr, {}, "keys"), "builtins.getattr"),
        (_Call(shutil.rmtree, "/absent"), "shutil.rmtree"),
    ],
)
def test_a_pickle_with_code_is_refused_by_name(tmp_path, protocol, call, name):
    pickled = pickle.dumps({"x": call}, protocol).replace(b"__builtin__", b"builtins")
    with pytest.raises(WeightsError, match=rf"evil.pt: the pickle asks for {name}: only tensors"):
        open_checkpoint(_pt(tmp_path / "evil.pt", pickled))


def test_code_never_runs(tmp_path):
    witness = tmp_path / "ran"
    for protocol in range(6):
        pickled = pickle.dumps({"x": _Call(os.mkdir, str(witness))}, protocol)
        with pytest.raises(WeightsError):
            TorchFile(_pt(tmp_path / "evil.pt", pickled))
        assert not witness.exists()
    pickle.loads(pickled)
    assert witness.exists(), "the same pickle does run elsewhere"


@pytest.mark.parametrize(
    "name", ["torch\nFloatStorage", "torch._utils\n_rebuild_tensor_v2", "torch.storage\nUntypedStorage"]
)
def test_stand_ins_cannot_be_changed(tmp_path, name):
    pickled = b"\x80\x02c" + name.encode() + b"\n}" + _text("value") + b"Nsb."
    with pytest.raises(WeightsError, match="changes what it may only name"):
        TorchFile(_pt(tmp_path / "a.pt", pickled))
    assert len(TorchFile(FIXTURE).entries) > 20


def test_opcodes_that_tensors_do_not_need(tmp_path):
    pickled = b"\x80\x02ccollections\nOrderedDict\n)\x81."  # NEWOBJ
    with pytest.raises(WeightsError, match="opcode NEWOBJ"):
        TorchFile(_pt(tmp_path / "a.pt", pickled))
    with pytest.raises(WeightsError, match="memo place"):
        TorchFile(_pt(tmp_path / "a.pt", b"\x80\x02}r\xff\xff\xff\x7f."))


FAULTS = {
    "reaches beyond its storage of 24 bytes": {"shape": (2, 4), "strides": (4, 1)},
    "reaches beyond its storage": {"offset": 1},
    "reaches beyond": {"strides": (4, 1)},
    "shape and strides are not valid": {"shape": (2, -3)},
    "strides are not valid": {"strides": (-3, 1)},
    "not valid": {"strides": (1,)},
    "is too large": {"shape": (2**30,) * 3, "strides": (0,) * 3},
    "storage '1' is missing": {"key": "1"},
    "torch.QInt8Storage": {"storage": "torch\nQInt8Storage"},
    "without a typed storage": {"storage": "torch.storage\nUntypedStorage"},
    "something else than a storage": {"storage": "torch._utils\n_rebuild_parameter"},
}


@pytest.mark.parametrize("message", FAULTS)
def test_tensors_outside_their_storage(tmp_path, message):
    assert TorchFile(_pt(tmp_path / "good.pt", _tensor_pickle(), {"data/0": bytes(24)})).read("x").shape == (2, 3)
    with pytest.raises(WeightsError, match=message):
        TorchFile(_pt(tmp_path / "a.pt", _tensor_pickle(**FAULTS[message]), {"data/0": bytes(24)}))


def test_archives_of_another_kind(tmp_path):
    good = _tensor_pickle()
    with pytest.raises(WeightsError, match="compressed"):
        TorchFile(_pt(tmp_path / "a.pt", good, {"data/0": bytes(24)}, zipfile.ZIP_DEFLATED))
    with pytest.raises(WeightsError, match="big-endian"):
        TorchFile(_pt(tmp_path / "a.pt", good, {"data/0": bytes(24), "byteorder": b"big"}))
    with pytest.raises(WeightsError, match="'y' is not a tensor"):
        TorchFile(_pt(tmp_path / "a.pt", pickle.dumps({"y": {"z": 1}}, 2)))
    with pytest.raises(WeightsError, match="no dictionary"):
        TorchFile(_pt(tmp_path / "a.pt", pickle.dumps([1], 2)))
    assert not TorchFile(_pt(tmp_path / "a.pt", pickle.dumps(OrderedDict(), 2))).entries
    with zipfile.ZipFile(tmp_path / "b.pt", "w") as archive:
        archive.writestr("readme", "no weights")
    with pytest.raises(WeightsError, match=r"without the data.pkl"):
        TorchFile(tmp_path / "b.pt")
    (tmp_path / "c.pt").write_bytes(pickle.dumps({"legacy": 1}))
    with pytest.raises(WeightsError, match="c.pt: not a zip archive"):
        open_checkpoint(tmp_path / "c.pt")


def test_a_folder_with_one_file(tmp_path):
    (tmp_path / "model.pt").write_bytes(FIXTURE.read_bytes())
    assert "bfloat16" in set(open_checkpoint(tmp_path))
    (tmp_path / "other.pt").write_bytes(FIXTURE.read_bytes())
    with pytest.raises(WeightsError, match=r"which file\? The folder holds model.pt, other.pt"):
        open_checkpoint(tmp_path)


def _touch(path: Path) -> None:
    """Reads every tensor of a file, or gets one clear error."""
    try:
        file = TorchFile(path)
    except WeightsError:
        return
    size = path.stat().st_size
    for name, entry in file.entries.items():
        assert 0 <= entry.start <= entry.stop <= size
        file.read(name).tobytes()


@given(st.integers(0, FIXTURE.stat().st_size - 1))
def test_a_truncated_file(length):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.pt"
        path.write_bytes(FIXTURE.read_bytes()[:length])
        with pytest.raises(WeightsError, match="truncated|cannot be read"):
            TorchFile(path)


CHANGES = st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=4)


def _damaged(data: bytes, changes: list[tuple[int, int]]) -> bytes:
    damaged = bytearray(data)
    for position, value in changes:
        damaged[position % len(damaged)] = value
    return bytes(damaged)


@settings(max_examples=200)
@given(CHANGES)
def test_a_damaged_file_never_reads_outside_itself(changes):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.pt"
        path.write_bytes(_damaged(FIXTURE.read_bytes(), changes))
        _touch(path)


@settings(max_examples=200)
@given(CHANGES)
def test_a_damaged_pickle_never_reads_outside_the_file(changes):
    """The archive around it is sound, so that no checksum stands before the pickle."""
    with zipfile.ZipFile(FIXTURE) as archive:
        records = {info.filename.partition("/")[2]: archive.read(info) for info in archive.infolist()}
    pickled = _damaged(records.pop("data.pkl"), changes)
    with tempfile.TemporaryDirectory() as folder:
        _touch(_pt(Path(folder) / "a.pt", pickled, records))
