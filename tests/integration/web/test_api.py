"""API v1 over a real store: whatever is asked, the answer is as its OpenAPI document says, and never a 500."""

import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.integration.web.conftest import OPERATE

CHECKS = [not_a_server_error, content_type_conformance, response_schema_conformance, status_code_conformance]


HEADERS = {"Host": "localhost", "Authorization": f"Bearer {OPERATE}"}


def test_every_answer_is_as_the_document_says(real):
    api = schemathesis.openapi.from_asgi("/api/v1/openapi.json", real.app, headers=HEADERS)
    operations = [found.ok() for found in api.get_all_operations()]
    assert len(operations) > 20

    for operation in operations:

        @settings(
            max_examples=6,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
            derandomize=True,
            database=None,
        )
        @given(case=operation.as_strategy())
        def answers(case):
            case.call_and_validate(headers=HEADERS, checks=CHECKS)

        answers()
