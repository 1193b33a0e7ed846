"""Messages that coroutines leave to their worker: bounded, and refused while the worker finds the broker away."""

from __future__ import annotations

import pytest

from beatd import App, group
from beatd.app import publishing
from beatd.app.context import outlet
from beatd.exceptions import MessageError, OperationalError
from tests.fakes import SentMessages


class Way:
    """The outlet of a coroutine."""

    takes_messages = True

    def __init__(self):
        self.left = []
        self.error = None

    def messages(self, collected):
        if self.error is not None:
            raise self.error
        self.left += collected


@pytest.fixture
def app():
    return App("x", set_as_current=False, publisher=SentMessages())


@pytest.fixture
def way():
    way = Way()
    token = outlet.set(way)
    yield way
    outlet.reset(token)


def test_a_full_backlog_refuses_the_next_message(app, way, monkeypatch):
    monkeypatch.setattr(publishing, "BACKLOG_MAX", 3)
    for _ in range(3):
        app.send_task("add")
    with pytest.raises(OperationalError, match="3 messages of coroutines wait for the broker"):
        app.send_task("add")
    app.outgoing.backlog.leave(2)
    with pytest.raises(OperationalError):
        group([app.signature("add") for _ in range(3)], app=app).delay()
    app.send_task("add")
    assert len(way.left) == 4, "a refused group leaves nothing behind"


def test_messages_are_refused_while_the_worker_finds_the_broker_away(app, way):
    app.outgoing.backlog.close("broker h: connection refused")
    with pytest.raises(OperationalError, match="the worker cannot publish: broker h: connection refused"):
        app.send_task("add")
    app.outgoing.backlog.open()
    app.send_task("add")
    assert len(way.left) == 1


def test_a_message_that_cannot_leave_is_not_counted(app, way, monkeypatch):
    monkeypatch.setattr(publishing, "BACKLOG_MAX", 1)
    way.error = MessageError("no JSON")
    for _ in range(3):
        with pytest.raises(MessageError):
            app.send_task("add")
    way.error = None
    app.send_task("add")
