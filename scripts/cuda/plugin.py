"""jax's CUDA plugin in a folder of its own: on the path of the processes that compile for CUDA, and of no other.

jax looks for plugins on the whole path, so installed into the environment it would be tried by every process. The
plugin compiles with NVIDIA's ptxas and libdevice and brings neither: their wheel lies beside it, where jax looks
first, so that it does not matter which CUDA toolkit a machine has, or whether it has one.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).parents[2]
WHEELS = ("jax-cuda12-plugin", "jax-cuda12-pjrt")
NVCC = "12.9.86"


class NoPlugin(RuntimeError):
    """The wheels cannot be had here; the message ends with what pip said."""


def install() -> Path:
    """The folder with the wheels that belong to this jax; the first call fetches them (about 220 MB).

    Raises:
      NoPlugin: there is no network, or no such wheel for this jax and Python.
    """
    version = metadata.version("jax")
    home = ROOT / ".cuda"
    place = home / f"jax{version}-nvcc{NVCC}-py{sys.version_info[0]}{sys.version_info[1]}"
    home.mkdir(exist_ok=True)
    with open(home / "lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not place.is_dir():
            _fetch([*(f"{wheel}=={version}" for wheel in WHEELS), f"nvidia-cuda-nvcc-cu12=={NVCC}"], place)
    return place


def ptxas() -> Path:
    """NVIDIA's assembler, from the wheel beside the plugin."""
    return install() / "nvidia" / "cuda_nvcc" / "bin" / "ptxas"


def environment(plugin: Path, dump: Path) -> dict[str, str]:
    """Of a process that compiles for CUDA: `plugin` on its path, XLA's dumps in `dump`, nothing cached."""
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(plugin)]),
        "JAX_PLATFORMS": "cpu",
        "JAX_SKIP_CUDA_CONSTRAINTS_CHECK": "1",
        # What is looked at is what users run; tests set it otherwise.
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "false",
        # A program from the cache leaves no dump.
        "JAX_ENABLE_COMPILATION_CACHE": "false",
        "XLA_FLAGS": f"--xla_dump_to={dump} --xla_dump_hlo_as_text --xla_dump_hlo_module_re=jit_checked",
        # XLA tells at length that it finds no GPU.
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }


def _fetch(wheels: list[str], place: Path) -> None:
    """Installs beside `place` and renames, so that a broken download leaves nothing that looks finished."""
    scratch = Path(tempfile.mkdtemp(dir=place.parent, prefix="fetching-"))
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    try:
        done = subprocess.run([*command, "--target", str(scratch), *wheels], capture_output=True, text=True)
        if done.returncode:
            raise NoPlugin(f"pip cannot install {' and '.join(wheels)}: {done.stderr.strip()[-500:]}")
        scratch.chmod(0o755)
        scratch.rename(place)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
