"""Webdataset tars: samples, shards, damage."""

from __future__ import annotations

import pytest

from jaxphoton.batch.errors import SourceError
from jaxphoton.batch.sources import SourceOptions, open_source
from tests.batch.rig import fault, keys, make_tar, picture


def test_tar_samples_are_consecutive_members_of_one_name(tmp_path):
    members = {
        "./d/1.jpg": picture(1),
        "./d/1.txt": b"old",
        "2.json": b'{"question": "What?"}',
        "2.seg.png": picture(9),
        "2.PNG": picture(2),
        "._2.png": b"of a Mac",
        "3.txt": b"no image",
        "4.input.png": picture(4),
    }
    path = make_tar(tmp_path / "s.tar", members)
    source = open_source(str(path), SourceOptions(columns=("txt", "question")))
    items = list(source.items())
    assert [(item.key, item.read()) for item in items] == [
        ("s/d/1", picture(1)),
        ("s/2", picture(2)),
        ("s/4", picture(4)),
    ]
    assert [dict(item.columns) for item in items] == [{"txt": "old"}, {"question": "What?"}, {}]
    assert items[0].path == f"{path}#./d/1.jpg" and not items[0].local
    assert keys(open_source(str(path), SourceOptions(image_column="seg.png"))) == ["s/2"]


def test_tars_by_braces_and_globs(tmp_path):
    for number in range(3):
        make_tar(tmp_path / f"s-{number:03}.tar", {"x.png": picture(number)})
    expected = ["s-000/x", "s-001/x", "s-002/x"]
    assert keys(open_source(f"{tmp_path}/s-{{000..002}}.tar")) == expected
    assert keys(open_source(f"{tmp_path}/s-*.tar")) == expected
    assert keys(open_source([f"{tmp_path}/s-{number:03}.tar" for number in range(3)])) == expected
    assert keys(open_source(f"{tmp_path}/s-{{000,002}}.tar")) == [expected[0], expected[2]]
    (tmp_path / "s-001.tar").unlink()
    with pytest.raises(SourceError, match=r"s-001.tar does not exist \(1 of 3"):
        open_source(f"{tmp_path}/s-{{000..002}}.tar")


def test_a_damaged_tar_fails_from_there_and_the_next_goes_on(tmp_path):
    for name in "abc":
        make_tar(tmp_path / f"{name}.tar", {f"{n}.png": picture(n) for n in range(3)})
    whole = (tmp_path / "b.tar").read_bytes()
    # Each member is a header and one block of data.
    (tmp_path / "b.tar").write_bytes(whole[:1024] + b"garbage!" * 64 + whole[1536:])
    items = {item.key: item for item in open_source(f"{tmp_path}/*.tar").items()}
    assert list(items) == ["a/0", "a/1", "a/2", "b/0", "b", "c/0", "c/1", "c/2"]
    assert items["b/0"].read() == picture(0)
    assert "damaged at byte 1024" in fault(items["b"]).fault
    (tmp_path / "b.tar").write_bytes(whole[: 512 + 20])
    items = {item.key: item for item in open_source(f"{tmp_path}/*.tar").items()}
    assert list(items) == ["a/0", "a/1", "a/2", "b/0", "b", "c/0", "c/1", "c/2"]
    assert fault(items["b/0"]).reason == "truncated" and fault(items["b"]).reason == "corrupt"


def test_a_sample_that_comes_again_is_a_failure(tmp_path):
    path = tmp_path / "s.tar"
    make_tar(path, {"a.png": picture(0), "b.png": picture(1), "./a.png": picture(2)})
    items = list(open_source(str(path)).items())
    found = {item.key.partition(" (byte")[0]: item for item in reversed(items)}
    assert len(items) == 3 and found["s/a"].read() == picture(0) and found["s/b"].read() == picture(1)
    assert [fault(item).reason for item in items if "(byte" in item.key] == ["duplicate-key"]
