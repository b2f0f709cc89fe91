"""Whatever the OpenAPI document allows, and some of what it does not, is answered without an error of the server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance

from m3rag.server import create_app
from m3rag.settings import ServeSettings

from .serving import filled, serving

MAX_EXAMPLES = 25
"""Of each kind for each of some twenty operations."""


@pytest.fixture(scope="module")
def schema(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    app = create_app(filled(), ServeSettings(data=tmp_path_factory.mktemp("data"), rate_limit=0))
    with serving(app) as server:
        yield schemathesis.openapi.from_url(f"{server.url}/openapi.json")


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_no_request_makes_the_server_fail(schema: Any, mode: GenerationMode) -> None:
    operations = [result.ok() for result in schema.get_all_operations()]
    assert len(operations) >= 15
    tried = 0
    for operation in operations:
        if mode is GenerationMode.NEGATIVE and not (operation.body or operation.query):
            continue  # nothing can be wrong with it

        @settings(
            max_examples=MAX_EXAMPLES,
            deadline=None,
            derandomize=True,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(generation_mode=mode))
        def answered(case: Any) -> None:
            nonlocal tried
            tried += 1
            case.call_and_validate(checks=[not_a_server_error, content_type_conformance, response_schema_conformance])

        answered()
    assert tried > 100


def test_the_errors_are_described_as_they_are(schema: Any) -> None:
    described = schema.raw_schema["paths"]["/api/search"]["post"]["responses"]
    for status in ("422", "default"):
        shape = described[status]["content"]["application/json"]["schema"]["$ref"]
        assert shape.endswith("/ErrorBody")
