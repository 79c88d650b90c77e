"""Which GPUs a run may use, found out without opening any: a process that imports jax to count them holds them."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

from jaxphoton.batch.errors import BatchError, OptionError
from jaxphoton.processes.child import reap

# A broken driver can keep nvidia-smi waiting.
_ASK_S = 60.0
_END_S = 1.0
_ENTRY = re.compile(r"\d+|GPU-.+|MIG-.+")


def replica_gpus(
    wanted: int | None, environment: Mapping[str, str] = os.environ, each: int = 1
) -> tuple[str | None, ...]:
    """The GPUs of each engine process, as CUDA_VISIBLE_DEVICES names them; None where there is no GPU to give.

    Args:
      wanted: processes; None for as many as the visible GPUs are enough for, without GPUs one.
      each: GPUs of a process.

    Raises:
      BatchError: more are wanted than there are GPUs, or all of them cannot be shared out.
    """
    gpus = visible_gpus(environment)
    if not gpus:
        return (None,) * (wanted or 1)
    if len(gpus) < each:
        raise BatchError(f"a mesh of {each} needs {each} GPUs, visible here: {', '.join(gpus)}")
    if wanted is None and len(gpus) % each:
        raise BatchError(
            f"{len(gpus)} visible GPUs cannot be shared out by {each} a replica, as the mesh needs them; say how many "
            f"replicas (at most {len(gpus) // each}), or name fewer GPUs in CUDA_VISIBLE_DEVICES"
        )
    wanted = len(gpus) // each if wanted is None else wanted
    if wanted * each > len(gpus):
        mesh = f" (each a mesh of {each})" if each > 1 else ""
        raise BatchError(f"{wanted} replicas{mesh} need {wanted * each} GPUs, visible here: {', '.join(gpus)}")
    return tuple(",".join(gpus[start : start + each]) for start in range(0, wanted * each, each))


def replica_count(wanted: int | None, copies: int, alone: int = 1) -> int | None:
    """How many engine processes are meant.

    Args:
      wanted: as it was said; None for as many as the GPUs are enough for.
      copies: what the mesh says ("data").
      alone: what `wanted` is where nobody has said anything.

    Raises:
      BatchError: both say something, and not the same.
    """
    if copies == 1 or wanted == copies:
        return wanted
    if wanted != alone:
        raise OptionError("{mesh} has data={copies}, which are replicas: {replicas} must be as many", copies=copies)
    return copies


def visible_gpus(environment: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """CUDA's names of the GPUs that a program started now would see."""
    platforms = environment.get("JAX_PLATFORMS", "").split(",")
    if platforms != [""] and not {"cuda", "gpu"} & set(platforms):
        return ()
    chosen = environment.get("CUDA_VISIBLE_DEVICES")
    if chosen is None:
        return _installed_gpus()
    entries = []
    for entry in chosen.split(","):
        if not _ENTRY.fullmatch(entry.strip()):  # CUDA too stops at the first that is no GPU, such as -1
            break
        entries.append(entry.strip())
    return tuple(entries)


def _installed_gpus() -> tuple[str, ...]:
    if (text := _nvidia_smi()) is not None:
        return _listed(text)
    try:
        return tuple(str(number) for number, _ in enumerate(Path("/proc/driver/nvidia/gpus").iterdir()))
    except OSError:
        return ()


def _nvidia_smi() -> str | None:
    """What `nvidia-smi -L` prints; None where it fails, or where a driver holds it, even against being killed."""
    try:
        process = subprocess.Popen(
            ["nvidia-smi", "-L"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, errors="replace"
        )
    except OSError:
        return None
    try:
        text, _ = process.communicate(timeout=_ASK_S)
    except subprocess.TimeoutExpired:
        process.kill()
        reap(process, _END_S)
        assert process.stdout
        process.stdout.close()
        return None
    return text if process.returncode == 0 else None


def _listed(text: str) -> tuple[str, ...]:
    """From the lines of `nvidia-smi -L`; a GPU that is split counts with its parts, which only have long names."""
    gpus: list[list[str]] = []
    for line in text.splitlines():
        if line.startswith("GPU "):
            gpus.append([])
        elif gpus and (part := re.search(r"UUID: (MIG-[^)]+)", line)):
            gpus[-1].append(part[1])
    return tuple(name for number, parts in enumerate(gpus) for name in parts or [str(number)])
