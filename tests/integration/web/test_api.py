"""API v1 over a real store: whatever is asked, the answer is as its OpenAPI document says, and never a 500."""

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from beatd.store.client import connect
from beatd.store.dead_letters import DeadLetters, encode
from beatd.store.keys import Keys
from beatd.web import rates
from tests.integration.web.conftest import OPERATE

CHECKS = [not_a_server_error, content_type_conformance, response_schema_conformance, status_code_conformance]


HEADERS = {"Host": "localhost", "Authorization": f"Bearer {OPERATE}"}


def ask_all(operation, mode, count):
    @settings(
        max_examples=count,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        derandomize=True,
        database=None,
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def answers(case):
        case.call_and_validate(headers=HEADERS, checks=CHECKS)

    answers()


@pytest.mark.slow
def test_every_answer_is_as_the_document_says(real, monkeypatch):
    monkeypatch.setattr(rates, "CHANGES", (10_000, 1.0))
    api = schemathesis.openapi.from_asgi("/api/v1/openapi.json", real.app, headers=HEADERS)
    operations = [found.ok() for found in api.get_all_operations()]
    assert len(operations) > 20
    for operation in operations:
        ask_all(operation, GenerationMode.POSITIVE, 6)
        if operation.query or operation.body:
            ask_all(operation, GenerationMode.NEGATIVE, 4)


def test_dead_letters_that_are_like_another(real, redis_url):
    message = b'{"body": "", "headers": {"task": "lost.task", "id": "1"}, "properties": {}}'
    with connect(redis_url) as client:
        at = "2026-01-01T00:00:00"
        for reason in ("late", "late", "refused"):
            raw = message + b" " * DeadLetters(client, Keys("beatd")).count()
            DeadLetters(client, Keys("beatd")).add([encode(raw, reason=reason, queue="other", at=at)])
    [refused, late, _] = real.ask("GET", "/api/v1/dead-letters").json()["dead_letters"]
    assert (refused["reason"], late["reason"]) == ("refused", "late")
    like = real.ask("GET", f"/api/v1/dead-letters?alike={late['id']}").json()
    assert ([one["reason"] for one in like["dead_letters"]], like["total"]) == (["late", "late"], 3)
    assert real.ask("GET", "/api/v1/dead-letters?alike=abc").status_code == 400
    assert real.ask("DELETE", f"/api/v1/dead-letters/{late['id']}").json() == {
        "done": f"the dead letter {late['id']} is thrown away"
    }
    assert real.ask("GET", "/api/v1/dead-letters").json()["total"] == 2
