"""Webdataset tars: samples, shards, damage."""

from __future__ import annotations

import gzip
import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxphoton.batch.errors import SourceError
from jaxphoton.batch.sources import SourceOptions, open_source
from jaxphoton.batch.sources.archive import samples
from jaxphoton.batch.sources.unpacking import open_tar
from jaxphoton.image.errors import ImageError
from tests.batch.helpers import fault, keys, make_tar, picture


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


def with_links(path, entries):
    """A tar of files (bytes) and links ("hard:name", "soft:name")."""
    with tarfile.open(path, "w") as tar:
        for name, what in entries:
            info = tarfile.TarInfo(name)
            if isinstance(what, bytes):
                info.size = len(what)
                tar.addfile(info, io.BytesIO(what))
            else:
                kind, _, info.linkname = what.partition(":")
                info.type = tarfile.LNKTYPE if kind == "hard" else tarfile.SYMTYPE
                tar.addfile(info)
    return path


def read_all(path, **options) -> dict[str, bytes]:
    return {item.key: item.read() for item in open_source(str(path), SourceOptions(**options)).items()}


@given(st.permutations([f"{n}.{end}" for n in range(4) for end in ("png", "txt", "json")]), st.booleans())
def test_samples_are_whole_in_any_order_of_their_members(tmp_path_factory, names, with_hidden):
    data = {
        f"{n}.{end}": {"png": picture(n), "txt": b"old %d" % n, "json": b'{"question": "%d?"}' % n}[end]
        for n in range(4)
        for end in ("png", "txt", "json")
    }
    members = {}
    for name in names:
        if with_hidden:
            members[f"._{name}"] = b"of a Mac"
        members[name] = data[name]
    path = make_tar(tmp_path_factory.mktemp("u") / "u.tar", members)
    source = open_source(str(path), SourceOptions(columns=("txt",), required_columns=("question",)))
    items = {item.key: item for item in source.items()}
    assert {key: item.read() for key, item in items.items()} == {f"u/{n}": picture(n) for n in range(4)}
    assert {key: dict(item.columns) for key, item in items.items()} == {
        f"u/{n}": {"txt": f"old {n}", "question": f"{n}?"} for n in range(4)
    }
    assert keys(source) == list(items)


def test_a_copied_tar_has_its_samples_together(tmp_path):
    names = ["1.png", "2.png", "1.txt", "2.txt"]
    path = make_tar(tmp_path / "u.tar", {name: name.encode() for name in names})
    with open_tar(str(path)) as file:
        found = [(sample.name, [member.name for member in sample.run]) for sample in samples(file)]
    assert found == [("1", ["1.png", "1.txt"]), ("2", ["2.png", "2.txt"])]


def test_a_remote_tar_whose_samples_are_apart_says_so(tmp_path):
    fsspec = pytest.importorskip("fsspec")
    members = {"1.png": picture(1), "2.png": picture(2), "1.txt": b"one", "2.txt": b"two", "3.png": picture(3)}
    system = fsspec.filesystem("memory")
    system.pipe_file("/apart/u.tar", make_tar(tmp_path / "u.tar", members).read_bytes())
    try:
        items = list(open_source("memory://apart/u.tar").items())
    finally:
        system.rm("/apart", recursive=True)
    assert [item.key for item in items if "(byte" not in item.key] == ["u/1", "u/2", "u/3"]
    faults = [fault(item) for item in items if "(byte" in item.key]
    assert len(faults) == 2 and all("--sort=name" in error.fault and error.reason == "bad-entry" for error in faults)


def test_a_member_that_comes_again_wherever_it_does(tmp_path):
    with tarfile.open(tmp_path / "s.tar", "w") as tar:
        for number, name in enumerate(["a.png", "a.png", "a.txt", "b.png", "a.png"]):
            info = tarfile.TarInfo(name)
            info.size = len(picture(number))
            tar.addfile(info, io.BytesIO(picture(number)))
    items = list(open_source(str(tmp_path / "s.tar")).items())
    good = {item.key: item.read() for item in items if "(byte" not in item.key}
    assert good == {"s/a": picture(0), "s/b": picture(3)}
    assert [fault(item).reason for item in items if "(byte" in item.key] == ["duplicate-key"] * 2


@pytest.mark.parametrize("later", ["s.tar", "joined.tar"])
def test_a_text_that_comes_again_is_the_last_one_as_in_unpacking(tmp_path, later):
    """As `tar --append` and archives put together make it."""
    old = [("a.png", picture(0)), ("./a.txt", b"old"), ("A.txt", b"another"), ("b.png", picture(1))]
    new = [("._a.txt", b"of a Mac"), ("a.txt", b"new"), ("b.json", b"{}"), ("a.TXT", b"of another case")]
    if later == "s.tar":
        path = with_links(tmp_path / later, old + new)
    else:
        path = tmp_path / later
        path.write_bytes(with_links(tmp_path / "1", old).read_bytes() + with_links(tmp_path / "2", new).read_bytes())
    items = list(open_source(str(path), SourceOptions(columns=("txt",))).items())
    assert [(item.read(), dict(item.columns)) for item in items] == [(picture(1), {}), (picture(0), {"txt": "new"})]
    with open_tar(str(path)) as file:
        names = sorted(member.name for sample in samples(file) for member in sample.run)
    assert names == sorted(["a.png", "._a.txt", "a.txt", "a.TXT", "A.txt", "b.png", "b.json"])


def test_links_inside_a_tar_are_what_they_link_to(tmp_path):
    entries = [
        ("d/1.png", picture(1)),
        ("d/2.png", "hard:d/1.png"),
        ("d/3.png", "soft:1.png"),
        ("e/4.png", "soft:../d/2.png"),  # a link to a link
        ("./e/5.png", "hard:d/1.png"),
        ("e/6.png", "soft:./late.png"),
        ("e/late.png", picture(9)),
        ("e/late.txt", b"a text"),
        ("e/6.txt", "hard:e/late.txt"),
    ]
    source = open_source(str(with_links(tmp_path / "l.tar", entries)), SourceOptions(columns=("txt",)))
    items = {item.key: item for item in source.items()}
    assert {key: item.read() for key, item in items.items()} == {
        **dict.fromkeys(["l/d/1", "l/d/2", "l/d/3", "l/e/4", "l/e/5"], picture(1)),
        **dict.fromkeys(["l/e/6", "l/e/late"], picture(9)),
    }
    assert items["l/e/6"].columns == {"txt": "a text"}
    with open_tar(str(tmp_path / "l.tar")) as file:
        members = [member for sample in samples(file) for member in sample.run]
        assert all(member.isreg() for member in members) and len(members) == len(entries)


@pytest.mark.parametrize("target", ["/etc/passwd", "../../etc/passwd", "gone.png", "x.png", "d", "loop.png"])
def test_links_to_elsewhere_are_failures(tmp_path, target):
    (tmp_path / "gone.png").write_bytes(picture(7))  # a file of that name that lies beside is another one
    folder = tarfile.TarInfo("d")
    folder.type = tarfile.DIRTYPE
    for kind in ("hard", "soft"):
        entries = [("a.png", picture()), ("x.png", f"{kind}:{target}"), ("loop.png", f"{kind}:x.png")]
        items = {item.key: item for item in open_source(str(with_links(tmp_path / "l.tar", entries))).items()}
        assert items["l/a"].read() == picture()
        assert fault(items["l/x"]).reason == "not-found" and "link" in fault(items["l/x"]).fault


@pytest.mark.parametrize("padding", [0, 512, 10240, 1 << 20])
def test_joined_archives_are_read_to_their_end(tmp_path, padding):
    data = b""
    for number in range(3):
        path = with_links(
            tmp_path / "p.tar", [(f"{number}.png", picture(number)), (f"{number}b.png", f"hard:{number}.png")]
        )
        data += path.read_bytes() + bytes(padding)
    (tmp_path / "j.tar").write_bytes(data)
    expected = {f"j/{n}{end}": picture(n) for n in range(3) for end in ("", "b")}
    assert read_all(tmp_path / "j.tar") == expected
    # What is behind them and is none is said.
    (tmp_path / "j.tar").write_bytes(data + b"not a header".ljust(512, b"x"))
    items = list(open_source(str(tmp_path / "j.tar")).items())
    assert [item.key for item in items] == [*expected, "j"]
    assert f"damaged at byte {len(data)}" in fault(items[-1]).fault
    # A sample that goes on in the next archive is whole.
    one, two = (make_tar(tmp_path / name, {name: b"%d" % n}) for n, name in enumerate(["s.txt", "s.png"]))
    (tmp_path / "j.tar").write_bytes(one.read_bytes() + two.read_bytes())
    (item,) = open_source(str(tmp_path / "j.tar"), SourceOptions(columns=("txt",))).items()
    assert (item.read(), item.columns) == (b"1", {"txt": "0"})


@pytest.mark.parametrize("suffix", [".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".TGZ", ".tar"])
def test_compressed_tars_are_read(tmp_path, suffix):
    import bz2
    import lzma

    plain = make_tar(tmp_path / "p.tar", {"1.png": picture(1), "2.png": picture(2), "1.txt": b"old"}).read_bytes()
    pack = {".tar.bz2": bz2.compress, ".tar.xz": lzma.compress}.get(suffix, gzip.compress)
    path = tmp_path / f"s.x{suffix}"
    path.write_bytes(pack(plain))
    source = open_source(str(path), SourceOptions(columns=("txt",)))
    items = {item.key: item for item in source.items()}
    assert {key: item.read() for key, item in items.items()} == {"s.x/1": picture(1), "s.x/2": picture(2)}
    assert items["s.x/1"].columns == {"txt": "old"}
    # Cut short: nothing of it is silently lost.
    path.write_bytes(pack(plain)[:-30])
    if suffix == ".tar.bz2":  # all of it is one block
        with pytest.raises(SourceError, match="cannot be read as tar"):
            open_source(str(path))
        return
    items = list(open_source(str(path)).items())
    assert items[-1].key == "s.x" and fault(items[-1]).reason == "corrupt"


@pytest.mark.parametrize("name", ["s.tar.zst", "s.zip", "s.rar", "s.7z"])
def test_other_archives_are_refused_with_advice(tmp_path, name):
    (tmp_path / name).write_bytes(b"\x28\xb5\x2f\xfd" + bytes(100))
    with pytest.raises(SourceError, match="unpack it"):
        open_source(str(tmp_path / name))
    (tmp_path / "s.tar").write_bytes(b"\x28\xb5\x2f\xfd" + bytes(1000))
    with pytest.raises(SourceError, match=r"cannot be read as tar: .*zstd"):
        open_source(str(tmp_path / "s.tar"))


def test_a_tar_that_leads_back_ends(tmp_path, monkeypatch):
    path = make_tar(tmp_path / "s.tar", {"1.png": picture(1), "2.png": picture(2)})
    forward = tarfile.TarFile.next

    def back(tar):
        member = forward(tar)
        if member is not None and member.name == "2.png":
            tar.offset = 0
        return member

    monkeypatch.setattr(tarfile.TarFile, "next", back)
    items = list(open_source(str(path)).items())
    assert [item.key for item in items] == ["s/1", "s"] and fault(items[1]).reason == "corrupt"


@given(st.integers(0, 5 * 1024), st.binary(min_size=1, max_size=600), st.booleans())
def test_whatever_is_in_a_tar_is_items_or_one_fault(tmp_path_factory, place, junk, cut):
    root = tmp_path_factory.mktemp("j")
    path = with_links(root / "l.tar", [("1.png", picture()), ("2.png", "hard:1.png"), ("3.png", "soft:2.png")])
    data = path.read_bytes()
    path.write_bytes(data[:place] if cut else data[:place] + junk + data[place + len(junk) :])
    try:
        source = open_source(str(path))
    except SourceError:
        return
    for item in source.items():
        try:
            item.read()
        except ImageError as error:
            assert len(str(error)) < 1000


def test_samples_without_an_image_are_counted(tmp_path):
    source = open_source(str(make_tar(tmp_path / "s.tar", {"1.png": picture(), "2.txt": b"", "3.json": b"{}"})))
    assert keys(source) == ["s/1"] and source.skipped.lines() == ["2 samples without an image passed over"]


def test_a_member_larger_than_any_image_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr("jaxphoton.batch.sources.archive.read_member.__defaults__", (1000,))
    path = make_tar(tmp_path / "s.tar", {"1.png": bytes(1001), "2.png": picture()})
    items = list(open_source(str(path)).items())
    assert fault(items[0]).reason == "unreadable" and items[1].read() == picture()
