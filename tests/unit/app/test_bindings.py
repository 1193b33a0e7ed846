"""Routes by the bindings of ``task_queues``, as in Celery's guide to routing."""

import pytest
from kombu import Exchange, Queue, binding
from kombu.common import Broadcast

from beatd import App
from beatd.app.routing import Queues, Route, route_for
from beatd.exceptions import QueueNotFound

TOPICS = {
    "task_default_queue": "default",
    "task_queues": (
        Queue("default", routing_key="task.#"),
        Queue("feed_tasks", routing_key="feed.#"),
        Queue("image_tasks", exchange=Exchange("mediatasks", type="direct"), routing_key="image.compress"),
    ),
    "task_default_exchange": "tasks",
    "task_default_exchange_type": "topic",
    "task_default_routing_key": "task.default",
}
MEDIA = Exchange("media", type="direct")
BINDINGS = {
    "task_queues": (
        Queue("celery"),
        Queue("media", [binding(MEDIA, routing_key="media.video"), binding(MEDIA, routing_key="media.image")]),
        Queue("twice", MEDIA, routing_key="media.image"),
    )
}
EVERYONE = {"task_queues": (Broadcast("everyone"), Queue("celery"))}
MAPPING = {
    "task_queues": {"celery": {}, "feeds": {"exchange": "feeds", "exchange_type": "topic", "binding_key": "f.*"}}
}


@pytest.mark.parametrize(
    ("settings", "options", "expected"),
    [
        (TOPICS, {}, Route("default")),
        (TOPICS, {"queue": "feed_tasks", "routing_key": "feed.import"}, Route("feed_tasks")),
        (TOPICS, {"queue": "feed_tasks"}, Route("feed_tasks")),
        (TOPICS, {"routing_key": "feed.other"}, Route("feed_tasks")),
        (TOPICS, {"routing_key": "unknown"}, Route("unknown", "tasks", "unknown")),
        (TOPICS, {"exchange": "mediatasks", "routing_key": "image.compress"}, Route("image_tasks")),
        (TOPICS, {"exchange": MEDIA, "routing_key": "x"}, Route("x", "media", "x")),
        (TOPICS, {"queue": "elsewhere", "routing_key": "feed.import"}, Route("elsewhere")),
        (BINDINGS, {"exchange": "media", "routing_key": "media.video"}, Route("media")),
        (BINDINGS, {"exchange": "media", "routing_key": "media.image"}, Route("media.image", "media", "media.image")),
        (BINDINGS, {"queue": "media"}, Route("media")),
        (BINDINGS, {"routing_key": "media.video"}, Route("celery")),
        (EVERYONE, {"queue": "everyone"}, Route("everyone", "everyone", "")),
        (EVERYONE, {}, Route("celery")),
        (MAPPING, {"queue": "feeds", "routing_key": "f.a"}, Route("feeds")),
    ],
)
def test_a_message_goes_where_celery_sends_it(settings, options, expected):
    app = App("proj", set_as_current=False, **settings)
    assert route_for("t", (), {}, options, app.conf) == expected


def test_an_undeclared_queue_is_refused_also_beside_an_exchange():
    app = App("proj", set_as_current=False, task_create_missing_queues=False, **TOPICS)
    with pytest.raises(QueueNotFound):
        route_for("t", (), {}, {"queue": "elsewhere", "exchange": "tasks", "routing_key": "feed.x"}, app.conf)
    assert route_for("t", (), {}, {"exchange": "tasks", "routing_key": "feed.x"}, app.conf) == Route("feed_tasks")


def test_a_worker_may_have_a_queue_of_its_own():
    found = list(Queues({"worker_direct": True, "task_default_queue": "celery"}).bindings("w@h"))
    assert [(one.queue, one.exchange, one.key) for one in found] == [("w@h.dq2", "C.dq2", "w@h")]


def test_missing_queues_may_be_of_the_type_quorum():
    queues = Queues({"task_create_missing_queue_type": "quorum", **TOPICS})
    assert queues.arguments("other") == {"x-queue-type": "quorum"}
    assert queues.arguments("default") == queues.arguments("feed_tasks") == {}
