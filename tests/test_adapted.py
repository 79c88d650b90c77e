"""Adapters of the shipped model, as users ask for them: in one batch, by every method, over HTTP, in runs."""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path

import httpx2 as httpx
import pytest

from jaxphoton import Ask, AsyncMoondream, Job, Moondream, UnknownAdapter, WeightsError, batch
from jaxphoton.batch.errors import BatchError, SettingsDiffer
from jaxphoton.batch.journal.reading import JournalReader
from jaxphoton.batch.model import load_model
from jaxphoton.batch.workers.protocol import error_fields, error_of
from jaxphoton.bodies.faults import fault_of
from jaxphoton.config import EngineConfig
from jaxphoton.models.adapters import Adapter, LowRank
from jaxphoton.requests.errors import EngineStartError, NotFinite, UnusableAdapter
from jaxphoton.server.backend import LocalBackend
from jaxphoton.server.service import Service
from tests.adapters import drawn, saved
from tests.server.serving import served

EXAMPLES = Path(__file__).parents[1] / "examples" / "shapes"
PICTURES = sorted(EXAMPLES.glob("*.png"))[:3]
GREEDY = {"temperature": 0, "max_tokens": 12}
NAMES = (None, "cats", "dogs", "tune@7")


def caption(model, name, picture=PICTURES[0]):
    return model.caption(picture, settings=GREEDY, adapter=name)


@pytest.fixture(scope="module")
def alone(adapted):
    """What is said of each picture, each asked by itself."""
    return {(picture, name): caption(adapted, name, picture) for picture in PICTURES for name in NAMES}


def test_adapters_change_the_answer(alone):
    for picture in PICTURES:
        assert len({alone[picture, name].tokens for name in NAMES}) == len(NAMES)


def test_rows_of_one_batch_have_each_their_own(adapted, alone):
    asks = [Ask("caption", {}, GREEDY, adapter=name) for name in NAMES]
    jobs = [Job((picture, turn), picture, (*asks[turn:], *asks[:turn])) for picture in PICTURES for turn in range(4)]
    for answer in adapted.answer(jobs):
        picture, turn = answer.key
        assert answer.error is None
        for name, result in zip((*NAMES[turn:], *NAMES[:turn]), answer.results, strict=True):
            assert result.tokens == alone[picture, name].tokens


def test_the_same_by_every_method(adapted, alone):
    wanted = alone[PICTURES[0], "cats"]["caption"]
    for given in (
        {"adapter": "cats", "settings": GREEDY},
        {"settings": {**GREEDY, "adapter": "cats"}},
        {"settings": {**GREEDY, "variant": "cats"}},
    ):
        assert adapted.caption(PICTURES[0], **given)["caption"] == wanted
        (item,) = adapted.caption_batch([PICTURES[0]], **given)
        assert item.result["caption"] == wanted
        assert "".join(adapted.caption(PICTURES[0], stream=True, **given)["caption"]) == wanted
    turns = [{"role": "user", "content": "What is it?"}]
    for ask in (
        lambda **given: adapted.query(PICTURES[0], "What is it?", settings=GREEDY, **given),
        lambda **given: adapted.chat(turns, settings=GREEDY, **given),
        lambda **given: adapted.detect(PICTURES[0], "object", settings={"max_objects": 3}, **given),
        lambda **given: adapted.point(PICTURES[0], "object", settings={"max_objects": 3}, **given),
    ):
        results = ask(), ask(adapter="cats"), ask(adapter="dogs")
        assert len({str(result) for result in results}) == 3


def test_for_asyncio(adapted, alone):
    async def ask():
        model = AsyncMoondream(adapted)
        asked = (model.caption(PICTURES[0], settings=GREEDY, adapter=name) for name in NAMES)
        pieces = [piece async for piece in model.stream_caption(PICTURES[0], settings=GREEDY, adapter="dogs")]
        await model.load_adapter("birds", drawn(10))
        birds = await model.query(PICTURES[0], "What?", settings=GREEDY, adapter="birds")
        adapted.forget_adapter("birds")
        assert birds.tokens != (await model.query(PICTURES[0], "What?", settings=GREEDY)).tokens
        return await asyncio.gather(*asked), "".join(pieces)

    results, text = asyncio.run(ask())
    assert [result.tokens for result in results] == [alone[PICTURES[0], name].tokens for name in NAMES]
    assert text == alone[PICTURES[0], "dogs"]["caption"]


def test_one_comes_and_goes_while_the_engine_runs(adapted, alone, tmp_path):
    compiled = dict(adapted.session.engine._programs._compiled)
    for seed in (8, 9):  # another takes the name
        adapted.load_adapter("birds", drawn(seed) if seed == 8 else saved(tmp_path / "birds.safetensors", 9))
        adapted.load_adapter("same", drawn(seed))
        assert caption(adapted, "birds").tokens == caption(adapted, "same").tokens
        assert caption(adapted, "birds").tokens not in {alone[PICTURES[0], name].tokens for name in NAMES}
        assert caption(adapted, "cats").tokens == alone[PICTURES[0], "cats"].tokens
    assert adapted.session.engine._programs._compiled == compiled
    for name in ("birds", "same"):
        adapted.forget_adapter(name)
    with pytest.raises(UnknownAdapter, match="no adapter 'birds' here; there is cats, dogs, broken, tune@7, wide"):
        caption(adapted, "birds")


def test_one_that_has_diverged_is_told_so_and_its_neighbours_are_unharmed(adapted, alone):
    cats = drawn(0)
    pairs = {name: LowRank(pair.a * 1e30, pair.b * 1e30) for name, pair in cats.pairs.items()}
    adapted.load_adapter("diverged", Adapter.of("diverged", pairs, "drawn"))
    names = ("diverged", "cats", None, "diverged")
    asks = [Ask("caption", {}, GREEDY, adapter=name) for name in names]
    jobs = [
        Job((picture, name), picture, (ask,)) for picture in PICTURES for name, ask in zip(names, asks, strict=True)
    ]
    for answer in adapted.answer(jobs):
        picture, name = answer.key
        if name != "diverged":
            assert answer.error is None and answer.results[0].tokens == alone[answer.key].tokens
            continue
        assert isinstance(answer.error, NotFinite) and "this adapter have diverged" in str(answer.error)
        fault = fault_of(error_of(error_fields(answer.error)))  # also from another process
        assert (fault.status, fault.code, fault.message) == (500, "not_finite", str(answer.error))
    with pytest.raises(ValueError, match="logits are not finite"):
        adapted.detect(PICTURES[0], "object", adapter="diverged")
    adapted.forget_adapter("diverged")
    assert caption(adapted, "cats").tokens == alone[PICTURES[0], "cats"].tokens


def test_what_has_no_room_is_refused(adapted, shapes, tmp_path):
    for ask in (lambda: adapted.load_adapter("wide", drawn(3, rank=9)), lambda: caption(adapted, "wide")):
        with pytest.raises(ValueError, match=r"adapter 'wide' has rank 9, and the engine takes up to 8: give .*_rank"):
            ask()
    with pytest.raises(ValueError, match="adapter 'cats' finds no room: the engine has none for adapters"):
        shapes.start()
        shapes.load_adapter("cats", drawn(3))
    with pytest.raises(WeightsError, match="no such file"):
        adapted.load_adapter("lost", tmp_path / "lost")
    with pytest.raises(UnusableAdapter, match="adapter 'broken' cannot be used"):
        caption(adapted, "broken")
    assert adapted.adapters.names() == ("cats", "dogs", "broken", "tune@7", "wide") and shapes.adapters.names() == ()


def test_an_engine_whose_room_is_too_small_does_not_start(shapes):
    model = Moondream(shapes.params, shapes.config, shapes.tokenizer, adapters={"wide": drawn(3, rank=12)})
    model.engine_config = EngineConfig(adapter_slots=1, adapter_rank=8)
    with pytest.raises(EngineStartError, match="adapter 'wide' has rank 12"):
        model.start()
    with pytest.raises(BatchError, match="model 'shapes': adapter 'wide' has rank 12"):  # as by stored programs
        load_model("shapes", adapters={"wide": drawn(3, rank=12)}, engine=model.engine_config)


@pytest.mark.parametrize(
    ("given", "error", "fault"),
    [
        ({"adapters": {"cats": "/nowhere/cats"}}, WeightsError, "/nowhere/cats: no such file"),
        ({"adapters": {"a/b": "/nowhere/cats"}}, ValueError, "has no slash"),
        ({"adapters": {"cats": 3}}, TypeError, "must be a path or an Adapter, not int"),
        ({"adapters": ["cats"]}, TypeError, "adapters must be a mapping from names to paths, not list"),
        ({"adapter_folder": "/nowhere"}, NotADirectoryError, "/nowhere: no folder of adapters"),
    ],
)
def test_what_cannot_be_loaded(given, error, fault):
    with pytest.raises(error, match=fault):
        Moondream.from_pretrained("shapes", **given)


def test_over_http(adapted, alone):
    service = Service(LocalBackend(adapted), ["owner/shapes"])
    service.start()
    body = {"image_url": base64.b64encode(PICTURES[0].read_bytes()).decode(), "settings": GREEDY}
    with served(service) as address:
        for name in NAMES:
            model = "shapes" if name is None else f"shapes/{name}"
            for more in ({"model": model}, {"settings": {**GREEDY, "variant": name}}):
                answer = httpx.post(f"{address}/v1/caption", json={**body, **more}).json()
                assert answer["caption"] == alone[PICTURES[0], name]["caption"]
        for more, status, code in (
            ({"settings": {"adapter": "birds"}}, 404, "model_not_found"),
            ({"model": "shapes/birds"}, 404, "model_not_found"),
            ({"model": "shapes/broken"}, 500, "adapter_unusable"),
            ({"model": "shapes/wide"}, 400, None),
        ):
            answer = httpx.post(f"{address}/v1/caption", json={**body, **more})
            assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
            assert "broken.pt" not in answer.text
        listed = [model["id"] for model in httpx.get(f"{address}/v1/models").json()["data"]]
    assert listed == ["owner/shapes", *(f"owner/shapes/{name}" for name in adapted.adapters.names())]


def test_a_run_tells_them_apart(adapted, alone, tmp_path):
    out, options = tmp_path / "out.jsonl", {"model": adapted, "max_tokens": 12}
    asks = [Ask("caption", adapter=name) for name in (None, "cats")]
    adapted.load_adapter("mine", drawn(11))
    try:
        batch.run(PICTURES, out, [*asks, Ask("caption", adapter="mine")], **options)
        with JournalReader(Path(f"{out}.journal")) as journal:
            assert journal.header.settings["adapters"][1] == f"cats {adapted.adapters.get('cats').digest.hex()}"
            records = {Path(record.path).name: record for record in journal.records()}
        for picture in PICTURES:
            plain, cats, mine = records[picture.name].results
            assert [row["adapter"] for row in (plain, cats, mine)] == ["", "cats", "mine"]
            assert plain["caption"] == alone[picture, None]["caption"]
            assert cats["caption"] == alone[picture, "cats"]["caption"] != mine["caption"]
        adapted.load_adapter("mine", drawn(12))
        with pytest.raises(SettingsDiffer, match="adapters was .*mine"):
            batch.run(PICTURES, out, [*asks, Ask("caption", adapter="mine")], **options)
        with pytest.raises(BatchError, match="no adapter 'birds' here"):
            batch.run(PICTURES, tmp_path / "b.jsonl", Ask("caption", adapter="birds"), **options)
        with pytest.raises(BatchError, match="adapter 'wide' has rank 9"):
            batch.run(PICTURES, tmp_path / "b.jsonl", Ask("caption", adapter="wide"), **options)
    finally:
        adapted.forget_adapter("mine")
