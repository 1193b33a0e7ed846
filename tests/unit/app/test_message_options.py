"""Message options, routes, signatures and stored results."""

from __future__ import annotations

import base64
import json
import random
import sys
import tracemalloc
import uuid
from datetime import UTC, datetime, timedelta

import pytest

from beatd import App, Signature, exceptions
from beatd.app.message_options import message_for
from beatd.app.routing import route_for
from beatd.broker.redis_keys import RedisKeys, queue_key
from beatd.exceptions import MessageError, QueueNotFound
from beatd.message import json_codec
from beatd.message.protocol import build, envelope, new_id, open_envelope, safe_repr
from beatd.store.result_document import document, exception_from, exception_payload

NOW = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)


def message(zone="UTC", **options):
    return message_for("tasks.add", (1, 2), {"z": 3}, options, now=NOW, timezone=zone)


def test_a_message_has_all_of_celerys_headers():
    sent = message(task_id="the-id", priority=6, time_limit=20, soft_time_limit=10, headers={"tenant": "a"})
    headers = sent.headers
    assert (headers["id"], headers["root_id"], headers["task"]) == ("the-id", "the-id", "tasks.add")
    assert headers["timelimit"] == [20, 10]
    assert headers["tenant"] == "a"
    assert (headers["argsrepr"], headers["kwargsrepr"]) == ("(1, 2)", "{'z': 3}")
    assert headers["origin"].startswith("gen")
    assert sent.properties["priority"] == 6
    embed = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
    assert json_codec.loads(sent.body) == [[1, 2], {"z": 3}, embed]


def test_a_new_id_is_a_random_uuid():
    for _ in range(50):
        found = uuid.UUID(task_id := new_id())
        assert (found.version, found.variant, str(found)) == (4, uuid.RFC_4122, task_id)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (90, "2026-01-01T12:01:30+00:00"),
        (timedelta(hours=1), "2026-01-01T13:00:00+00:00"),
        (datetime(2026, 6, 1, tzinfo=UTC), "2026-06-01T00:00:00+00:00"),
        (datetime(2026, 6, 1), "2026-06-01T00:00:00+04:00"),
        ("2026-06-01T00:00:00+00:00", "2026-06-01T00:00:00+00:00"),
    ],
)
def test_expiry_becomes_an_absolute_time(value, expected):
    assert message("Asia/Baku", expires=value).headers["expires"] == expected


def test_expiry_is_also_the_transports_time_to_live():
    assert message(expires=90).properties["expiration"] == "90000"
    assert message(expires=-5).properties["expiration"] == "0"
    assert "expiration" not in message().properties


def test_a_countdown_becomes_an_eta():
    assert message(countdown=10).headers["eta"] == "2026-01-01T12:00:10+00:00"
    assert message().headers["eta"] is None


def test_an_invalid_time_is_rejected():
    with pytest.raises(MessageError, match="expires='soon'"):
        message(expires="soon")


@pytest.mark.parametrize(
    ("options", "routes", "expected"),
    [
        ({}, None, ("celery", "", None)),
        ({"queue": "a"}, None, ("a", "", None)),
        ({"exchange": "x", "routing_key": "k"}, None, ("k", "x", "k")),
        ({}, {"tasks.*": {"queue": "b"}}, ("b", "", None)),
        ({}, [("other.*", "c"), ("tasks.add", "d")], ("d", "", None)),
        ({}, lambda name, *_: {"queue": name}, ("tasks.add", "", None)),
        ({"queue": "a"}, {"tasks.*": "b"}, ("a", "", None)),
        ({}, ([("other.*", {"queue": "e"}), ("*", {"queue": "f"})],), ("f", "", None)),
        ({}, [[("tasks.*", {"queue": "g"})]], ("g", "", None)),
        ({}, ({"other": "h"}, [("tasks.*", "i")]), ("i", "", None)),
        ({}, {"*": "j", "tasks.add": "k"}, ("k", "", None)),
        ({}, ("tasks.*", "l"), ("l", "", None)),
        ({"queue": "a", "exchange": "x", "routing_key": "k"}, None, ("k", "x", "k")),
    ],
)
def test_routes(options, routes, expected):
    conf = App("x", task_routes=routes).conf
    assert tuple(route_for("tasks.add", (), {}, options, conf))[:3] == expected


@pytest.mark.parametrize(
    ("priority", "key"),
    [(None, "q"), (-1, "q"), (0, "q"), (2, "q"), (3, "q\x06\x163"), (5, "q\x06\x163"), (9, "q\x06\x169")],
)
def test_priorities_choose_among_four_lists(priority, key):
    assert queue_key("q", priority) == key


def test_the_list_of_the_highest_priority_is_first():
    assert RedisKeys().queues("q") == ["q", "q\x06\x163", "q\x06\x166", "q\x06\x169"]


def test_the_list_of_a_priority_is_the_one_that_kombu_uses():
    from kombu.transport.redis import Channel

    class Bare(Channel):
        def __init__(self):
            pass

    channel = Bare()
    for priority in range(10):
        assert queue_key("q", priority) == channel._q_for_pri("q", channel.priority(priority))


def test_a_signature_is_its_own_json():
    app = App("x")
    task = app.task(name="tasks.add")(lambda x, y: x + y)
    signature = task.s(1, y=2).set(queue="q")
    restored = Signature(json.loads(json.dumps(signature)), app=app)
    assert dict(restored) == {
        "task": "tasks.add",
        "args": [1],
        "kwargs": {"y": 2},
        "options": {"queue": "q"},
        "subtask_type": None,
        "immutable": False,
    }
    assert repr(restored) == "tasks.add(1, y=2)"
    assert restored() == 3


def test_an_immutable_signature_takes_no_more_arguments():
    app = App("x")
    task = app.task(name="tasks.add")(lambda x, y: x + y)
    assert task.si(1, 2).clone((9,)).args == (1, 2)
    assert task.s(2).clone((1,)).args == (1, 2)


class OwnError(Exception):
    def __init__(self, one, two):
        super().__init__(one, two)


@pytest.mark.parametrize(
    "error", [ValueError("boom", 7), KeyError("k"), OwnError(1, 2), exceptions.SoftTimeLimitExceeded(3)]
)
def test_stored_exceptions_keep_their_type_and_arguments(error):
    restored = exception_from(json.loads(json.dumps(exception_payload(error))))
    assert type(restored) is type(error)
    assert restored.args == error.args


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("NotRegistered", "celery.exceptions"),
        ("MaxRetriesExceededError", "celery.exceptions"),
        ("TaskRevokedError", "celery.exceptions"),
        ("TimeLimitExceeded", "billiard.exceptions"),
        ("WorkerLostError", "billiard.exceptions"),
    ],
)
def test_beatds_exceptions_are_stored_as_celerys(name, module):
    payload = exception_payload(getattr(exceptions, name)("x"))
    assert (payload["exc_type"], payload["exc_module"]) == (name, module)


def test_an_unknown_exception_keeps_its_name():
    restored = exception_from({"exc_type": "Odd", "exc_message": ["x"], "exc_module": "nowhere"})
    assert type(restored).__name__ == "Odd"
    assert restored.args == ("x",)


def test_arguments_that_json_cannot_carry_are_described():
    assert exception_payload(ValueError(sys))["exc_message"] == [repr(sys)]


def test_a_stored_result_cannot_call_functions():
    with pytest.raises(MessageError, match="no exception class"):
        exception_from({"exc_type": "system", "exc_message": ["true"], "exc_module": "os"})


def test_a_document_begins_with_its_status():
    """The Lua script that stores results checks there for a SUCCESS, which must not be overwritten."""
    assert document("id", "SUCCESS", 5).startswith(b'{"status":"SUCCESS"')


class OldRouter:
    """A router of Celery 3's, which settings name."""

    def route_for_task(self, task, args=None, kwargs=None):
        return {"queue": "old"} if task == "a.add" else None


def test_routes_are_those_of_celery():
    import celery

    routes = (
        ([("a.*", {"queue": "qa"}), ("*", {"queue": "qb"})],),
        [{"*.add": {"queue": "qc"}}, {"a.add": {"queue": "qd"}}],
        {"*": {"queue": "qe"}, "a.add": {"queue": "qf"}},
        [(("b.*", {"queue": "qg"}),), lambda name, *_, **__: {"queue": "qh"}],
        {"a.ad?": "qi", "[abc].add": "qj"},
        {"a.add": {}, "*.add": {"queue": "qk"}},
        [lambda name, *_, **__: {} if name == "c" else None, {"c": "ql"}],
        (f"{__name__}.OldRouter", {"c": "qm"}),
        (f"{__name__}.OldRouter", f"{__name__}.OldRouter"),
        f"{__name__}.OldRouter",
    )
    for given in routes:
        peer = celery.Celery("x", set_as_current=False, task_routes=given)
        for name in ("a.add", "b.add", "c"):
            theirs = peer.amqp.router.route({}, name, (), {}).get("queue")
            ours = route_for(name, (), {}, {}, App("x", task_routes=given, set_as_current=False).conf).queue
            assert ours == (theirs.name if theirs else "celery"), (given, name)


def test_without_missing_queues_the_default_queue_is_the_only_one():
    conf = App("x", task_create_missing_queues=False, set_as_current=False).conf
    assert route_for("a", (), {}, {}, conf).queue == "celery"
    with pytest.raises(QueueNotFound, match="queue 'other' is not in task_queues: celery"):
        route_for("a", (), {}, {"queue": "other"}, conf)


def test_reprs_and_properties_can_be_given():
    sent = message(argsrepr="(<hidden>,)", kwargsrepr="{}", app_id="shop", message_id="m", user_id="guest")
    assert (sent.headers["argsrepr"], sent.headers["kwargsrepr"]) == ("(<hidden>,)", "{}")
    assert {name: sent.properties[name] for name in ("app_id", "message_id", "user_id")} == {
        "app_id": "shop",
        "message_id": "m",
        "user_id": "guest",
    }


def test_an_envelope_is_kombus_whatever_is_in_its_body():
    for size in range(80):
        sent = build(
            "tasks.add", "the-id", encode=lambda _, size=size: ("application/data", "binary", bytes(range(size)))
        )
        raw = envelope(sent, queue='a "queue"', exchange="é")
        outer = json.loads(raw)
        assert list(outer) == ["body", "content-encoding", "content-type", "headers", "properties"]
        assert base64.b64decode(outer["body"], validate=True) == sent.body
        assert outer["properties"]["delivery_info"] == {"exchange": "é", "routing_key": 'a "queue"'}
        assert open_envelope(raw).body == sent.body


def test_a_repr_of_long_texts_is_that_of_the_whole_cut():
    draw = random.Random(1)
    for _ in range(3_000):
        texts = [
            "".join(draw.choices("ab'\"\\\n\x00é\ud800", [9, 9, 1, 1, 1, 1, 1, 1, 1], k=draw.randrange(40)))
            for _ in "123"
        ]
        for value in (texts[0], tuple(texts), {"one": texts[0], texts[1]: texts[2]}, (texts, {"in": texts[0]})):
            whole = repr(value).encode("utf-8", "backslashreplace").decode()
            assert safe_repr(value, 20) == (whole if len(whole) <= 20 else f"{whole[:17]}...")


def test_a_repr_of_a_long_text_takes_no_time_for_its_rest():
    text = "x" * 1_000_000
    tracemalloc.start()
    try:
        for value in (text, (1, text), {"text": text}):
            assert len(safe_repr(value)) == 1024
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()
