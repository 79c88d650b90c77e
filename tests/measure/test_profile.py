"""Profiles: the flag for CUDA graphs, the marks around launches, and nothing left behind."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from jaxphoton.measure import profile
from jaxphoton.measure.profile import KEEP_GRAPHS, AnnotatedDevice, keep_graphs, profiling
from tests.engine.harness import Harness, request


@pytest.mark.smoke
def test_the_xla_of_this_jaxlib_knows_the_flag():
    """XLA would end the process."""
    done = subprocess.run(
        [sys.executable, "-c", "import jax; jax.devices()"],
        env=os.environ | {"XLA_FLAGS": KEEP_GRAPHS},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("plugin", "given", "expected"),
    [
        ("jax_cuda12_plugin", "", KEEP_GRAPHS),
        ("jax_cuda13_plugin", "--xla_a=1", f"--xla_a=1 {KEEP_GRAPHS}"),
        ("jax_cuda12_plugin", KEEP_GRAPHS.replace("true", "false"), KEEP_GRAPHS.replace("true", "false")),
        (None, "--xla_a=1", "--xla_a=1"),
    ],
)
def test_the_flag_is_set_for_cuda_alone_and_never_over_the_users(monkeypatch, plugin, given, expected):
    monkeypatch.setenv("XLA_FLAGS", given)
    monkeypatch.setattr(profile, "find_spec", lambda name: name == plugin)
    keep_graphs()
    assert os.environ["XLA_FLAGS"] == expected


@pytest.mark.parametrize("depth", [1, 2])
def test_a_marked_device_gives_the_same_answers(depth):
    harness = Harness(depth)
    harness.pipeline.device = AnnotatedDevice(harness.device)
    sequences = [harness.submit(request(seed=seed)) for seed in range(4)]
    harness.run()
    for sequence in sequences:
        harness.check_answer(sequence)


def test_a_profile_names_the_steps(shapes, tmp_path):
    device = shapes.engine.pipeline.device
    with profiling(shapes, tmp_path):
        shapes.query(question="What is this?", settings={"max_tokens": 4})
    assert shapes.engine.pipeline.device is device
    (written,) = tmp_path.rglob("*.xplane.pb")
    assert b"step_num" in written.read_bytes()
