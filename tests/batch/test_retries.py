"""Answers that repeat themselves are asked again, whatever answers, and in whatever order."""

from __future__ import annotations

import dataclasses
import random
import threading
from collections import Counter
from queue import SimpleQueue

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxphoton.batch.dedupe import Dedupe
from jaxphoton.batch.journal import Journal
from jaxphoton.batch.journal.reading import JournalReader
from jaxphoton.batch.quality import repeats
from jaxphoton.batch.questions import Question, Questions
from jaxphoton.batch.retries import RetryingAnswerer, ask_of_try, retrying, seed_of_try
from jaxphoton.batch.runner import Runner
from jaxphoton.batch.sources.item import Item
from jaxphoton.batch.summary import Tally
from jaxphoton.image.errors import ImageError
from jaxphoton.requests.answer import Answer, Result
from jaxphoton.requests.ask import Ask, Job
from jaxphoton.requests.settings import MAX_SEED, Settings
from tests.batch.helpers import HEADER

WARM, COLD = Settings(temperature=0.2, top_p=0.8), Settings(temperature=0.0, top_p=1.0)
LOOP = "so it goes, " * 4


class Model:
    """Answers in random order as jobs come. What is random in an answer its seed decides: of `loops` in 10 seeds the
    text repeats itself.

    Attributes:
      asked: (name of the job, ask) of all.
    """

    def __init__(self, loops: int = 5, order: int = 0, error=lambda job, time: None):
        self.loops, self.order, self.error = loops, random.Random(order), error
        self.asked: list[tuple[str | None, Ask]] = []
        self.times: Counter[str | None] = Counter()

    def text(self, job: Job, ask: Ask) -> str:
        settings = ask.settings or {}
        drawn = random.Random(repr((job.image, ask.arguments, settings.get("temperature") and settings.get("seed"))))
        return f"{LOOP}{drawn.random()}" if drawn.randrange(10) < self.loops else f"a picture {drawn.random()}"

    def answer(self, jobs):
        queue = SimpleQueue()

        def read():
            try:
                for job in jobs:
                    queue.put(job)
                queue.put(None)
            except BaseException as error:
                queue.put(error)

        threading.Thread(target=read, daemon=True).start()
        held, ended = [], None
        while held or ended is None:
            while ended is None and (not held or not queue.empty()):
                job = queue.get()
                if isinstance(job, Job):
                    held.append(job)
                else:
                    ended = job or True
            if held:
                yield self._answered(held.pop(self.order.randrange(len(held))))
        if isinstance(ended, BaseException):
            raise ended

    def _answered(self, job: Job) -> Answer:
        self.times[job.name] += 1
        self.asked += [(job.name, ask) for ask in job.asks]
        if (error := self.error(job, self.times[job.name])) is not None:
            return Answer(job.key, error=error)
        return Answer(job.key, tuple(self._result(job, ask) for ask in job.asks), None, (3, 4), ("a note",))

    def _result(self, job: Job, ask: Ask) -> Result:
        if ask.skill == "detect":
            result = Result({"objects": []})
        else:
            result = Result({"answer" if ask.skill == "query" else "caption": self.text(job, ask)})
        result.tokens, result.finish_reason, result.seed = (1, 2), "stop", (ask.settings or {}).get("seed") or 77
        return result


def expected(model: Model, job: Job, ask: Ask, retries: int, defaults: Settings) -> tuple[str, int]:
    """The text and the number of retries by the rule as it is written down."""
    first = model._result(job, ask)
    texts = [model.text(job, ask)]
    texts += [model.text(job, ask_of_try(ask, first, number, defaults)) for number in range(1, retries + 1)]
    good = next((number for number, text in enumerate(texts) if not repeats(text)), None)
    return (texts[0], retries) if good is None else (texts[good], good)


asks = st.lists(
    st.builds(
        Ask,
        st.sampled_from(["caption", "query", "detect"]),
        st.fixed_dictionaries({"which": st.integers(0, 9)}),
        st.fixed_dictionaries({"temperature": st.sampled_from([0, 0.7])}, optional={"seed": st.integers(0, MAX_SEED)}),
    ),
    min_size=1,
    max_size=4,
)


@given(st.lists(asks, max_size=12), st.integers(1, 4), st.integers(1, 9), st.integers(), st.sampled_from([WARM, COLD]))
def test_the_first_that_does_not_repeat_itself_is_the_answer(all_asks, retries, loops, order, defaults):
    model = Model(loops, order)
    jobs = [Job(n, b"%d" % n, tuple(each), f"{n}") for n, each in enumerate(all_asks)]
    answers = {answer.key: answer for answer in RetryingAnswerer(model, retries, defaults).answer(iter(jobs))}
    assert answers.keys() == {job.key for job in jobs}
    times = Counter(name for name, _ in model.asked)
    for job in jobs:
        found = answers[job.key]
        assert (found.size, found.notes, len(found.results)) == ((3, 4), ("a note",), len(job.asks))
        total = 0
        for ask, result in zip(job.asks, found.results, strict=True):
            if ask.skill == "detect":
                assert result == {"objects": []} and result.retries == 0
            else:
                text, number = expected(model, job, ask, retries, defaults)
                assert (*result.values(), result.retries) == (text, number)
                total += number
        assert times[job.name] == len(job.asks) + total  # and nothing else was asked again


@given(
    st.lists(st.integers(0, MAX_SEED), min_size=2, max_size=2, unique=True), st.integers(1, 100), st.integers(1, 100)
)
def test_tries_have_seeds_of_their_own(seeds, one, other):
    assert all(0 <= seed_of_try(seed, one) <= MAX_SEED for seed in seeds)
    assert len({seed_of_try(seed, one) for seed in seeds}) == 2
    assert one == other or seed_of_try(seeds[0], one) != seed_of_try(seeds[0], other)
    assert seed_of_try(seeds[0], 0) == seeds[0]


@pytest.mark.parametrize(
    "given_settings, defaults, expect",
    [
        ({"temperature": 0}, WARM, {"temperature": 0.2, "top_p": 0.8, "seed": seed_of_try(0, 2)}),
        ({"temperature": 0}, COLD, {"temperature": 0.6, "top_p": 0.9, "seed": seed_of_try(0, 2)}),
        ({"temperature": 0, "seed": 5}, WARM, {"temperature": 0.2, "top_p": 0.8, "seed": seed_of_try(5, 2)}),
        ({"temperature": 0, "top_p": 0.5}, WARM, {"temperature": 0.2, "top_p": 0.5, "seed": seed_of_try(0, 2)}),
        ({"temperature": 0.7, "seed": 5}, WARM, {"temperature": 0.7, "seed": seed_of_try(5, 2)}),
        (
            {"temperature": 0.7, "max_tokens": 9},
            COLD,
            {"temperature": 0.7, "max_tokens": 9, "seed": seed_of_try(77, 2)},
        ),
        (None, WARM, {"seed": seed_of_try(77, 2)}),
        (None, COLD, {"temperature": 0.6, "top_p": 0.9, "seed": seed_of_try(0, 2)}),
    ],
)
def test_how_it_is_asked_again(given_settings, defaults, expect):
    first = Result()
    first.seed = 77
    ask = Ask("caption", {"length": "short"}, given_settings, priority=3, adapter="mine")
    again = ask_of_try(ask, first, 2, defaults)
    assert again.settings == expect
    assert again == dataclasses.replace(ask, settings=expect)


def test_a_slow_source_keeps_none_waiting():
    """The job comes again while its source says nothing, and before it ends."""
    release = threading.Event()

    def source():
        yield Job(0, b"0", (Ask("caption", {}, {"temperature": 0.5, "seed": 1}),), "0")
        assert release.wait(60)
        yield Job(1, b"1", (Ask("caption", {}, {"temperature": 0.5, "seed": 1}),), "1")

    model = Model(loops=10)
    answers = retrying(model, 3, WARM).answer(source())
    assert next(answers).results[0].retries == 3 and len(model.asked) == 4
    release.set()
    assert [answer.key for answer in answers] == [1]
    assert retrying(model, 0, WARM) is model


def test_what_reading_the_jobs_raises_comes_after_what_was_begun():
    def source():
        yield Job(0, b"0", (Ask("caption", {}, {"temperature": 0.5, "seed": 1}),), "0")
        raise LookupError("no more")

    answers = retrying(Model(loops=10), 2, WARM).answer(source())
    assert next(answers).results[0].retries == 2
    with pytest.raises(LookupError, match="no more"):
        next(answers)


def test_leaving_early_ends_the_thread_that_reads():
    def source():
        for number in range(1000):
            yield Job(number, b"0", (Ask("caption", {}, {"temperature": 0.5, "seed": 1}),), f"{number}")

    before = set(threading.enumerate())
    answers = RetryingAnswerer(Model(loops=0), 2, WARM).answer(source())
    next(answers)
    (reading,) = [each for each in {*threading.enumerate()} - before if each.name == "jaxphoton-again"]
    answers.close()
    reading.join(60)
    assert not reading.is_alive()


def job_that_loops() -> Job:
    return Job(0, b"0", (Ask("caption", {}, {"temperature": 0.5, "seed": 1}),), "0")


def test_a_picture_that_is_gone_keeps_its_first_answer():
    model = Model(10, error=lambda job, time: ImageError("0", "not-found", "gone") if time == 3 else None)
    (answer,) = retrying(model, 5, WARM).answer([job_that_loops()])
    assert answer.error is None and answer.results[0].retries == 1 and repeats(answer.results[0]["caption"])


def test_other_errors_of_a_retry_are_the_run_s():
    model = Model(10, error=lambda job, time: RuntimeError("the device") if time == 2 else None)
    (answer,) = retrying(model, 5, WARM).answer([job_that_loops()])
    assert isinstance(answer.error, RuntimeError)


def test_a_thought_that_loops_until_it_is_cut_off_is_asked_again():
    class Thinks(Model):
        def _result(self, job, ask):
            result = super()._result(job, ask)
            if len(self.asked) == 1:
                result |= {"answer": "", "reasoning": {"text": LOOP, "grounding": []}}
                result.finish_reason = "length"
            return result

    model = Thinks(loops=0)
    (answer,) = retrying(model, 5, WARM).answer([dataclasses.replace(job_that_loops(), asks=(Ask("query", {}),))])
    assert answer.results[0].retries == 1 and "reasoning" not in answer.results[0]


def item(key: str, data: bytes | None = None) -> Item:
    return Item(key, f"in.tar#{key}", lambda: data or key.encode(), columns={})


TASKS = Questions((Question("caption"), Question("query", "Why?"), Question("detect", "cat")), {"temperature": 0.0})
THREE = Questions((Question("caption"),), {"temperature": 0.7, "seed": 4}, captions=3)


@given(st.sampled_from([TASKS, THREE]), st.integers(0, 12), st.integers(1, 3), st.integers(), st.integers(0, 12))
def test_a_run_that_ends_anywhere_goes_on_as_if_it_had_not(tmp_path_factory, questions, images, retries, order, kept):
    """A journal that a kill has cut off after any line, and the whole one, have the same records."""

    def run(path, items):
        with Journal(path, HEADER) as journal:
            left = (each for each in items if each.key not in journal)
            model = Model(6, order)
            Runner(retrying(model, retries, WARM), questions, lambda number, record: journal.write(record)).run(left)
        return {record.key: record for record in journal_records(path)}

    folder = tmp_path_factory.mktemp("retries")
    items = [item(f"{number}.png") for number in range(images)]
    whole = run(folder / "whole", items)
    lines = (folder / "whole").read_bytes().splitlines(keepends=True)
    (folder / "cut").write_bytes(b"".join(lines[: 1 + kept]))
    assert run(folder / "cut", items) == whole and len(whole) == images
    tally = Tally()
    for record in whole.values():
        tally.add(record)
        for result in record.results:
            repeated = result["task"] != "detect" and repeats(result.get("caption") or result["answer"])
            assert (
                result.get("retries", 0) == retries if repeated else result.get("retries", 1) in range(1, retries + 1)
            )
        assert ("the text repeats itself" in record.warnings) == any(map(still, record.results))
    assert tally.looping == sum(still(result) for record in whole.values() for result in record.results)


def still(result) -> bool:
    return repeats(result.get("caption") or result.get("answer") or "")


def journal_records(path):
    with JournalReader(path) as reader:
        return list(reader.records())


def test_the_answer_of_an_equal_file_was_not_asked_again(tmp_path):
    records = []
    with Journal(tmp_path / "run.jsonl", HEADER) as journal:

        def sink(number, record):
            records.append(record)
            return journal.write(record)

        questions = Questions((Question("caption"),), {"temperature": 0.7, "seed": 4})
        answerer = retrying(Model(10), 2, WARM)
        Runner(answerer, questions, sink, dedupe=Dedupe(journal.path)).run([item("a", b"x"), item("b", b"x")])
    assert [record.results[0].get("retries") for record in records] == [2, None]
    assert records[0].results[0]["caption"] == records[1].results[0]["caption"]
    tally = Tally()
    for record in records:
        tally.add(record)
    assert "1 asked again, 0 mended, 1 still repeats" in tally.lines(tally.summary({}))
    assert (tally.again, tally.looping) == (1, 1)
