"""Runs of the whole command that are killed, stopped, split and resumed."""

from __future__ import annotations

import dataclasses
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxphoton import Moondream
from jaxphoton.batch.journal.reading import JournalReader
from jaxphoton.engine.memory import whole_pages
from tests.batch.helpers import json_lines

ROOT = Path(__file__).parents[2]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
S = 300


def make_pictures(folder: Path, count: int) -> Path:
    """Pictures of coloured squares, no two alike."""
    generator = np.random.default_rng(count)
    folder.mkdir()
    for number in range(count):
        pixels = np.full((64, 64, 3), 255, np.uint8)
        for _ in range(1 + number % 3):
            top, left = generator.integers(0, 44, 2)
            pixels[top : top + 20, left : left + 20] = generator.integers(0, 256, 3, np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:04d}.png")
    return folder


def command(folder: Path, out: Path, *options: str) -> list[str]:
    wanted = ["--deterministic", "--quiet", "--max-tokens", "30", *options]
    return [sys.executable, "-m", "jaxphoton", "caption", str(folder), "--out", str(out), *wanted]


def run(folder: Path, out: Path, *options: str) -> None:
    done = subprocess.run(command(folder, out, *options), env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def lines_of(journal: Path) -> int:
    return journal.read_bytes().count(b"\n") if journal.exists() else 0


def wait_for(process: subprocess.Popen, journal: Path, lines: int) -> bool:
    """Whether the journal has that many lines before the process ends."""
    deadline = time.monotonic() + S
    while process.poll() is None and time.monotonic() < deadline:
        if lines_of(journal) >= lines:
            return True
        time.sleep(0.01)
    return False


def texts(out: Path) -> dict[str, tuple]:
    """Key -> caption and tokens; every key once."""
    found = json_lines(out)
    assert len(found) == len({line["key"] for line in found})
    return {line["key"]: (line["caption"], line["tokens"], line["finish_reason"]) for line in found}


def killed_and_resumed(folder: Path, out: Path, kills: int, seed: int) -> None:
    """Runs the command until it ends by itself, killed at random moments as often as that is possible."""
    randomness, journal = random.Random(seed), Path(f"{out}.journal")
    images = len(list(folder.iterdir()))
    done = 0
    for kill in range(kills):
        most = max(1, (images - lines_of(journal)) // (kills - kill + 1))
        process = subprocess.Popen(command(folder, out), env=ENVIRONMENT, stderr=subprocess.DEVNULL)
        if wait_for(process, journal, lines_of(journal) + randomness.randrange(most)):
            time.sleep(randomness.random() / 10)
            process.send_signal(signal.SIGKILL)
        process.wait()
        done += process.returncode == -signal.SIGKILL
    assert done == kills
    run(folder, out)


def check_kills(folder: Path, tmp_path: Path, kills: int, whole: dict[str, tuple]) -> None:
    out = tmp_path / "killed.jsonl"
    killed_and_resumed(folder, out, kills, seed=kills)
    assert texts(out) == whole
    with JournalReader(f"{out}.journal") as reader:
        assert sum(1 for _ in reader.records()) == len(whole) and not reader.damage


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return make_pictures(tmp_path_factory.mktemp("kill") / "in", 60)


@pytest.fixture(scope="module")
def whole(folder) -> dict[str, tuple]:
    """What a run that nothing disturbs gives."""
    run(folder, folder.with_name("whole.jsonl"))
    return texts(folder.with_name("whole.jsonl"))


def test_a_killed_run_goes_on_as_if_nothing_had_been(folder, whole, tmp_path):
    check_kills(folder, tmp_path, kills=3, whole=whole)


@pytest.mark.slow
def test_two_thousand_images_killed_twenty_times(tmp_path):
    folder = make_pictures(tmp_path / "in", 2000)
    run(folder, tmp_path / "whole.jsonl")
    check_kills(folder, tmp_path, kills=20, whole=texts(tmp_path / "whole.jsonl"))


def test_one_signal_finishes_what_is_under_way_and_two_stop_at_once(folder, whole, tmp_path):
    out = tmp_path / "out.jsonl"
    journal = Path(f"{out}.journal")
    process = subprocess.Popen(command(folder, out), env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
    assert wait_for(process, journal, 3)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=S)
    assert process.returncode == 130 and "Traceback" not in errors and "the same command goes on" in errors
    finished = texts(out)
    assert 0 < len(finished) < 60 and len(finished) == lines_of(journal) - 1

    process = subprocess.Popen(command(folder, out), env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
    assert wait_for(process, journal, lines_of(journal) + 1)
    process.send_signal(signal.SIGINT)
    assert any("stopping" in line for line in iter(process.stderr.readline, ""))
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=S)
    assert process.returncode == 130 and "Traceback" not in errors
    run(folder, out)
    assert texts(out) == whole and whole.items() >= finished.items()


def test_shards_together_are_the_whole_and_one_by_one_is_the_same(folder, whole, tmp_path):
    parts = [tmp_path / f"part{index}.jsonl" for index in range(3)]
    for index, part in enumerate(parts):
        run(folder, part, "--shard", f"{index}/3")
    together = [item for part in parts for item in texts(part).items()]
    assert len(together) == 60 and dict(together) == whole
    with Moondream.from_pretrained("shapes") as model:
        engine = model.engine_config
        pages = whole_pages(model.config.text.max_context, engine)
        model.engine_config = dataclasses.replace(engine, fixed_shapes=True, kv_pages=pages)
        for key in random.Random(1).sample(sorted(whole), 10):
            result = model.caption(str(folder / key), settings={"temperature": 0, "max_tokens": 30})
            assert whole[key] == (result["caption"], len(result.tokens), result.finish_reason)
