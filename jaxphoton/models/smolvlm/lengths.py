"""How many positions pictures take: what prefixes are padded to, and what a conversation has room for."""

from __future__ import annotations

import math

from jaxphoton.models.smolvlm.config import ModelConfig

# Positions that are kept room for, of the 8,192 of the published models: with nobody to say how much memory there is,
# as on a CPU, the cache holds as many for each of its rows.
MAX_CONTEXT = 4096
FRONT = (16, 256)  # positions in front of a picture: what stands in front of a question, and with a longer system text


def max_context(config: ModelConfig) -> int:
    return min(config.text.max_position_embeddings, MAX_CONTEXT)


def picture_length(config: ModelConfig, short: int) -> int:
    """The most positions of a picture with so many tiles along its short side, and all there are along the other."""
    each = config.frame_tokens + 2
    tiles = each * short * config.side + config.side + 1 if config.side > 1 else 0
    return tiles + each + 1


def least_length(config: ModelConfig) -> int:
    """The fewest positions of a picture."""
    frames = 1 if config.long_side == 1 else config.long_side + 1
    return (config.frame_tokens + 2) * frames + 1


def short_sides(config: ModelConfig) -> tuple[int, ...]:
    """Tiles along the short side that programs are compiled for: half of the long side's, all but one, all.

    Photos have nearly always the last two (4:3, 3:2 and 16:9 are 3 tiles by 4, squares 4 by 4), and only panoramas are
    padded by much: more lengths would be programs that hardly ever run.
    """
    most = config.side
    return tuple(sorted({math.ceil(most / 2), max(most - 1, 1), most}))


def frame_counts(config: ModelConfig) -> tuple[int, ...]:
    """Frames of such pictures, ascending."""
    return tuple(config.max_frames if config.side == 1 else 1 + config.side * short for short in short_sides(config))


def prefix_lengths(config: ModelConfig) -> tuple[int, ...]:
    """Lengths to which prefixes are padded, ascending."""
    lengths = [FRONT[0] + picture_length(config, short) for short in short_sides(config)]
    lengths.append(FRONT[-1] + picture_length(config, config.side))
    return tuple(sorted({min(length, max_context(config)) for length in lengths}))


def front_room(config: ModelConfig) -> int:
    """Positions that the longest prefix has room for in front of a picture, whatever that is."""
    return max(0, prefix_lengths(config)[-1] - picture_length(config, config.side))
