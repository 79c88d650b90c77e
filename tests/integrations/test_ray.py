"""Captioning with Ray Data, on the shipped model: the class by itself, and in a cluster of this machine."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from jaxphoton import EngineError, Moondream
from jaxphoton.batch import retries

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
from jaxphoton.integrations import ray as integration  # noqa: E402
from jaxphoton.integrations.ray import Captioner  # noqa: E402
from jaxphoton.requests.dispatcher import Answer  # noqa: E402
from tests.integrations.processes import descendants, processes  # noqa: E402

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "shapes"
PICTURES = sorted(path for path in EXAMPLES.iterdir() if path.suffix in (".png", ".jpg"))
GREEDY = {"temperature": 0}
QUESTION = "How many objects are there?"
ROWS, BROKEN = 40, 17
PATIENCE = 300.0  # seconds after which a test fails; none waits so long


class Cluster:
    """What `caption_dataset` asks of Ray, which knows nodes with so many GPUs."""

    def __init__(self, *gpus: int):
        self.data, self._gpus = self, gpus
        self.asked: dict[str, Any] = {}

    def nodes(self) -> list[dict[str, Any]]:
        gone = {"Alive": False, "Resources": {"GPU": 8.0}}
        return [{"Alive": True, "Resources": {"CPU": 4.0, **({"GPU": float(n)} if n else {})}} for n in self._gpus] + [
            gone
        ]

    def ActorPoolStrategy(self, size: int, **_: Any) -> int:  # noqa: N802
        return size

    def map_batches(self, _: Any, **asked: Any) -> None:
        self.asked = asked


@pytest.mark.parametrize(
    ("gpus", "options", "actors", "each"),
    [
        ((0, 0), {}, 1, None),
        ((0,), {"mesh": "model=2"}, 1, None),
        ((3, 1), {}, 4, 1),
        ((3, 1, 5), {"mesh": "model=2"}, 3, 2),
        ((4, 2), {"mesh": "model=2,expert=2", "replicas": 3}, 3, 4),
    ],
)
def test_an_actor_has_the_gpus_of_its_mesh(monkeypatch, gpus, options, actors, each):
    cluster = Cluster(*gpus)
    monkeypatch.setattr(integration, "import_module", lambda _: cluster)
    integration.caption_dataset(cluster, "shapes", **options)
    assert (cluster.asked["compute"], cluster.asked["num_gpus"]) == (actors, each)
    assert cluster.asked["fn_constructor_kwargs"].get("mesh") == options.get("mesh")


@pytest.mark.parametrize(
    ("mesh", "fault"),
    [
        ("model=4", "needs 4 GPUs of one node; none has more than 3"),
        ("data=2", "data=2: actors are copies of the model"),
        ("rows=2", "a mesh is written like"),
        (2, "must be a text such as"),
    ],
)
def test_a_mesh_that_no_actor_can_have_is_refused_at_once(monkeypatch, mesh, fault):
    monkeypatch.setattr(integration, "import_module", lambda _: Cluster(3, 3))
    with pytest.raises((ValueError, TypeError), match=fault):
        integration.caption_dataset(None, "shapes", mesh=mesh)


@pytest.fixture
def make(shapes, monkeypatch):
    """Makes captioners on the model that is compiled already, and closes them."""
    monkeypatch.setattr(Moondream, "from_pretrained", lambda *_, **__: shapes)
    monkeypatch.setattr(shapes, "close", lambda: None)
    made = []

    def build(**options) -> Captioner:
        made.append(Captioner("shapes", **options))
        return made[-1]

    yield build
    for captioner in made:
        captioner.close()


def ask(captioner: Captioner, *tables) -> list:
    """The tables that come back, all asked at once."""

    async def one(table):
        (answer,) = [answer async for answer in captioner(table)]
        return answer

    async def all_of_them():
        async with asyncio.timeout(PATIENCE):
            return await asyncio.gather(*map(one, tables))

    return asyncio.run(all_of_them())


def pictures(count: int) -> list[bytes]:
    return [path.read_bytes() for path in PICTURES[:count]]


def test_a_table_comes_back_with_the_captions(make, shapes):
    images = [*pictures(2), b"not an image", None]
    (table,) = ask(make(), pa.table({"key": list("abcd"), "bytes": images}))
    direct = [shapes.caption(image, settings=GREEDY) for image in images[:2]]
    first, second, broken, none = table.to_pylist()
    for row, result in zip((first, second), direct, strict=True):
        assert (row["caption"], row["finish_reason"], row["error"]) == (result["caption"], "stop", None)
        assert row["input_tokens"] == result.metrics.input_tokens and row["output_tokens"] == len(result.tokens)
    assert [row["key"] for row in (first, second, broken, none)] == list("abcd")
    assert broken["finish_reason"] == none["finish_reason"] == "error" and broken["caption"] is None
    assert "not an image" in broken["error"] and "needs an image" in none["error"]


def test_what_repeats_itself_is_asked_again_though_no_other_row_comes(make, shapes, monkeypatch):
    asked, answer = [], shapes.answer
    monkeypatch.setattr(retries, "loops", lambda result, finish_reason: True)
    monkeypatch.setattr(shapes, "answer", lambda jobs: answer(asked.append(job) or job for job in jobs))
    (table,) = ask(make(retry_loops=2), pa.table({"bytes": pictures(2)}))
    direct = [shapes.caption(image, settings=GREEDY)["caption"] for image in pictures(2)]
    assert table.column("caption").to_pylist() == direct
    tries = [job.asks[0].settings["temperature"] for job in asked if job.key is not None]  # without the one at first
    assert sorted(tries) == [0, 0, 0.2, 0.2, 0.2, 0.2]


@pytest.mark.parametrize("task, column", [("detect", "objects"), ("point", "points"), ("query", "answer")])
def test_arguments_come_from_columns_where_rows_have_them(make, shapes, task, column):
    name, usual, own = (
        ("question", QUESTION, "What is in the picture?") if task == "query" else ("object", "fish", "moon")
    )
    captioner = make(task=task, arguments={name: usual}, columns={name: "mine"}, image_column="file")
    paths = [str(path) for path in PICTURES[:3]]
    table, empty = ask(
        captioner,
        pa.table({"file": paths, "mine": [None, own, ""]}),
        pa.table({"file": pa.array([], pa.string()), "mine": pa.array([], pa.string())}),
    )
    asked = getattr(shapes, task)
    expected = [asked(path, each, settings=GREEDY)[column] for path, each in zip(paths, (usual, own), strict=False)]
    assert table.column(column).to_pylist() == [*expected, None]
    assert f"{name} must not be empty" in table.column("error").to_pylist()[2]
    assert empty.num_rows == 0 and empty.schema == table.schema


def test_a_prompt_takes_the_place_of_the_model_s_own(make, shapes):
    (table,) = ask(make(arguments={"prompt": QUESTION}), pa.table({"bytes": pictures(1)}))
    assert table.column("caption").to_pylist() == [shapes.query(PICTURES[0], QUESTION, settings=GREEDY)["answer"]]


def test_batches_share_the_steps_of_the_engine(make, shapes):
    captioner, steps = make(), lambda: shapes.engine.metrics().launches.steps
    before = steps()
    tables = ask(captioner, *(pa.table({"bytes": [image]}) for image in pictures(8)))
    assert steps() - before < sum(table.column("output_tokens").to_pylist()[0] for table in tables) / 2


def test_what_is_wrong_with_every_row_is_raised(make):
    captioner = make()
    good = pa.table({"bytes": pictures(1)})
    for batch, error, fault in (
        ({"bytes": pictures(1)}, TypeError, 'batch_format="pyarrow"'),
        (good.rename_columns(["image"]), ValueError, "no column 'bytes'; there are: image"),
        (good.append_column("caption", [["old"]]), ValueError, "there is a column 'caption' already"),
    ):
        with pytest.raises(error, match=re.escape(fault)):
            ask(captioner, batch)
    captioner.close()
    with pytest.raises(RuntimeError):
        ask(captioner, good)


@pytest.mark.parametrize("failure", ["answer", "thread"])
def test_an_engine_that_fails_gives_no_rows(make, shapes, monkeypatch, failure):
    def fail(jobs):
        for job in jobs:
            if failure == "thread":
                raise KeyError("gone")
            yield Answer(job.key, error=EngineError("gone"))

    answers = iter([shapes.answer, fail])  # what is tried out at first goes well
    monkeypatch.setattr(shapes, "answer", lambda jobs: next(answers)(jobs))
    captioner = make()
    for _ in range(2):
        with pytest.raises(RuntimeError, match="gone"):
            ask(captioner, pa.table({"bytes": pictures(2)}))


@pytest.mark.parametrize(
    "options, fault",
    [
        ({"task": "juggle"}, "task must be one of"),
        ({"arguments": {"length": "tiny"}}, "length must be one of"),
        ({"arguments": {"type": "danbooru"}}, "this model has no caption types"),
        ({"settings": {"temperature": -1}}, "temperature must be"),
        ({"task": "detect", "arguments": {"object": ""}}, "object must not be empty"),
    ],
)
def test_what_no_row_could_be_asked_with_is_refused_at_once(make, options, fault):
    with pytest.raises(ValueError, match=fault):
        make(**options)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Images by number, one of them broken."""
    folder = tmp_path_factory.mktemp("images")
    for number in range(ROWS):
        data = b"not an image" if number == BROKEN else PICTURES[number % len(PICTURES)].read_bytes()
        (folder / f"{number:03}").write_bytes(data)
    return folder


@pytest.fixture(scope="module")
def runs(folder, tmp_path_factory) -> Path:
    """The folder with what `ray_driver.py` has written."""
    if importlib.util.find_spec("ray") is None:
        pytest.skip("ray is not installed: captioning with Ray Data is NOT tested (pip install 'ray[data]')")
    out = tmp_path_factory.mktemp("runs")
    token = out / "token"
    token.write_text(secrets.token_hex(32))
    # Ray leaves no token in the home directory, and reports nothing.
    own = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), "RAY_USAGE_STATS_ENABLED": "0"}
    # A process of its own: starting Ray forks, which one that has run jax must not.
    driver = [sys.executable, str(Path(__file__).with_name("ray_driver.py")), str(folder), str(out)]
    environment = os.environ | own | {"PYTHONPATH": str(ROOT)}  # of the actors, too
    with subprocess.Popen(driver, env=environment, stderr=subprocess.PIPE, text=True) as process:
        try:
            _, log = process.communicate(timeout=PATIENCE)
        finally:  # if it hangs: what it has started would outlive it
            for name in descendants(process.pid):
                os.kill(int(name.partition(":")[0]), signal.SIGKILL)
            process.kill()
    assert process.returncode == 0, log
    return out


def rows_of(files) -> list[dict]:
    return [row for file in files for row in pq.read_table(file).to_pylist()]


@pytest.fixture(scope="module")
def expected(shapes) -> dict[str, str | None]:
    captions = [shapes.caption(path, settings=GREEDY)["caption"] for path in PICTURES]
    numbers = [None if number == BROKEN else number % len(PICTURES) for number in range(ROWS)]
    return {f"{row:03}": None if number is None else captions[number] for row, number in enumerate(numbers)}


def check(rows: list[dict], expected: dict[str, str | None]) -> None:
    assert len(rows) == ROWS
    assert {Path(row["path"]).name: row["caption"] for row in rows} == expected
    (broken,) = [row for row in rows if row["finish_reason"] == "error"]
    assert Path(broken["path"]).name == f"{BROKEN:03}" and "not an image" in broken["error"]
    assert all((row["error"] is None) == (row["finish_reason"] == "stop") for row in rows)


def test_an_actor_that_dies_is_replaced(runs, expected):
    assert (runs / "died.processes").exists()
    check(rows_of((runs / "replaced").glob("*.parquet")), expected)


def test_a_run_that_died_is_resumed(runs, expected):
    report = json.loads((runs / "resumed.json").read_text())
    assert "ActorDied" in report["error"] and 0 < report["durable"] < ROWS
    files = set((runs / "resumed").glob("*.parquet"))
    check(rows_of(files), expected)
    first = {file for file in files if file.name in report["files"]}
    assert len(rows_of(first)) == report["durable"]  # what was there was not done again


def test_nothing_stays_behind(runs):
    """Neither of Ray, nor the image workers of actors that died."""
    deadline = time.monotonic() + PATIENCE
    names = [name for file in runs.glob("*.processes") for name in file.read_text().split()]
    assert len(names) > 10 and len(list(runs.glob("*.processes"))) == 3
    while left := set(names) & processes().keys():
        assert time.monotonic() < deadline, left
        time.sleep(0.1)
