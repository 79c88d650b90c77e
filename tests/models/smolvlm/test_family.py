"""Pictures of every size stand in prompts as embeddings, within the lengths that programs are compiled for."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxphoton.image.crops import Crops
from jaxphoton.models.llama.config import GenerationConfig
from jaxphoton.models.protocol import IMAGE
from jaxphoton.models.smolvlm import lengths
from jaxphoton.models.smolvlm.config import ImageConfig
from jaxphoton.models.smolvlm.family import of
from jaxphoton.models.smolvlm.pictures import frame_count
from jaxphoton.models.smolvlm.prompts import Message, prompt
from jaxphoton.models.smolvlm.reading import config_from_dict
from jaxphoton.requests.settings import Settings
from tests.models.smolvlm.drawn import REAL, SMALL

CONFIGS = {name: config_from_dict(data) for name, data in REAL.items()} | {"small": SMALL}
CONFIGS["unsplit"] = replace(CONFIGS["2.2b"], image=ImageConfig(1536, splitting=False))
CONFIGS["odd"] = replace(SMALL, vision=replace(SMALL.vision, image_size=13), image=ImageConfig(26 + 13))
FAMILIES = {name: of(config) for name, config in CONFIGS.items()}
# As of the published tokenizers: one id for a line's end, and one for two; a word is an id.
LINES = {"\n": [198], "\n\n": [216]}


def encode(text):
    return LINES.get(text) or [20 for _ in text.replace(":", " :").replace("\n", " \n ").split(" ") if _]


def asked(config, *messages, front=255):
    return prompt(config.tokens, encode, messages, front)


def without_pixels(family, height, width):
    tiling = family.pictures.tiling(height, width)
    return Crops(np.empty((frame_count(tiling), 0)), tiling)


@given(
    model=st.sampled_from(list(CONFIGS)),
    sizes=st.lists(st.tuples(st.integers(1, 6000), st.integers(1, 6000)), min_size=1, max_size=4),
)
def test_there_is_an_image_id_for_every_embedding(model, sizes):
    family, config = FAMILIES[model], CONFIGS[model]
    first, *further = (without_pixels(family, *size) for size in sizes)
    told = asked(config, Message("user", (None, "What differs?", *[None] * len(further))))
    segments = family.segments(told, first, further)
    embeddings = [len(crops.pixels) * config.frame_tokens for crops in (first, *further)]
    found = [segments.prefix, *(segments.ids[start:stop] for start, stop in segments.blocks)]
    assert [np.sum(ids == IMAGE) for ids in found] == embeddings
    assert np.sum(segments.ids == IMAGE) == sum(embeddings[1:]) and segments.ids[-1] != IMAGE
    assert max(embeddings) <= family.image_tokens
    most = family.prefix_lengths[-1]
    assert all(lengths.least_length(config) <= len(ids) <= most for ids in found[1:]) and len(found[0]) <= most
    singles = [crops for images, crops in family.vision_buckets(4) if images == 1]
    assert family.max_crops in singles and all(len(crops.pixels) <= family.max_crops for crops in (first, *further))


@pytest.mark.parametrize("model", ["2.2b", "500m", "256m"])
@pytest.mark.parametrize("size", [(480, 640), (640, 480), (1080, 1920), (3024, 4032), (2000, 3000), (512, 512)])
def test_photos_are_hardly_padded(model, size):
    family = FAMILIES[model]
    told = asked(CONFIGS[model], Message("user", (None, "Can you describe this image?")))
    length = len(family.segments(told, without_pixels(family, *size)).prefix)
    padded = next(n for n in family.prefix_lengths if n >= length)
    assert padded - length <= 0.02 * length


def test_few_lengths_are_compiled():
    assert FAMILIES["2.2b"].prefix_lengths == (769, 1101, 1433, 1673)
    assert FAMILIES["500m"].prefix_lengths == FAMILIES["256m"].prefix_lengths == (616, 880, 1144, 1384)
    assert FAMILIES["unsplit"].prefix_lengths == (100, 340)
    assert sorted(FAMILIES["2.2b"].vision_buckets(4)) == [(1, 9), (1, 13), (1, 17), (4, 52), (4, 68)]
    assert sorted(FAMILIES["unsplit"].vision_buckets(4)) == [(1, 1), (4, 4)]
    assert FAMILIES["small"].prefix_lengths[-1] <= FAMILIES["small"].max_context == 160


def test_a_system_text_of_some_length_stands_in_the_prefix_and_a_long_one_does_not():
    family, config = FAMILIES["2.2b"], CONFIGS["2.2b"]
    crops, room = without_pixels(family, 512, 512), lengths.front_room(config)
    assert room == 256
    for words in (200, 2000):
        messages = Message("system", ("word " * words,)), Message("user", (None, "?"))
        told = asked(config, *messages, front=room - 1)
        assert told.image is (words == 200)
        first, further = (crops, []) if told.image else (None, [crops])
        segments = family.segments(told, first, further)
        assert len(segments.prefix) <= family.prefix_lengths[-1] and len(segments.blocks) == len(further)
        assert len(segments.prefix) + len(segments.ids) == 1 + (2 + words + 1 + 3) + 1416 + (1 + 1 + 3)


def crops_of(family, *tilings):
    size, random = family.config.vision.image_size, np.random.default_rng(0)
    return [
        Crops(random.integers(0, 256, (frame_count(tiling), size, size, 3), np.uint8), tiling) for tiling in tilings
    ]


def test_pictures_are_packed_one_behind_the_other():
    family = FAMILIES["small"]
    pictures = crops_of(family, (2, 1), (0, 0), (2, 2))
    pixels, frames = family.pack(pictures, 4, 12, nullcontext)
    assert pixels.shape == (12, 14, 14, 3) and frames.shape == (4, family.max_crops) == (4, 5)
    for picture, row in zip(pictures, frames, strict=False):
        np.testing.assert_array_equal(pixels[row[: len(picture.pixels)]], picture.pixels)
    assert frames.max() == 8 and not pixels[9:].any() and not frames[3].any()


@pytest.mark.parametrize(
    "changed",
    [
        lambda crops: Crops(crops.pixels[:-1], crops.tiling),
        lambda crops: Crops(crops.pixels, (1, 1)),
        lambda crops: Crops(crops.pixels[:, :-1], crops.tiling),
        lambda crops: Crops(crops.pixels.astype(np.float32), crops.tiling),
    ],
)
def test_frames_of_another_model_are_the_fault_of_their_picture(changed):
    family, faults = FAMILIES["small"], []

    class Guard:
        def __init__(self, index):
            self.index = index

        def __enter__(self):
            pass

        def __exit__(self, kind, error, trace):
            if error is not None:
                faults.append((self.index, str(error)))
            return True

    good, bad = crops_of(family, (0, 0), (2, 1))
    family.pack([good, changed(bad)], 2, 8, Guard)
    ((index, fault),) = faults
    assert index == 1 and "must be uint8" in fault


def test_what_stands_beside_the_settings_says_how_to_generate():
    plain = FAMILIES["500m"]
    assert (plain.stop_ids, plain.defaults) == (frozenset({49279}), Settings(0.0, 1.0, 512))
    said = of(replace(CONFIGS["500m"], generation=GenerationConfig((0, 49279), 0.7, 0.8)))
    assert (said.stop_ids, said.defaults) == (frozenset({0, 49279}), Settings(0.7, 0.8, 512))


def test_coordinates_are_not_had():
    family = FAMILIES["small"]
    assert family.with_coordinates("bins") is family
    with pytest.raises(ValueError, match="no coordinates"):
        family.with_coordinates("bins-1")
