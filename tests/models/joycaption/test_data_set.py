"""A folder captioned as docs/batch.md shows it: types, options, a trigger word, and texts that repeat themselves asked
for again, by a JoyCaption of small size."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxphoton import Model
from jaxphoton.batch.quality import repeats
from jaxphoton.batch.retries import seed_of_try
from jaxphoton.cli.main import main

pytestmark = pytest.mark.slow  # two engines are compiled

DOCS = Path(__file__).parents[3] / "docs" / "batch.md"
TRIGGER = "sks woman, "


@pytest.fixture(scope="module")
def roomy(folder, tmp_path_factory) -> Path:
    """The recorded model with room for more than its 512 positions: its tokens are of one or two letters."""
    copy = tmp_path_factory.mktemp("models") / "joycaption"
    copy.mkdir()
    for name in ("model.safetensors", "tokenizer.json", "generation_config.json"):
        (copy / name).symlink_to(folder / name)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["text_config"]["max_position_embeddings"] = 2048
    (copy / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return copy


@pytest.fixture(scope="module")
def command(roomy) -> list[str]:
    """That of the document, with the recorded model for the published one."""
    section = DOCS.read_text(encoding="utf-8").split("## JoyCaption: a LoRA data set\n\n", 1)[1]
    words = shlex.split(section.splitlines()[0])
    assert words[:3] == ["jaxphoton", "caption", "photos/"]
    words[words.index("--model") + 1] = str(roomy)
    return words[1:]


def paint(path: Path, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 9, 3), np.uint8)
    Image.fromarray(pixels).resize((90, 60)).save(path)


def results(journal: Path) -> dict[str, dict]:
    lines = [json.loads(line) for line in journal.read_text(encoding="utf-8").splitlines()]
    return {line["key"]: line["results"][0] for line in lines if "results" in line}


@pytest.fixture
def photos(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(4):
        paint(folder / f"{number}.png", number)
    (folder / "3.txt").write_text("by hand", encoding="utf-8")
    return folder


def test_a_data_set_for_a_lora(command, roomy, photos, capsys):
    assert main(command) == 0, capsys.readouterr().err
    assert "kept 1 text" in capsys.readouterr().err
    journal = photos.parent / "photos.journal"
    found = results(journal)
    assert sorted(found) == ["0.png", "1.png", "2.png"]
    with Model.from_pretrained(str(roomy)) as model:
        for key, result in found.items():
            text = (photos / key).with_suffix(".txt").read_text(encoding="utf-8").rstrip("\n")
            assert text == result["caption"] and text.startswith(TRIGGER)
            assert (result["length"], result["type"]) == ("normal", "straightforward")
            asked = {"type": "straightforward", "extra": ["no-meta", "no-artist"], "name": "Ann"}
            # Of the last try that was made, unless that one repeats itself too.
            number = 0 if repeats(text.removeprefix(TRIGGER)) else result.get("retries", 0)
            settings = {"temperature": 0.6, "seed": seed_of_try(1, number)}
            said = model.caption(photos / key, settings=settings, **asked)
            assert text == TRIGGER + said["caption"] and said.metrics.input_tokens > len(TRIGGER)
    assert (photos / "3.txt").read_text(encoding="utf-8") == "by hand"
    assert "straightforward" in (photos.parent / "photos.html").read_text(encoding="utf-8")

    paint(photos / "4.png", 4)
    assert main(command) == 0 and results(journal).keys() - found.keys() == {"4.png"}
    assert (photos / "4.txt").read_text(encoding="utf-8").startswith(TRIGGER)
    assert main([*command, "--caption-type", "danbooru"]) == 1
    assert "(type straightforward, extra no-meta no-artist, name 'Ann')" in capsys.readouterr().err


def test_texts_that_repeat_themselves_are_asked_for_again(command, photos, capsys):
    """Greedy texts of drawn weights do."""
    assert main([*command, "--temperature", "0"]) == 0
    found = results(photos.parent / "photos.journal")
    again = {key: result for key, result in found.items() if result.get("retries")}
    assert again and f"{len(again)} asked again" in capsys.readouterr().err
    for key, result in found.items():
        text = (photos / key).with_suffix(".txt").read_text(encoding="utf-8").removeprefix(TRIGGER)
        assert not repeats(text) or result["retries"] == 2, "asked again as often as it may be"
