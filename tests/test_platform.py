"""Choices that depend on the machine."""

from __future__ import annotations

import gc
import subprocess
import sys
from pathlib import Path

import pytest

from jaxphoton import platform

# A process of its own: jax keeps the first folder it is given.
FOLDER = """
import collections, sys
import jax
from jaxphoton import platform

sys.version_info = collections.namedtuple("V", "major minor micro")(*map(int, sys.argv[1].split(".")))
jax.__version__ = sys.argv[2]
platform.use_compilation_cache()
print(jax.config.jax_compilation_cache_dir)
"""


def cache_folder(tmp_path: Path, python: str, jax: str) -> Path:
    environment = {"JAXPHOTON_CACHE": str(tmp_path), "JAX_PLATFORMS": "cpu", "PYTHONPATH": ":".join(sys.path)}
    command = [sys.executable, "-c", FOLDER, python, jax]
    return Path(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout.strip())


@pytest.mark.smoke
def test_compiled_programs_are_kept_apart_by_python_and_jax(tmp_path):
    """jax compresses them differently from Python 3.14 on, under the same key."""
    versions = [("3.13.1", "0.12.0"), ("3.14.0", "0.12.0"), ("3.14.0", "0.11.2")]
    folders = {cache_folder(tmp_path, *version) for version in versions}
    assert len(folders) == len(versions)
    assert all(folder.is_relative_to(tmp_path) for folder in folders)
    assert cache_folder(tmp_path, "3.14.2", "0.12.0") in folders


def test_a_command_leaves_what_its_host_has_frozen():
    gc.freeze()
    with platform.calmed_interpreter():
        pass
    assert gc.get_freeze_count() > 10_000


def test_a_command_freezes_what_there_is_until_it_ends():
    gc.unfreeze()
    try:
        with platform.calmed_interpreter():
            assert gc.get_freeze_count() > 10_000
        assert gc.get_freeze_count() <= platform.FROZEN
    finally:
        gc.freeze()  # as tests/conftest.py has it
