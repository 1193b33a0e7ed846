"""An app's own use of the broker: ``connection``, ``control.purge`` and ``send_event``."""

from __future__ import annotations

import base64
import json

import pytest
import redis as redis_py

from beatd import App
from beatd.exceptions import BrokerError


@pytest.fixture(params=["redis", pytest.param("rabbitmq", marks=pytest.mark.slow)])
def app(request):
    is_redis = request.param == "redis"
    url = request.getfixturevalue("redis_url") if is_redis else request.getfixturevalue("rabbitmq").url
    app = App("x", broker=url, set_as_current=False, task_default_queue="purged", task_queue_max_priority=9)
    yield app
    app.close()


def test_a_message_leaves_also_where_the_broker_takes_no_events(redis_url, start_server, caplog):
    server = start_server()
    app = App("x", broker=server.url, set_as_current=False, task_send_sent_event=True)
    with redis_py.Redis.from_url(server.url) as admin:
        admin.acl_setuser("default", enabled=True, nopass=True, keys=["*"], commands=["+@all", "-publish"])
        for number in range(2):
            app.send_task("add", [number])
        assert admin.llen("celery") == 2
    assert [record.event for record in caplog.records] == ["sent_event_lost"], "the second event is not tried"
    app.close()


def test_purge_deletes_what_waits(app):
    assert app.control.purge() == 0
    for number in range(3):
        app.send_task("add", [number], priority=[None, 5, 9][number])
    assert app.control.purge() == 3
    assert app.control.discard_all() == 0


def test_a_connection_is_kombus(app):
    for connect in (app.connection, app.connection_for_write, app.connection_for_read):
        with connect() as connection:
            queue = connection.SimpleQueue("mine")
            queue.put({"a": 1})
            message = queue.get(timeout=10)
            assert message.payload == {"a": 1}
            message.ack()
            queue.close()


def test_a_purge_says_that_the_broker_is_away():
    app = App("x", broker="redis://:s3cret@127.0.0.1:1/0", set_as_current=False)
    with pytest.raises(BrokerError, match=r"cannot purge the queues at .*127\.0\.0\.1") as error:
        app.control.purge()
    assert "s3cret" not in str(error.value)


def test_a_task_sends_events_of_its_own(redis_url):
    app = App("x", broker=redis_url, set_as_current=False)

    @app.task(name="task", bind=True)
    def task(self):
        self.send_event("task-progress", percent=40)

    with redis_py.Redis.from_url(redis_url) as server, server.pubsub() as channel:
        channel.psubscribe("/*celeryev/*")
        assert channel.get_message(timeout=5)["type"] == "psubscribe"
        task.apply(task_id="1")
        message = channel.get_message(timeout=5)
    app.close()
    assert message["channel"].endswith(b"celeryev/task.progress")
    event = json.loads(message["data"])
    body = json.loads(base64.b64decode(event["body"]))
    assert (body["type"], body["uuid"], body["percent"]) == ("task-progress", "1", 40)
