"""What of a folder is searched: links, thumbnails, hidden files, suffixes, exclusions; and that all is counted."""

from __future__ import annotations

import os
import posixpath
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from jaxphoton.batch.errors import SourceError
from jaxphoton.batch.sources import IMAGE_SUFFIXES, Selection, SourceOptions, open_source
from jaxphoton.batch.sources.globs import Glob
from jaxphoton.image.errors import ImageError
from jaxphoton.image.formats import _REFUSED_FORMATS
from tests.batch.helpers import fault, keys, make_folder, make_tar, picture


def link(path, target):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target, target_is_directory=True)


def lines(source) -> list[str]:
    list(source.items())
    return source.skipped.lines()


def test_every_suffix_that_pillow_decodes_is_an_images():
    Image.init()
    decoded = {suffix for suffix, form in Image.registered_extensions().items() if form in Image.OPEN}
    refused = {suffix for suffix, form in Image.registered_extensions().items() if form in _REFUSED_FORMATS}
    assert decoded - refused <= IMAGE_SUFFIXES and not refused & IMAGE_SUFFIXES


@pytest.mark.parametrize("suffix", [".jfif", ".jpe", ".JPE", ".apng", ".jp2", ".JfIf", ".mpo", ".tga", ".ppm"])
def test_unusual_suffixes_are_taken_in_folders_globs_and_alone(tmp_path, suffix):
    make_folder(tmp_path, [f"a{suffix}", "b.png"])
    assert keys(open_source(str(tmp_path))) == [f"a{suffix}", "b.png"]
    assert keys(open_source(f"{tmp_path}/a*")) == [f"a{suffix}"]
    assert keys(open_source(f"{tmp_path}/a{suffix}")) == [f"{tmp_path}/a{suffix}"]
    path = make_tar(tmp_path / "s.tar", {f"x{suffix}": picture()})
    assert keys(open_source(str(path))) == ["s/x"]


def test_what_is_passed_over_is_counted_by_kind(tmp_path):
    make_folder(tmp_path, ["a.png", ".b.png", ".cache/x.png", "@eaDir/a.png/T.png", "s/#recycle/z.png"])
    for name in ("a.txt", "b.TXT", "s/c.txt", "m.mov", "LICENSE", ".DS_Store"):
        (tmp_path / name).write_text("no image")
    assert keys(open_source(str(tmp_path))) == ["a.png"]
    assert lines(open_source(str(tmp_path))) == [
        "7 files passed over: 3 .txt, 2 hidden, 1 .mov, 1 without a suffix",
        "3 folders left out: 1 #recycle, 1 @eaDir, 1 hidden",
    ]
    (tmp_path / "a.png").unlink()
    with pytest.raises(SourceError, match="no image found; 7 files passed over: 3 .txt, 2 hidden"):
        open_source(str(tmp_path))


def test_nothing_is_said_where_nothing_was_passed_over(tmp_path):
    assert lines(open_source(str(make_folder(tmp_path, ["a.png"])))) == []


def test_of_a_glob_only_what_it_matches_counts(tmp_path):
    make_folder(tmp_path, ["a.png", "b.png"])
    (tmp_path / "a.txt").touch()
    (tmp_path / "b.mov").touch()
    assert lines(open_source(f"{tmp_path}/a*")) == ["1 file passed over: 1 .txt"]
    assert lines(open_source(f"{tmp_path}/*.png")) == []


def test_pipes_are_neither_opened_nor_taken(tmp_path):
    make_folder(tmp_path, ["a.png"])
    os.mkfifo(tmp_path / "b.png")
    source = open_source(str(tmp_path))
    assert keys(source) == ["a.png"] and source.skipped.lines() == ["1 file passed over: 1 pipes and devices"]


@pytest.mark.parametrize("suffix", [".png", ".txt", ".jsonl", ".tar", ".parquet", ".bin"])
def test_a_pipe_in_place_of_a_file_is_refused_at_once(tmp_path, suffix):
    path = tmp_path / f"x{suffix}"
    os.mkfifo(path)
    if suffix == ".png":
        (item,) = open_source(str(path)).items()
        assert "not a regular file" in fault(item).fault
        with pytest.raises(ImageError, match="not a regular file"):
            item.image()
    else:
        with pytest.raises(SourceError, match=r"pipe|not a regular file"):
            open_source(str(path))


def test_an_endless_file_is_refused_at_once(tmp_path):
    for suffix in (".txt", ".jsonl", ".tar", ".tar.gz"):
        (tmp_path / f"x{suffix}").symlink_to("/dev/zero")
        with pytest.raises(SourceError, match="not a regular file"):
            open_source(str(tmp_path / f"x{suffix}"))
    (tmp_path / "l.txt").write_text("/dev/zero\n")
    (item,) = open_source(str(tmp_path / "l.txt")).items()
    assert "not a regular file" in fault(item).fault
    with pytest.raises(ImageError, match="not a regular file"):
        item.image()


def test_linked_folders_are_searched(tmp_path):
    make_folder(tmp_path / "real", ["1.png", "deep/2.png"])
    make_folder(tmp_path / "p", ["3.png"])
    link(tmp_path / "p" / "class_a", "../real")
    root = str(tmp_path / "p")
    assert keys(open_source(root)) == ["3.png", "class_a/1.png", "class_a/deep/2.png"]
    assert keys(open_source(f"{root}/*/*.png")) == ["class_a/1.png"]
    assert keys(open_source(f"{root}/class_*/**/*.png")) == ["class_a/1.png", "class_a/deep/2.png"]
    assert keys(open_source(f"{root}/class_a/*.png")) == ["1.png"]
    assert [item.read() for item in open_source(f"{root}/class_a").items()] == [picture(0), picture(1)]
    assert open_source(root).count() == 3


def test_each_real_folder_is_searched_once_under_its_own_path(tmp_path):
    make_folder(tmp_path / "p", ["b/1.png", "b/c/2.png"])
    make_folder(tmp_path / "out", ["d/3.png"])
    link(tmp_path / "p" / "a", "b")  # before the real one
    link(tmp_path / "p" / "x", "b/c")
    link(tmp_path / "p" / "y", "../out")
    link(tmp_path / "p" / "z", "../out")
    link(tmp_path / "p" / "zd", "../out/d")
    source = open_source(str(tmp_path / "p"))
    assert keys(source) == ["b/1.png", "b/c/2.png", "y/d/3.png"]
    assert source.skipped.lines() == ["4 folders left out: 4 linked and searched elsewhere"]
    # A glob gets what it names.
    assert keys(open_source(f"{tmp_path}/p/a*/*.png")) == ["a/1.png"]
    assert keys(open_source(f"{tmp_path}/p/z*/d/*.png")) == ["z/d/3.png"]
    assert keys(open_source(f"{tmp_path}/p/[xz]*/*.png")) == ["x/2.png", "zd/3.png"]


def test_a_folder_that_is_only_reached_by_its_link_is_searched_through_it(tmp_path):
    make_folder(tmp_path, ["p/.store/1.png", "p/@eaDir/2.png"])
    link(tmp_path / "p" / "a", ".store")
    link(tmp_path / "p" / "b", "@eaDir")
    assert keys(open_source(str(tmp_path / "p"))) == ["a/1.png", "b/2.png"]


def test_loops_of_links_end(tmp_path):
    make_folder(tmp_path / "p", ["a/1.png"])
    link(tmp_path / "p" / "a" / "up", "..")
    link(tmp_path / "p" / "a" / "self", ".")
    link(tmp_path / "p" / "loop", "loop")  # to itself
    link(tmp_path / "p" / "top", "..")
    link(tmp_path / "other" / "back", "../p")
    link(tmp_path / "p" / "a" / "other", "../../other")
    assert keys(open_source(str(tmp_path / "p"))) == ["a/1.png"]
    assert keys(open_source(f"{tmp_path}/p/**/*.png")) == ["a/1.png"]
    # Also where each of many folders links to all.
    for name in "abcdefgh":
        make_folder(tmp_path / "web", [f"{name}/1.png"])
        for other in "abcdefgh":
            link(tmp_path / "web" / name / f"to_{other}", f"../{other}")
    assert keys(open_source(str(tmp_path / "web"))) == [f"{name}/1.png" for name in "abcdefgh"]
    assert len(keys(open_source(f"{tmp_path}/web/**/*.png"))) == 8


def test_a_link_as_input_and_odd_spellings_of_a_folder(tmp_path, monkeypatch):
    make_folder(tmp_path / "p", ["s/1.png", "2.png"])
    link(tmp_path / "l", "p")
    monkeypatch.chdir(tmp_path / "p")
    for spec in ("../l", ".", "./", "../p", "../p/", "..//p//", "s/.."):
        source = open_source(spec)
        assert keys(source) == ["2.png", "s/1.png"], spec
        assert [item.read() for item in source.items()] == [picture(1), picture(0)]
    monkeypatch.chdir(tmp_path / "p" / "s")
    assert keys(open_source("..")) == ["2.png", "s/1.png"]
    assert keys(open_source("./*.png")) == ["1.png"] and keys(open_source("../*.png")) == ["2.png"]


def test_odd_names(tmp_path):
    names = [
        b"caf\xe9.png",
        b"a\nb.png",
        b"tab\t.png",
        b" space .png",
        b"\xff\xfe/\x80.png",
        b"%41.png",
        b"a#b.png",
        b"q?.png",
    ]
    for number, name in enumerate(names):
        path = os.path.join(os.fsencode(tmp_path), name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        Path(os.fsdecode(path)).write_bytes(picture(number))
    items = list(open_source(str(tmp_path)).items())
    assert {item.key: item.read() for item in items} == {
        os.fsdecode(name): picture(number) for number, name in enumerate(names)
    }
    shards = [[item.key for item in Selection((n, 3)).items(open_source(str(tmp_path)))] for n in range(3)]
    assert sorted(sum(shards, [])) == sorted(os.fsdecode(name) for name in names)


@pytest.mark.parametrize(
    ("patterns", "left"),
    [
        (["*_mask.png"], ["a/1.png", "a/raw/2.png", "b/raw.png"]),
        (["raw"], ["a/1.png", "a/1_mask.png", "b/raw.png"]),
        (["raw/"], ["a/1.png", "a/1_mask.png", "b/raw.png"]),
        (["a/*.png"], ["a/raw/2.png", "b/raw.png"]),
        (["a/**/*.png"], ["b/raw.png"]),
        (["**/raw"], ["a/1.png", "a/1_mask.png", "b/raw.png"]),
        (["a"], ["b/raw.png"]),
        (["raw*", "*mask*"], ["a/1.png"]),
        (["photos/b"], ["a/1.png", "a/1_mask.png", "a/raw/2.png"]),
        (["[ab]/1*"], ["a/raw/2.png", "b/raw.png"]),
        (["nothing"], ["a/1.png", "a/1_mask.png", "a/raw/2.png", "b/raw.png"]),
    ],
)
def test_what_is_excluded(tmp_path, monkeypatch, patterns, left):
    make_folder(tmp_path / "photos", ["a/1.png", "a/1_mask.png", "a/raw/2.png", "b/raw.png"])
    monkeypatch.chdir(tmp_path)
    options = SourceOptions(exclude=tuple(patterns))
    for spec in ("photos", "photos/", "photos/**/*.png"):
        source = open_source(spec, options)
        assert keys(source) == left and source.count() == len(left)
    if len(left) < 4:
        assert any("excluded" in line for line in lines(open_source("photos", options)))


def test_exclude_goes_by_keys_where_there_are_no_folders(tmp_path):
    make_folder(tmp_path, ["a.png", "a_mask.png"])
    (tmp_path / "l.txt").write_text("a.png\na_mask.png\n")
    make_tar(tmp_path / "s.tar", {"a.png": picture(), "b/raw/a.png": picture(), "a_mask.png": picture()})
    options = SourceOptions(exclude=("*_mask*", "raw"))
    for name, left in (("l.txt", ["a.png"]), ("s.tar", ["s/a"])):
        source = open_source(str(tmp_path / name), options)
        assert keys(source) == left and any("excluded" in line for line in source.skipped.lines())
    source = open_source([str(tmp_path / "a.png"), str(tmp_path / "a_mask.png")], options)
    assert keys(source) == [str(tmp_path / "a.png")] and source.count() == 1


NAMES = st.lists(st.sampled_from(["a", "b", "ab", "c.png", "x[y]"]), min_size=1, max_size=4).map("/".join)
PATTERNS = st.lists(
    st.sampled_from(["a", "*", "**", "?", "[ab]*", "*.png", "[!a]", "[[]", "ab"]), min_size=1, max_size=4
).map("/".join)


@given(PATTERNS, NAMES)
def test_globs_mean_what_pathlib_says(pattern, name):
    def match(parts: list[str], names: list[str]) -> bool:
        if not parts:
            return not names
        if parts[0] == "**":
            return any(match(parts[1:], names[n:]) for n in range(len(names) + 1))
        return bool(names) and Path(names[0]).match(parts[0]) and match(parts[1:], names[1:])

    assert Glob(pattern).matches(name) == match(pattern.split("/"), name.split("/"))


@given(st.sets(NAMES, min_size=1, max_size=8), PATTERNS)
def test_a_walk_finds_what_the_pattern_matches(tmp_path_factory, names, pattern):
    root = tmp_path_factory.mktemp("tree")
    kept = set()
    for name in names:
        path = root / (name + "_.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        kept.add(name + "_.png")
    matching = sorted(name for name in kept if Glob(pattern).matches(name))
    if not any(character in pattern for character in "*?["):
        return
    fixed = posixpath.commonprefix([pattern.split("/"), list(_literal(pattern))])
    base = "/".join(fixed)
    expected = [name.removeprefix(base).lstrip("/") for name in matching]
    try:
        found = keys(open_source(f"{root}/{pattern}"))
    except SourceError:
        found = []
    assert Counter(found) == Counter(expected)


def _literal(pattern):
    for part in pattern.split("/"):
        if any(character in part for character in "*?["):
            return
        yield part
