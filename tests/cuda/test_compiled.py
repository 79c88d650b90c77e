"""The device programs and kernels compile for GPUs that are not here, and become what they should.

`make cuda-check` compiles more: every program at full depth and every row bucket for every chip.
"""

from __future__ import annotations

import pytest

from scripts.cuda import jobs
from scripts.cuda.checks import faults
from scripts.cuda.evidence import Evidence
from scripts.cuda.jobs import Job

BAD = Job("h200", "tests.cuda.bad:steps")


def _label(job: Job) -> str:
    return f"{job.chip} {job}"


@pytest.fixture(scope="session")
def compiled(request, plugin) -> dict[Job, list[Evidence]]:
    """Evidence of the jobs of all tests that were chosen."""
    parameters = [item.callspec.params for item in request.session.items if hasattr(item, "callspec")]
    chosen = [given["job"] for given in parameters if "job" in given]
    return dict(jobs.run([job for job in (*jobs.CI, BAD) if job in chosen], plugin))


# One step with its kernels on the second Python's jax as well; lowering Pallas-Triton is what differs.
SMOKE = jobs.program("l40s", "step", rows=8, layers=jobs.CUT)


@pytest.mark.parametrize(
    "job", [pytest.param(job, marks=pytest.mark.smoke if job == SMOKE else ()) for job in jobs.CI], ids=_label
)
def test_a_program_is_what_it_should_be(compiled, job):
    assert compiled[job]
    wrong = [f"{found.program} on {found.chip}: {fault}" for found in compiled[job] for fault in faults(found)]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("job", [BAD], ids=_label)
def test_bad_steps_are_refused_with_the_culprit_named(compiled, job):
    found = {evidence.program: "\n".join(faults(evidence)) for evidence in compiled[job]}
    scanned = found["step of a scan"]
    assert "not one command buffer" in scanned and "kWhile" in scanned
    undonated = found["step that donates nothing"]
    assert "as large as a layer of the key/value pool" in undonated and "bf16[4,512,16,32,64]" in undonated
    assert "only 0 are updated in place" in undonated
    patched = found["step that changes a weight"]
    assert "copies of weights" in patched and "bf16[2048,2048]" in patched and "key/value pool" not in patched
    assert "does not compile" in found["step with a wrong shape"]
