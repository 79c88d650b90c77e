"""Recorded answers of adapters, through the engine: a batch in which one row has one and another has none."""

from __future__ import annotations

import jax.numpy as jnp
import pytest

from jaxphoton.config import EngineConfig
from jaxphoton.engine.compiled import Programs
from jaxphoton.engine.request import Request
from jaxphoton.image.prepare import Prepared
from jaxphoton.requests.settings import Settings
from jaxphoton.verify.bench import plain_prompt
from jaxphoton.verify.golden import open_golden
from jaxphoton.weights.adapters import load_adapter
from jaxphoton.weights.checkpoint import open_checkpoint
from jaxphoton.weights.load import load_model
from tests.engine.tiny import Loop, Schedule, at_once


@pytest.mark.parametrize(("model", "name"), [("md3-tiny", "kestrel")])
def test_recorded_captions_beside_those_without_an_adapter(goldens, model, name):
    golden = next(each for each in open_golden(goldens) if each.name == model)
    family, params = load_model(golden.weights, jnp.float32)
    adapter = load_adapter(goldens / model / "adapters" / name, family)
    recorded = (
        open_checkpoint(goldens / model / "adapters" / "cases.safetensors").read(f"{name}.caption_tokens").tolist()
    )
    case = golden.case("caption")
    image = f"image{case.facts['image']}"
    crops = golden.crops(image, golden.images.read(f"{image}.crops"), family.pictures)
    picture = Prepared(crops, b"recorded", (1, 1))
    settings = Settings(max_tokens=max(len(recorded), len(case["tokens"])), temperature=0.0, seed=0)
    prompt = plain_prompt(case["prompt"])
    engine = EngineConfig(
        max_rows=2,
        step_rows=(2,),
        prefill_rows=(2,),
        prefill_lengths=(len(prompt.ids),),
        vision=((2, 2 * len(crops.pixels)),),
        host_masks=False,
        adapter_slots=1,
        adapter_rank=family.network.adapter_rank(adapter),
    )
    asked = [Request(prompt, "text", settings, picture, adapter=each) for each in (adapter, None)]
    sequences, _ = Loop(Programs(params, family, engine)).run(Schedule(at_once(*asked), rows=2))
    adapted, plain = ([token.id for token in sequence.tokens] for sequence in sequences)
    assert adapted[: len(recorded)] == recorded
    assert plain[: len(case["tokens"])] == case["tokens"].tolist()
    assert adapted != plain
