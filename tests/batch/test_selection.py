"""Shards, limits, resuming."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxphoton.batch.errors import SourceError
from jaxphoton.batch.sources import Selection, Source, open_source, parse_shard
from jaxphoton.batch.sources.base import every
from jaxphoton.batch.sources.item import Item
from tests.batch.helpers import keys, make_folder, make_tar, picture


class Names(Source):
    """Items of these keys; notes which keys were asked about."""

    def __init__(self, names):
        self.names, self.asked = names, []

    def items(self, wanted=every):
        for name in self.names:
            self.asked.append(name)
            if wanted(name):
                yield Item(name, name, bytes)

    def count(self):
        return len(self.names)


def selected(selection, source, done=()):
    return [item.key for item in selection.items(source, set(done).__contains__)]


@given(st.sets(st.text(max_size=4), max_size=60), st.integers(1, 5))
def test_shards_are_disjoint_and_together_the_whole(names, count):
    source = Names(sorted(names))
    shards = [selected(Selection((index, count)), source) for index in range(count)]
    assert sorted(sum(shards, [])) == sorted(names)


@given(st.sets(st.text(max_size=4), max_size=60), st.integers(1, 3), st.integers(1, 20), st.randoms())
def test_resuming_ends_at_the_same_selection(names, count, limit, random):
    names = sorted(names)
    for index in range(count):
        selection = Selection((index, count), limit)
        whole = selected(selection, Names(names))
        assert len(whole) <= limit
        done = [key for key in whole if random.random() < 0.5]
        assert sorted(done + selected(selection, Names(names), done)) == whole


def test_a_shard_keeps_its_keys_when_images_are_added():
    few, more = Names([str(n) for n in range(50)]), Names([str(n) for n in range(-50, 80)])
    for index in range(3):
        assert set(selected(Selection((index, 3)), few)) <= set(selected(Selection((index, 3)), more))


def test_a_limit_ends_the_iteration():
    source = Names(["a", "b", "c", "d", "e"])
    assert selected(Selection(limit=2), source, ["a"]) == ["b"]
    assert source.asked == ["a", "b", "c"]


def test_counts():
    source = Names([str(n) for n in range(90)])
    assert Selection().count(source) == 90
    assert [Selection((index, 3)).count(source) for index in range(3)] == [
        len(selected(Selection((index, 3)), source)) for index in range(3)
    ]
    assert Selection((1, 3), 7).count(source) == 7


def test_shards_of_containers_take_whole_ones(tmp_path):
    for number in range(5):
        make_tar(tmp_path / f"{number}.tar", {"x.png": picture(), "y.png": picture()})
    source = open_source(f"{tmp_path}/*.tar")
    assert selected(Selection((1, 2)), source) == ["1/x", "1/y", "3/x", "3/y"]
    # More shards than containers: by key.
    shards = [selected(Selection((index, 6)), source) for index in range(6)]
    assert sorted(sum(shards, [])) == keys(source)


def test_shards_of_a_folder_are_by_key(tmp_path):
    source = open_source(str(make_folder(tmp_path, [f"{n}.png" for n in range(30)])))
    shards = [selected(Selection((index, 3)), source) for index in range(3)]
    assert sorted(sum(shards, [])) == keys(source) and all(shards)


@pytest.mark.parametrize("text", ["3/3", "1", "-1/3", "a/b", "0/0", "1/2/3"])
def test_shards_that_make_no_sense(text):
    with pytest.raises(SourceError, match="shard"):
        parse_shard(text)


def test_a_shard_and_a_limit_are_checked():
    assert parse_shard("2/8") == (2, 8)
    with pytest.raises(SourceError, match="limit"):
        Selection(limit=0)
