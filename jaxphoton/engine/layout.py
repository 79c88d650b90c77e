"""Columns of the packed int32 arrays that go up with a launch and come back from it. Floats travel as bits."""

from __future__ import annotations

from enum import IntEnum, auto

import numpy as np


class _Column(IntEnum):
    @staticmethod
    def _generate_next_value_(name, start, count, last_values):
        return count


class Row(_Column):
    """What every launched row carries, in a step and in a prefill alike; its page table follows."""

    ROW = auto()  # of the row state; one past the last for padding
    POSITION = auto()  # logical position of the first id that is fed
    HOLE = auto()  # unused entries behind an image prefix; 0 for text only
    INDEX = auto()  # number of the generated token that is sampled
    TEMPERATURE = auto()  # float bits
    TOP_P = auto()  # float bits
    SEED = auto()  # uint32 bits
    MAX_TOKENS = auto()
    MAX_OBJECTS = auto()


class Prefill(_Column):
    """What a prefill carries besides, behind the page table; then ids [T], kinds [T], values [T, 2] as bits."""

    COUNT = auto()  # ids of this chunk that are real
    SAMPLE = auto()  # 1 if this is the sequence's last chunk
    STATE = auto()  # automaton state in which the token is sampled
    OBJECTS = auto()  # objects completed before it


class Output(_Column):
    """One row that comes back."""

    TOKEN = auto()
    BIN_0 = auto()  # coordinate or width, where the token read the region heads; else -1
    BIN_1 = auto()  # height; else -1
    FINISH = auto()  # one of the codes below
    LOGPROB = auto()  # float bits


ZOMBIE, RUNNING, STOP, LENGTH = -1, 0, 1, 2  # FINISH codes; ZOMBIE: the row had ended before this launch

TOKEN_STREAM, COORDINATE_STREAM, WIDTH_STREAM, HEIGHT_STREAM = range(4)  # of random words, one a purpose


def table_width(max_positions: int, page_size: int) -> int:
    """Pages of the longest sequence; a hole may cost up to one page more."""
    return -(-max_positions // page_size) + 1


def float_bits(value: float) -> int:
    return int(np.float32(value).view(np.int32))


def uint_bits(value: int) -> int:
    return int(np.uint32(value).view(np.int32))
