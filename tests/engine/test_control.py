"""The arrays that go up with a launch, and the rows that come back."""

from __future__ import annotations

import numpy as np
import pytest

from jaxphoton.constraints.grammar import Replay
from jaxphoton.engine import control as layout
from jaxphoton.engine.control import ControlPacker, Output, Prefill, Row, prefill_inputs, read_tokens, replay
from jaxphoton.engine.request import Request, Sequence
from jaxphoton.models.protocol import Prompt, Segments
from jaxphoton.requests.settings import Settings
from jaxphoton.requests.tokens import Token
from tests.engine.harness import GRAMMARS, READOUT, TABLES, image, request, segments

ROWS, TABLE = 4, 6


def admitted(request: Request, row: int = 1, pages: tuple[int, ...] = (5, 3)) -> Sequence:
    """A sequence of 4 positions a page and an image prefix of 6 that has its row and pages."""
    sequence = Sequence(request, segments(request, 6), 4, 64)
    sequence.row, sequence.pages = row, list(pages)
    if request.image is not None:
        sequence.prefix_pages = [8, 9]
    return sequence


@pytest.fixture
def packer() -> ControlPacker:
    return ControlPacker(ROWS, TABLE, 0, READOUT)


def table_of(line: np.ndarray) -> list[int]:
    return line[len(Row) : len(Row) + TABLE].tolist()


def test_a_step_says_where_each_row_stands(packer):
    sequence = admitted(request(picture=image(1), seed=2**32 - 1, max_objects=3, temperature=0.7, top_p=0.4))
    sequence.tokens, sequence.inflight_refs = [Token(11)] * 2, 1
    control = packer.step([sequence], 2)
    assert control.dtype == np.int32 and control.shape == (2, len(Row) + TABLE)
    line = control[0]
    # Of 6 + 5 positions and 3 tokens the last is fed, and token number 3 is sampled.
    assert (line[Row.ROW], line[Row.POSITION], line[Row.INDEX], line[Row.PREFIX]) == (1, 13, 3, 6)
    assert (line[Row.MAX_TOKENS], line[Row.MAX_OBJECTS]) == (8, 3)
    assert line[[Row.TEMPERATURE, Row.TOP_P]].view(np.float32).tolist() == np.array([0.7, 0.4], np.float32).tolist()
    assert line[[Row.SEED]].view(np.uint32) == [2**32 - 1]
    assert table_of(line) == [8, 9, 5, 3, 0, 0]
    assert control[1, Row.ROW] == ROWS and not any(table_of(control[1]))


def test_every_control_array_is_fresh(packer):
    sequence = admitted(request())
    arrays = [packer.step([sequence], 2) for _ in range(3)]
    arrays += [packer.prefill([sequence], 0, 1, 1, 8, TABLES) for _ in range(2)]
    assert not any(np.shares_memory(a, b) for a in arrays for b in arrays if a is not b)


def test_a_line_follows_growth_and_a_change_of_tenant(packer):
    first = admitted(request(max_objects=1))
    assert table_of(packer.step([first], 1)[0]) == [5, 3, 0, 0, 0, 0]
    first.pages += [7]
    assert table_of(packer.step([first], 1)[0]) == [5, 3, 7, 0, 0, 0]
    second = admitted(request(max_objects=2), pages=(7, 3, 5))
    line = packer.step([second], 1)[0]
    assert table_of(line) == [7, 3, 5, 0, 0, 0] and line[Row.MAX_OBJECTS] == 2


def test_limits_beyond_what_a_column_holds_are_no_limits(packer):
    line = packer.step([admitted(request(max_objects=2**40, max_tokens=2**40))], 1)[0]
    assert line[Row.MAX_OBJECTS] >= line[Row.MAX_TOKENS] == 64 - 6


def test_prompts_go_up_in_chunks_aligned_at_their_end(packer):
    long, short = admitted(request(prompt=9)), admitted(request(prompt=3), row=2)
    chunks = [packer.prefill([long, short], i, 3, 3, 4, TABLES) for i in range(3)]
    extra = [chunk[:, len(Row) + TABLE :] for chunk in chunks]
    fed = [part[:, len(Prefill) :].reshape(3, 4, 4) for part in extra]
    # BOS and 9 ids: 2, 4 and 4 of them; BOS and 3 ids: the last chunk alone.
    assert [part[:, Prefill.COUNT].tolist() for part in extra] == [[2, 0, 0], [4, 0, 0], [4, 4, 0]]
    assert [chunk[:, Row.POSITION].tolist() for chunk in chunks] == [[0, 0, 0], [2, 0, 0], [6, 0, 0]]
    assert [part[:, Prefill.SAMPLE].tolist() for part in extra] == [[0, 0, 0], [0, 0, 0], [1, 1, 0]]
    ids = [i for part, row in zip(extra, fed, strict=True) for i in row[0, 0, : part[0, Prefill.COUNT]].tolist()]
    assert ids == [0, *long.request.prompt.ids]
    assert fed[2][1, 0].tolist() == [0, *short.request.prompt.ids]
    assert [chunk[:, Row.ROW].tolist() for chunk in chunks] == [[1, ROWS, ROWS], [1, ROWS, ROWS], [1, 2, ROWS]]


def test_behind_an_image_a_prefill_starts_where_the_prefix_ends(packer):
    control = packer.prefill([admitted(request(picture=image(1)))], 0, 1, 1, 8, TABLES)
    assert (control[0, Row.POSITION], control[0, Row.PREFIX]) == (6, 6)
    assert control[0, len(Row) + TABLE + Prefill.COUNT] == 5


def test_a_recompute_feeds_committed_tokens_with_their_values(packer):
    sequence = admitted(request("detect", prompt=2))
    sequence.tokens = [Token(5, (1,), (0.25,)), Token(5, (2,), (0.5,)), Token(6, (3, 4), (0.1, 0.2)), Token(5)]
    ids, fed = prefill_inputs(sequence, READOUT)
    kinds, values = fed[:, 0], np.ascontiguousarray(fed[:, 1:]).view(np.float32)
    assert ids.tolist() == [0, 10, 11, 5, 5, 6, 5] and kinds.tolist() == [0, 0, 0, 2, 2, 3, 0]
    np.testing.assert_array_equal(values[3:6], np.array([[0.25, 0], [0.5, 0], [0.1, 0.2]], np.float32))
    control = packer.prefill([sequence], 0, 1, 1, 8, TABLES)
    extra = control[0, len(Row) + TABLE :]
    assert control[0, Row.INDEX] == 4
    assert (extra[Prefill.COUNT], extra[Prefill.OBJECTS]) == (7, 1)
    fed = np.ascontiguousarray(extra[len(Prefill) :].reshape(4, 8)[2:]).view(np.float32)
    np.testing.assert_array_equal(fed[:, :7].T, values)


def test_spatial_references_of_a_prompt_are_fed_as_values():
    prompt = Prompt((1, 5, 5, 6, 2), ((1, (0.5,)), (2, (0.75,)), (3, (0.1, 0.2))))
    for picture, lead in ((None, [0]), (image(1), [])):
        ids, fed = prefill_inputs(admitted(Request(prompt, "text", Settings(max_tokens=2), picture)), READOUT)
        kinds, values = fed[:, 0], np.ascontiguousarray(fed[:, 1:]).view(np.float32)
        assert ids.tolist() == [*lead, 1, 5, 5, 6, 2] and kinds.tolist() == [*lead, 0, 2, 2, 3, 0]
        np.testing.assert_array_equal(values[len(lead) + 3], np.array([0.1, 0.2], np.float32))


@pytest.mark.parametrize("grammar", GRAMMARS)
def test_a_replay_restores_the_state_of_the_grammar(grammar):
    walk = Replay(GRAMMARS[grammar], 99, 99)
    tokens: list[Token] = []
    for _ in range(12):
        state, objects = replay(TABLES, TABLES.start[grammar], tokens)
        assert TABLES.mask(state).tolist() == [walk.allows(i) for i in range(len(TABLES.token_class))]
        assert objects == walk.objects
        token = next(i for i in (6, 5, 3, 20) if walk.allows(i))
        walk.advance(token)
        tokens.append(Token(token))


def test_rows_come_back_as_typed_tokens():
    rows = [
        (20, layout.RUNNING, layout.float_bits(-0.5), -1, -1),
        (5, layout.RUNNING, layout.float_bits(-1), 256, -1),
        (6, layout.LENGTH, layout.float_bits(-2), 1023, 0),
        (0, layout.STOP, layout.float_bits(-3), -1, -1),
    ]
    assert len(Output) + READOUT.columns == 5
    first, second, third, last = read_tokens(np.array(rows, np.int32), READOUT)
    assert first == (Token(20, logprob=-0.5), layout.RUNNING)
    assert second == (Token(5, (256,), (0.25,), -1.0), layout.RUNNING)
    assert third == (Token(6, (1023, 0), (1.0, 2**-10), -2.0), layout.LENGTH)
    assert last == (Token(0, logprob=-3.0), layout.STOP)
    assert list(read_tokens(np.zeros((0, 5), np.int32), READOUT)) == []


def test_without_a_readout_rows_are_ids_alone():
    sequence = admitted(request(prompt=2))
    bare = Segments(sequence.segments.prefix, sequence.segments.ids, np.zeros((3, 0), np.int32))
    sequence.segments, sequence.tokens = bare, [Token(7)]
    ids, fed = prefill_inputs(sequence, None)
    assert ids.tolist() == [0, 10, 11, 7] and fed.shape == (4, 0)
    control = ControlPacker(ROWS, TABLE).prefill([sequence], 0, 1, 1, 8, TABLES)
    assert control.shape == (1, len(Row) + TABLE + len(Prefill) + 8)
    (token,) = read_tokens(np.array([(7, layout.RUNNING, layout.float_bits(-1))], np.int32), None)
    assert token == (Token(7, logprob=-1.0), layout.RUNNING)


def test_the_ids_of_a_prefix_go_up_with_its_length_where_they_differ(packer):
    sequence = admitted(request(picture=image(1)))
    table, block = [8, 9, 0, 0, 0, 0], [0, 6, 6]
    assert packer.prefix([sequence], 2).tolist() == [[*table, *block], [0] * 9]
    control = packer.prefix([sequence], 2, ids=9)
    assert control[0].tolist() == [*table, *block, 0, -1, -1, -1, -1, -1, 0, 0, 0] and not control[1].any()


def test_a_further_block_goes_up_with_its_place_behind_all_that_is_before_it(packer):
    sequence = admitted(request(picture=image(1)))
    ids = np.array([7, 8, 9, 4, -1, -1, 3], np.int32)
    sequence.segments = Segments(sequence.segments.prefix, ids, np.zeros((7, 3), np.int32), ((1, 3), (3, 6)))
    table = [8, 9, 5, 3, 0, 0]
    assert packer.block(sequence, 1, 1).tolist() == [[*table, 6 + 3, 3, 6]]
    control = packer.block(sequence, 0, 2, ids=4)
    assert control[0].tolist() == [*table, 6 + 1, 2, 6, 8, 9, 0, 0] and not control[1].any()


def test_a_run_of_ids_goes_up_alone_and_samples_nothing(packer):
    sequence = admitted(request(prompt=9, picture=image(1)))
    for run, position, count, sample in ((slice(1, 4), 7, 3, 0), (slice(4, None), 10, 5, 1)):
        control = packer.prefill([sequence], 0, 1, 1, 8, TABLES, run=run)
        extra = control[0, len(Row) + TABLE :]
        assert (control[0, Row.POSITION], extra[Prefill.COUNT], extra[Prefill.SAMPLE]) == (position, count, sample)
        fed = extra[len(Prefill) :].reshape(4, 8)[0, :count]
        assert fed.tolist() == list(sequence.request.prompt.ids[run])
    chunks = [packer.prefill([sequence], i, 2, 1, 2, TABLES, run=slice(1, 4)) for i in range(2)]
    assert [chunk[0, len(Row) + TABLE + Prefill.COUNT] for chunk in chunks] == [1, 2]
    assert not any(chunk[0, len(Row) + TABLE + Prefill.SAMPLE] for chunk in chunks)
