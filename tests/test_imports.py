"""Imports run one way, and the host packages stay free of jax."""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.smoke

ROOT = Path(__file__).parents[1]
HEAVY = ("jax", "jaxlib", "flax", "transformers", "orbax")

# From the top down; a part imports itself and lower layers. Parts that do not exist yet are simply absent.
LAYERS = (
    {"cli", "integrations"},
    {"server"},
    {"batch", "measure", "verify"},
    {"bodies"},
    {"aio"},
    {"api"},
    {"loading"},
    {"requests"},
    {"distributed", "engine", "oracle", "functional", "weights"},
    {"models", "platform"},
    {"image", "requests (data)"},
    {"constraints", "layers"},
    {"prompt", "kernels_pallas"},
    {"config"},
    {"files"},
    {"messages", "processes"},
)
# What is asked and what comes back, as data: everybody below the dispatcher speaks it too.
DATA = {
    f"jaxphoton.requests.{name}" for name in ("ask", "conversation", "errors", "settings", "skill", "skills", "tokens")
}
# Names that were shown in documents, and now lie elsewhere.
OLD_NAMES = {"jaxphoton/image/pooling.py", "jaxphoton/prompt/templates.py"}
LEVEL = {part: depth for depth, layer in enumerate(reversed(LAYERS)) for part in layer}
# Imports inside one layer: (importer, imported).
SIDEWAYS = {
    ("oracle", "functional"),
    ("batch", "measure"),
}

# What importing every module of the first must not bring in.
FORBIDDEN = {
    "jaxphoton": (*HEAVY, "numpy", "PIL"),
    "jaxphoton.config": (*HEAVY, "numpy", "PIL"),
    "jaxphoton.files": (*HEAVY, "numpy", "PIL"),
    "jaxphoton.image": HEAVY,
    "jaxphoton.processes": (*HEAVY, "numpy", "PIL"),
    "jaxphoton.prompt": HEAVY,
    "jaxphoton.models.moondream.skills": HEAVY,
    "jaxphoton.models.moondream.config": (*HEAVY, "numpy", "PIL"),
    "jaxphoton.models.joycaption.reading": (*HEAVY, "numpy", "PIL"),
    "jaxphoton.models.joycaption.family": HEAVY,
    "jaxphoton.models.smolvlm.reading": (*HEAVY, "numpy", "PIL"),
    "jaxphoton.models.smolvlm.family": HEAVY,
    "jaxphoton.models.moondream.prompts": HEAVY,
    "jaxphoton.models.moondream.family": HEAVY,
    "jaxphoton.models.protocol": HEAVY,
    "jaxphoton.models.registry": HEAVY,
    "jaxphoton.constraints": HEAVY,
    "jaxphoton.requests.errors": (*HEAVY, "numpy", "PIL"),
    "jaxphoton.engine.request": HEAVY,
    "jaxphoton.engine.pages": HEAVY,
    "jaxphoton.engine.scheduler": HEAVY,
    "jaxphoton.engine.submissions": HEAVY,
    "jaxphoton.engine.pipeline": HEAVY,
    "jaxphoton.engine.metrics": HEAVY,
    "jaxphoton.engine.buckets": HEAVY,
    "jaxphoton.engine.memory": HEAVY,
    "jaxphoton.measure.cost_model": HEAVY,
    "jaxphoton.measure.chips": HEAVY,
    "jaxphoton.measure.shapes": HEAVY,
    "jaxphoton.batch.sources": (*HEAVY, "numpy", "pyarrow", "fsspec"),
    "jaxphoton.batch.exports": (*HEAVY, "numpy", "pyarrow", "fsspec"),
    "jaxphoton.batch": HEAVY,
    "jaxphoton.integrations": (*HEAVY, "ray"),
    "jaxphoton.requests.ask": (*HEAVY, "numpy", "PIL"),
    "jaxphoton.requests.conversation": (*HEAVY, "numpy", "PIL"),
    "jaxphoton.requests.settings": (*HEAVY, "numpy", "PIL"),
    "jaxphoton.requests.skills": (*HEAVY, "numpy", "PIL"),
    "jaxphoton.requests.answer": HEAVY,
    "jaxphoton.requests.dispatcher": HEAVY,
    "jaxphoton.requests.preparing": HEAVY,
    "jaxphoton.requests.submitting": HEAVY,
    "jaxphoton.bodies": HEAVY,
    "jaxphoton.batch.journal": (*HEAVY, "numpy", "pyarrow", "fsspec"),
    "jaxphoton.engine.control": HEAVY,
    "jaxphoton.cli.main": (*HEAVY, "numpy", "PIL"),
    "jaxphoton.models": tuple(f"jaxphoton.{p}" for p in ("engine", "oracle", "api", "cli", "weights")),
    "kernels_pallas": ("jaxphoton", "flax", "transformers", "orbax"),
}

PROBE = """
import importlib, pkgutil, sys
name = sys.argv[1]
package = importlib.import_module(name)
if name != "jaxphoton":
    for module in pkgutil.walk_packages(getattr(package, "__path__", []), name + "."):
        if not module.name.endswith("__main__") and ".checks" not in module.name:
            importlib.import_module(module.name)
print("\\n".join(sys.modules))
"""


def exists(module: str) -> bool:
    path = ROOT / module.replace(".", "/")
    return (path / "__init__.py").is_file() or path.with_suffix(".py").is_file()


@pytest.mark.parametrize("module", [module for module in FORBIDDEN if exists(module)])
def test_importing_stays_clean(module):
    done = subprocess.run([sys.executable, "-c", PROBE, module], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    loaded = done.stdout.split()
    found = [name for name in loaded if any(name == f or name.startswith(f + ".") for f in FORBIDDEN[module])]
    assert not found, f"importing {module} loads {found[:5]}"


def source_files() -> list[Path]:
    return sorted(path for top in ("jaxphoton", "kernels_pallas") for path in (ROOT / top).rglob("*.py"))


def part_of(module: str) -> str | None:
    """`jaxphoton.image.crops` -> `image`; None for other people's modules and for `jaxphoton` alone."""
    names = module.split(".")
    if names[0] == "kernels_pallas":
        return names[0]
    if names[:2] == ["jaxphoton", "models"] and names[3:4] == ["checks"]:
        return "verify"  # a family's checks lie in its folder and stand on the oracle
    if ".".join(names[:3]) in DATA:
        return "requests (data)"
    return names[1] if names[0] == "jaxphoton" and len(names) > 1 else None


def imported_parts(path: Path) -> list[tuple[int, str]]:
    """Every import of a file, those inside functions and for types only included."""
    package = ".".join(path.relative_to(ROOT).parent.parts)
    modules: list[tuple[int, str]] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            modules += [(node.lineno, f"{base}.{alias.name}") for alias in node.names]
    parts = []
    for line, module in modules:
        if module.startswith("jaxphoton.__"):
            continue
        part = part_of(module)
        # A public name taken from the package itself (`from jaxphoton import Moondream`) is the api.
        parts += [(line, part if part in LEVEL or exists(f"jaxphoton.{part}") else "api")] if part else []
    return parts


def test_every_part_has_a_layer():
    parts = {part_of(".".join(p.relative_to(ROOT).with_suffix("").parts)) for p in source_files()}
    assert parts - {"__init__", "__main__"} <= set(LEVEL), "new parts of the package must be placed in LAYERS"


def test_imports_run_one_way():
    wrong = []
    for path in source_files():
        importer = part_of(".".join(path.relative_to(ROOT).with_suffix("").parts))
        if importer in ("__init__", "__main__") or path.relative_to(ROOT).as_posix() in OLD_NAMES:
            continue
        assert importer is not None, path
        for line, imported in imported_parts(path):
            allowed = imported == importer or (importer, imported) in SIDEWAYS or LEVEL[imported] < LEVEL[importer]
            if not allowed or (importer == "kernels_pallas" and imported != importer):
                wrong.append(f"{path.relative_to(ROOT)}:{line}: {importer} imports {imported}")
    assert not wrong, "\n".join(wrong)


def test_the_picture_of_the_layers_is_true():
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    picture = page.split("```text\n", 1)[1].split("```", 1)[0]
    drawn = [{part.strip() for part in line.split("|")} for line in picture.splitlines()]
    assert drawn == list(LAYERS)


def test_importing_prints_nothing():
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", "import jaxphoton; jaxphoton.Moondream; jaxphoton.AsyncMoondream"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
