"""What is decided about messages that come in."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime, timedelta

import pytest

from beatd import App, Request
from beatd.exceptions import MessageError
from beatd.message.protocol import build, envelope
from beatd.timestamps import to_ms
from beatd.worker import effects
from beatd.worker.admission.revoked import Revoked
from beatd.worker.admission.strategy import Strategy
from beatd.worker.consumers.envelope import mark_received
from beatd.worker.execution.executor import Executor
from beatd.worker.messages import Delivery, headers_of

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
NOW_MS = to_ms(NOW)


@pytest.fixture
def app() -> App:
    app = App("x", timezone="Asia/Baku")
    app.task(name="tasks.add")(lambda x, y: x + y)
    app.finalize()
    return app


def raw(task="tasks.add", **fields) -> bytes:
    return envelope(build(task, "the-id", (1, 2), **fields), queue="celery")


def judge(app, *messages, revoked=()):
    memory = Revoked()
    memory.add(revoked, NOW_MS)
    return Strategy(app, memory).decide([Delivery(n, "celery", one) for n, one in enumerate(messages)], NOW_MS)


def at(**delta) -> str:
    return (NOW + timedelta(**delta)).isoformat()


def test_a_message_that_may_run_becomes_a_request(app, caplog):
    caplog.set_level(logging.INFO)
    (request,) = judge(app, raw(timelimit=[20, 10])).run
    assert (request.id, request.name, request.hard_limit, request.soft_limit) == ("the-id", "tasks.add", 20, 10)
    assert caplog.messages == ["Task tasks.add[the-id] received"]


def test_the_tasks_own_limits_hold_where_the_message_has_none(app):
    app.tasks["tasks.add"].time_limit = 7
    (request,) = judge(app, raw()).run
    assert (request.hard_limit, request.soft_limit) == (7, None)


def test_a_message_before_its_time_is_parked(app):
    verdicts = judge(app, raw(eta=at(seconds=10)))
    assert [due for _, due in verdicts.park] == [NOW_MS + 10_000]
    assert verdicts.run == []


def test_a_message_that_comes_back_from_its_parking_is_not_announced_again(app, caplog):
    caplog.set_level(logging.INFO)
    first = raw(eta=at(seconds=-1))
    parked, back = judge(app, raw(eta=at(seconds=10))), judge(app, mark_received(first))
    assert [type(effect).__name__ for effect in parked.effects] == ["Received"]
    assert caplog.messages == [f"Task tasks.add[the-id] received  ETA:[{at(seconds=10)}]"]
    assert [request.id for request in back.run] == ["the-id"]
    assert back.effects == []


def test_a_message_whose_time_has_come_runs(app):
    assert len(judge(app, raw(eta=at(seconds=-1))).run) == 1


def test_a_naive_eta_is_in_the_apps_time_zone(app):
    verdicts = judge(app, raw(eta="2026-01-01T16:00:05"))
    assert [due for _, due in verdicts.park] == [NOW_MS + 5_000]


def test_an_expired_message_is_revoked(app, caplog):
    with caplog.at_level(logging.INFO, "celery.worker"):
        verdicts = judge(app, raw(expires=at(seconds=-1)))
    assert "task_expired" in {getattr(record, "event", None) for record in caplog.records}
    assert verdicts.run == []
    assert len(verdicts.drop) == 1
    stored = json.loads(verdicts.results[0].document)
    assert stored["status"] == "REVOKED"
    assert stored["result"] == {
        "exc_type": "TaskRevokedError",
        "exc_message": ["expired"],
        "exc_module": "celery.exceptions",
    }


def test_a_revoked_task_is_dropped_also_before_its_time(app, caplog):
    with caplog.at_level(logging.INFO, "celery.worker"):
        verdicts = judge(app, raw(), raw(eta=at(hours=1)), revoked=["the-id"])
    assert (verdicts.run, verdicts.park, len(verdicts.drop)) == ([], [], 2)
    assert [type(effect) for effect in verdicts.effects] == [effects.Revoked, effects.Revoked]
    stored = json.loads(verdicts.results[0].document)
    assert stored["status"] == "REVOKED"
    assert stored["result"] == {
        "exc_type": "TaskRevokedError",
        "exc_message": ["revoked"],
        "exc_module": "celery.exceptions",
    }
    assert "task_revoked" in {getattr(record, "event", None) for record in caplog.records}


def test_an_unknown_task_is_a_failure_with_a_hint(app, caplog):
    verdicts = judge(app, raw("tasks.ad"))
    assert len(verdicts.drop) == 1
    stored = json.loads(verdicts.results[0].document)
    assert (stored["status"], stored["result"]["exc_type"]) == ("FAILURE", "NotRegistered")
    assert "Did you mean 'tasks.add'?" in caplog.text
    judge(app, raw("beatd.http"))
    assert "Start the worker with --builtin http." in caplog.text


def test_a_tasks_own_request_class_is_used(app):
    class Mine(Request):
        pass

    app.tasks["tasks.add"].Request = Mine
    (request,) = judge(app, raw()).run
    assert type(request) is Mine


def changed(**headers) -> bytes:
    message = json.loads(raw())
    message["headers"].update(headers)
    return json.dumps(message).encode()


def without(*headers) -> bytes:
    message = json.loads(raw())
    for name in headers:
        del message["headers"][name]
    return json.dumps(message).encode()


MALFORMED = {
    "no JSON": b"hello",
    "empty": b"",
    "null": b"null",
    "a list": b"[]",
    "a number": b"1",
    "invalid UTF-8": b'{"headers": {"id": "\xff\xfe", "task": "t"}}',
    "no headers": b'{"body": ""}',
    "headers that are a list": b'{"headers": []}',
    "deep nesting": b"[" * 100_000,
    "cut off": raw()[:100],
    "no id": without("id"),
    "no task": without("task"),
    "an empty id": changed(id=""),
    "an empty task": changed(task=""),
    "a number as id": changed(id=5),
    "null as task": changed(task=None),
    "a number as eta": changed(eta=5),
    "an eta that is no time": changed(eta="soon"),
    "a number as expires": changed(expires=5),
    "an expires that is no time": changed(expires="2026-13-01"),
    "a time limit that is no pair": changed(timelimit=[1]),
    "a time limit that is text": changed(timelimit="1"),
    "retries that are text": changed(retries="x"),
    "more retries than a number carries": changed(retries=10**30),
    "a place that no number carries": changed(group_index=-(10**30)),
    "an instant that no number carries": changed(**{"beatd-after": 10**30}),
    "pickle": json.dumps({**json.loads(raw()), "content-type": "application/x-python-serialize"}).encode(),
}


@pytest.mark.parametrize("message", MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed_messages_are_buried_with_a_reason(app, message):
    verdicts = judge(app, message, raw())
    assert len(verdicts.bury) == 1
    assert verdicts.bury[0][1]
    assert len(verdicts.run) == 1, "the message after it is not affected"


def test_headers_that_are_not_known_are_welcome():
    assert headers_of(changed(anything={"a": [1]})).id == "the-id"


def test_headers_that_are_missing_have_defaults():
    message = {"headers": {"id": "1", "task": "t"}}
    assert headers_of(json.dumps(message).encode()).retries == 0


def test_the_reason_tells_what_is_wrong():
    with pytest.raises(MessageError, match=r"\$\.headers\.id"):
        headers_of(changed(id=5))


def test_the_worker_takes_the_largest_message_that_the_client_sends(app):
    app.conf.message_max_bytes = 1_000_000
    text = "x" * (app.conf.message_max_bytes - 100)
    largest = build("tasks.add", "the-id", (text, ""))
    assert 999_900 < len(largest.body) <= app.conf.message_max_bytes
    (request,) = judge(app, envelope(largest, queue="celery")).run
    executor = Executor(app, "me@here")
    assert executor(request.job(watched=False), print).state == "SUCCESS"
    too_large = build("tasks.add", "the-id", (text, "y" * 200))
    (request,) = judge(app, envelope(too_large, queue="celery")).run
    assert "message_max_bytes allows 1,000,000" in executor(request.job(watched=False), print).text


@pytest.mark.parametrize("task", ["tasks.add", "tasks.nobody"])
def test_the_result_of_what_is_not_run_has_the_fields_of_extended_results(app, task):
    app.conf.result_extended = True
    message = build(task, "the-id", (1,), {"y": {2}}, expires=at(seconds=-1), group="the-group", retries=3)
    delivery = Delivery(1, "celery", envelope(message, queue="celery"))
    (result,) = Strategy(app, Revoked(), "me@here").decide([delivery], NOW_MS).results
    stored = json.loads(result.document)
    fields = {name: stored[name] for name in ("name", "args", "kwargs", "worker", "retries", "queue", "group_id")}
    assert fields == {
        "name": task,
        "args": [1],
        "kwargs": {"y": [2]},
        "worker": "me@here",
        "retries": 3,
        "queue": "celery",
        "group_id": "the-group",
    }
