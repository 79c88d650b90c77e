"""Forms of a step that were measured on a kind of GPU."""

from __future__ import annotations

import json
from importlib import resources

import pytest

from jaxphoton.config import ConfigError, gpus
from jaxphoton.config.gpus import NOT_MEASURED, file_name, read_forms, step_form

FILES = sorted(
    (file for file in resources.files("jaxphoton").joinpath("configs", "gpus").iterdir()), key=lambda file: file.name
)


@pytest.fixture
def measured(tmp_path, monkeypatch):
    """Writes what was measured on one kind of GPU, instead of all files of the package."""
    monkeypatch.setattr(gpus.resources, "files", lambda package: tmp_path)
    folder = tmp_path / "configs" / "gpus"
    folder.mkdir(parents=True)

    def write(kind: str, forms) -> None:
        text = json.dumps({"device_kind": kind, "step_forms": forms})
        (folder / f"{file_name(kind)}.json").write_text(text)

    return write


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_the_files_of_the_package_are_found_and_hold_forms(file):
    data = json.loads(file.read_text("utf-8"))
    kind, forms = data["device_kind"], read_forms(data)
    assert file.name == f"{file_name(kind)}.json"
    assert forms or data["step_forms"] == NOT_MEASURED
    assert all(step_form(kind, rows) == form for rows, form in forms.items())
    assert step_form(kind, 10**6) == "xla"


def test_the_next_larger_number_of_rows_counts(measured):
    measured("NVIDIA H200", {"8": "norm+output", "1": "fused"})
    forms = [step_form("NVIDIA H200", rows) for rows in (1, 2, 8, 9)]
    assert forms == ["fused", "norm+output", "norm+output", "xla"]


def test_what_was_not_measured_is_left_to_xla(measured):
    measured("NVIDIA H200", NOT_MEASURED)
    assert step_form("NVIDIA H200", 1) == step_form("NVIDIA B200", 1) == step_form("cpu", 8) == "xla"


def test_a_form_that_there_is_not_is_named(measured):
    measured("NVIDIA H200", {"8": "output+norm"})
    with pytest.raises(ConfigError, match=r"NVIDIA H200: no step_form 'output\+norm'"):
        step_form("NVIDIA H200", 8)


def test_names_of_files():
    assert file_name("NVIDIA A100-SXM4-80GB") == "nvidia-a100-sxm4-80gb"
    assert file_name("../x") == "x"
