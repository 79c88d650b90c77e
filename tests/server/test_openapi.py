"""`/openapi.json` is true: whatever is asked by it is answered as it says. `JAXPHOTON_CASES`: how many are asked."""

from __future__ import annotations

import os
from collections import Counter
from contextlib import suppress

import httpx2 as httpx
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import checks
from schemathesis.generation.modes import GenerationMode

from jaxphoton.server.app import all_operations
from jaxphoton.server.options import ServerOptions
from tests.server.serving import FakeBackend
from tests.server.test_streams import ready

CASES = int(os.environ.get("JAXPHOTON_CASES", "200"))
UNCHECKED = (HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large)
CHECKS = (
    checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
)


def test_every_route_is_described(address, stored):
    told = httpx.get(f"{address}/openapi.json").json()
    operations = all_operations(ready(FakeBackend()), ServerOptions(), stored)
    assert {path for path in told["paths"]} == {
        each.path.replace(":path", "") for each in operations if not each.described.hidden
    }
    for path, methods in told["paths"].items():
        for method, each in methods.items():
            assert each["summary"] and each["responses"], (method, path)
            assert method in ("get", "delete") or "requestBody" in each or path.endswith("cancel"), path


def test_what_is_not_described_is_not_json():
    hidden = [each.path for each in all_operations(ready(FakeBackend()), ServerOptions()) if each.described.hidden]
    assert hidden == ["/", "/page/{name}"]


def strategies(schema) -> list:
    return [
        each.ok().as_strategy(generation_mode=mode)
        for each in schema.get_all_operations()
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
    ]


def test_cases_made_from_it_are_answered_as_it_says(address, picture):
    schema = schemathesis.openapi.from_url(f"{address}/openapi.json")
    statuses: Counter = Counter()

    @settings(max_examples=CASES, database=None, suppress_health_check=UNCHECKED, phases=[Phase.generate])
    @given(st.one_of(strategies(schema)), st.sampled_from([True, True, False]))
    def ask(case, with_picture):
        prepare(case, picture if with_picture else None)
        answer = case.call(base_url=address, timeout=60)
        statuses[answer.status_code] += 1
        case.validate_response(answer, checks=CHECKS)

    ask()
    print(dict(statuses))
    assert statuses[200] and statuses[400] and sum(statuses.values()) >= CASES


def prepare(case, picture: str | None) -> None:
    """Puts a real picture where one may be, so that not all fail for want of one. A deadline is not left to chance:
    its 504 would be taken for a fault of the server."""
    for name in [name for name in case.headers or () if name.lower() == "x-request-timeout"]:
        with suppress(ValueError):
            if float(case.headers[name]) >= 0:
                case.headers[name] = "60"
    if isinstance(case.body, dict):
        if isinstance(case.body.get("timeout"), (int, float)) and case.body["timeout"] >= 0:
            case.body["timeout"] = 60
        if picture is not None and "image_url" in case.body:
            case.body["image_url"] = picture
            case.body.pop("model", None)
