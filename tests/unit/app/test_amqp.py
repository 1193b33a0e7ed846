"""``app.amqp``: the queues and routes that Celery's app would show."""

from __future__ import annotations

import re

import celery
import pytest
from kombu import Exchange, Queue

from beatd import App
from beatd.exceptions import QueueNotFound

TOPIC = Queue("topics", Exchange("things", "topic"), "a.#", max_priority=5)


def by_args(name, args, kwargs, options, task=None, **_):
    return {"queue": args[0]} if args else None


class Compat:
    def route_for_task(self, name, args=None, kwargs=None):
        return "compat" if name.startswith("old.") else None


SETTINGS = {
    "nothing": {},
    "default queue": {"task_default_queue": "mine"},
    "all defaults": {"task_default_queue": "q", "task_default_exchange": "e", "task_default_routing_key": "k"},
    "kombu's": {"task_queues": [Queue("plain"), TOPIC, Queue("args", queue_arguments={"x-expires": 1000})]},
    "a mapping": {
        "task_queues": {
            "a": {"exchange": "ex", "exchange_type": "fanout", "routing_key": "k"},
            "b": {"binding_key": "c"},
        }
    },
    "priorities": {"task_queues": [Queue("p")], "task_queue_max_priority": 7},
    "routes": {
        "task_routes": [
            {"feed.*": {"queue": "feeds", "routing_key": "x"}, "exact": "exactly"},
            ([(re.compile(r"(video|image)\..*"), {"queue": "media", "priority": 3})]),
            Compat(),
            by_args,
        ]
    },
    "an exchange": {"task_routes": {"to.*": {"exchange": "e", "routing_key": "k"}}},
}
CALLS = [
    ({}, "feed.read"),
    ({}, "exact"),
    ({}, "image.resize"),
    ({}, "old.task"),
    ({}, "other", ("chosen",)),
    ({}, "other"),
    ({}, "to.all"),
    ({"queue": "given", "priority": None}, "feed.read"),
    ({"queue": Queue("object", routing_key="r"), "countdown": 3}, "exact"),
    ({"routing_key": "own"}, "feed.read"),
]


def shown(queue):
    exchange = queue.exchange
    return queue.name, exchange and (exchange.name, exchange.type), queue.routing_key, queue.queue_arguments or None


def described(route):
    return {name: shown(value) if name == "queue" else value for name, value in route.items()}


@pytest.fixture
def apps(request):
    theirs = celery.Celery("x", set_as_current=False)
    with App("x", set_as_current=False) as ours:
        for app in (theirs, ours):
            app.conf.update(SETTINGS[request.param])
        yield theirs, ours


@pytest.mark.parametrize("apps", SETTINGS, indirect=True)
def test_queues_and_routes_are_those_of_celery(apps):
    theirs, ours = (app.amqp for app in apps)
    assert [shown(queue) for queue in ours.queues.values()] == [shown(queue) for queue in theirs.queues.values()]
    assert list(ours.queues.consume_from) == list(theirs.queues.consume_from)
    assert "missing" not in ours.queues
    assert shown(ours.default_queue) == shown(theirs.default_queue)
    for options, *call in CALLS:
        route, expected = (amqp.router.route(dict(options), *call) for amqp in (ours, theirs))
        assert described(route) == described(expected)


def test_a_worker_consumes_its_own_queues():
    with App("x", set_as_current=False) as app:
        app.conf.task_queues = [Queue("a"), Queue("b")]
        app.amqp.consumed = ("b", "c")
        assert list(app.amqp.queues.consume_from) == ["b", "c"]


def test_a_queue_that_is_not_declared_is_refused():
    with App("x", set_as_current=False) as app:
        app.conf.update(task_queues=[Queue("a")], task_create_missing_queues=False, task_routes={"t": "b"})
        with pytest.raises(QueueNotFound, match="'b' is not in task_queues: a"):
            app.amqp.router.route({}, "t")


def test_what_is_not_there_says_what_to_use():
    with App("x", set_as_current=False) as app:
        with pytest.raises(AttributeError, match="no send_task_message: use app"):
            _ = app.amqp.send_task_message
        with pytest.raises(AttributeError, match="beatd has no nonsense"):
            _ = app.amqp.nonsense
