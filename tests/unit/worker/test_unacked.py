"""What a consumer of RabbitMQ knows of its unsettled messages when connections break."""

from __future__ import annotations

import pytest

from beatd.broker.amqp_codec import Content
from beatd.worker.consumers.unacked import UnackedMessages
from beatd.worker.messages import Delivery


class Line:
    """A connection that keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, int]] = []

    def ack(self, tag: int, *, multiple: bool) -> None:
        assert not multiple
        self.told.append(("ack", tag))

    def reject(self, tag: int) -> None:
        self.told.append(("reject", tag))


@pytest.fixture
def held():
    return UnackedMessages()


def content(number, task_id="id", *, redelivered=False, **headers):
    headers = {"id": task_id, "retries": 0, "eta": None, "replaced_task_nesting": 0, **headers}
    return Content("1", number, redelivered, "", "q", {"headers": headers}, b"")


def deliver(held, line, *args, **fields):
    return held.add(line, content(*args, **fields))


def of(*tags):
    return [Delivery(tag, "q", b"") for tag in tags]


def reconnect(held, not_begun=()):
    held.break_off(of(*not_begun))
    held.begin()
    return Line()


@pytest.mark.parametrize(("acked", "word"), [(True, "ack"), (False, "reject")])
@pytest.mark.parametrize("when", ["before", "after"])
def test_the_redelivery_of_what_is_settled_is_settled_in_the_same_way(held, acked, word, when):
    """Before the break the broker may not have got the word; after it there was no connection for it."""
    line = Line()
    tag = deliver(held, line, 7)
    if when == "before":
        assert held.release(of(tag), line, acked=acked) == [7]
    line = reconnect(held)
    if when == "after":
        assert held.release(of(tag), line, acked=acked) == []
    assert deliver(held, line, 1, redelivered=True) is None
    assert line.told == [(word, 1)]
    assert deliver(held, line, 2, redelivered=True) is not None, "once"


def test_what_is_given_back_without_a_connection_runs_when_it_comes_again(held):
    line = Line()
    tag = deliver(held, line, 7)
    line = reconnect(held)
    assert held.release(of(tag), line) == []
    assert deliver(held, line, 1, redelivered=True) is not None


def test_what_replaces_a_task_is_another_message(held):
    line = Line()
    held.release(of(deliver(held, line, 7)), line, acked=True)
    line = reconnect(held)  # before the replacement, which has the task's id, was read
    assert deliver(held, line, 1, redelivered=True, replaced_task_nesting=1) is not None
    assert line.told == []


@pytest.mark.parametrize("begun", [True, False])
def test_a_second_message_under_one_id_is_another_message(held, begun):
    line = Line()
    first, second = deliver(held, line, 7), deliver(held, line, 8)
    held.release(of(first), line, acked=True)
    line = reconnect(held, not_begun=() if begun else (second,))
    again = deliver(held, line, 1, redelivered=True)
    assert line.told == []
    if begun:
        assert again is None, "it runs, and is acknowledged at its end"
        assert held.release(of(second), line, acked=True) == [1]
    else:
        assert again is not None
