"""Settings of the whole suite: a CPU, strict dtypes and ranks, warnings as errors (see pyproject.toml)."""

from __future__ import annotations

import gc
import os
from pathlib import Path

# Before jax is imported: it picks its platform once.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Nearly all the time of the suite is XLA's, for programs that run on small arrays: LLVM leaves out its costly passes,
# what XLA itself does with a program stays. Processes that tests start inherit it.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "true")
# For meshes; all else runs on the first. No test has more than 8, but jax makes a thread for each: devices that wait
# for each other in several sums at once need more threads than devices, else they wait until XLA ends the process.
# Of processes that tests start too: what was compiled beside another number of devices is compiled anew.
os.environ.setdefault("JAX_NUM_CPU_DEVICES", "32")
# Compiled programs stay beside the checkout from run to run.
os.environ.setdefault("JAXPHOTON_CACHE", str(Path(__file__).parents[1] / ".cache"))

import jax
import pytest
from hypothesis import HealthCheck, settings

from jaxphoton import platform

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
# From the first test on, and not once a model was loaded: a worker finds what the others have compiled. Entries of
# small programs cost more than they save.
platform.use_compilation_cache()
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)

# Tracing makes many small objects and hardly any garbage: at Python's own thresholds, looking for it takes a fortieth
# of the time.
gc.set_threshold(20_000, 20, 50)

# No deadline and no too_slow check: a first call compiles, and CI machines are shared.
settings.register_profile("default", deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("default"), derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "default")

MEMORY = 3 << 30  # bytes of a process
GOLDENS = Path(os.environ.get("JAXPHOTON_GOLDENS", Path(__file__).parents[2] / "shared" / "goldens"))
NO_GOLDENS = f"no golden files at {GOLDENS} (set JAXPHOTON_GOLDENS): NOT compared with the PyTorch originals"


def pytest_addoption(parser) -> None:
    # Of tests/engine/test_oracle_equality.py; here because pytest takes options from the outermost conftest alone.
    parser.addoption("--schedules", type=int, default=300, help="random schedules of the engine to run")
    parser.addoption("--adapter-schedules", type=int, default=40, help="those with adapters, of each of two models")
    parser.addoption("--mesh-schedules", type=int, default=4, help="those on each mesh")
    parser.addoption("--first-schedule", type=int, default=0, help="the first of them, to go on from where one ended")
    parser.addoption("--interpreted", type=int, default=12, help="the first of them, on interpreted kernels")


def pytest_report_header() -> str:
    return f"goldens: {GOLDENS}" if GOLDENS.is_dir() else f"WARNING: {NO_GOLDENS}"


def pytest_terminal_summary(terminalreporter) -> None:
    if not GOLDENS.is_dir():
        terminalreporter.write_line(f"WARNING: {NO_GOLDENS}", yellow=True)


@pytest.fixture(scope="module", autouse=True)
def few_gigabytes():
    """A process that has compiled much lets go of it: several run beside each other. And what is there before a file
    is left out of collections of garbage, of which some tests and commands ask for one each: they would take 0.4 s and
    more, most of it for what jax and the tests' modules hold to the end."""
    gc.collect()
    gc.freeze()
    yield
    if int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") > MEMORY:
        gc.unfreeze()
        jax.clear_caches()


@pytest.fixture(scope="session")
def goldens() -> Path:
    """The folder of outputs recorded from the PyTorch originals; tests that need it are skipped without it."""
    if not GOLDENS.is_dir():
        pytest.skip(NO_GOLDENS)
    return GOLDENS


@pytest.fixture(scope="session")
def shapes():
    """The shipped model on a small engine; compiled once for the whole suite."""
    from jaxphoton import Moondream
    from jaxphoton.config import EngineConfig

    engine = EngineConfig(max_rows=8, step_rows=(8,), prefill_rows=(4,), prefill_lengths=(32,), vision=((4, 20),))
    with Moondream.from_pretrained("shapes", engine=engine) as model:
        yield model


@pytest.fixture(scope="session")
def joycaption(goldens):
    """The recorded JoyCaption on a small engine, for prompts with the model's own system text; compiled once for the
    whole suite."""
    from jaxphoton import Model
    from jaxphoton.config import EngineConfig

    engine = EngineConfig(
        max_rows=2, step_rows=(2,), prefill_rows=(1,), prefill_lengths=(32,), vision=((1, 1),), host_masks=False
    )
    with Model.from_pretrained(goldens / "joycaption-tiny", engine=engine) as model:
        model.family.prefix_lengths = model.family.prefix_lengths[:1]
        yield model


@pytest.fixture(scope="session")
def adapted(tmp_path_factory):
    """The shipped model with the adapters "cats" and "dogs" and a folder that has "tune@7", "wide" and "broken", on
    an engine with room for two; compiled once for the whole suite. Whoever loads others takes them away."""
    from jaxphoton import Moondream
    from jaxphoton.config import EngineConfig
    from tests.adapters import saved

    root = tmp_path_factory.mktemp("adapters")
    given = {name: saved(root / f"{name}.safetensors", seed) for seed, name in enumerate(("cats", "dogs"))}
    saved(root / "folder" / "tune" / "7.safetensors", 7)
    saved(root / "folder" / "wide.safetensors", 3, rank=9)
    (root / "folder" / "broken.pt").write_bytes(b"no file of torch")
    engine = EngineConfig(
        max_rows=4,
        step_rows=(4,),
        prefill_rows=(1,),
        prefill_lengths=(32,),
        vision=((1, 5),),
        host_masks=False,
        adapter_slots=2,
        adapter_rank=8,
    )
    with Moondream.from_pretrained("shapes", engine=engine, adapters=given, adapter_folder=root / "folder") as model:
        yield model
