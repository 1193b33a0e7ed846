"""The end of a chord's header, as the worker that notes the last end sees it."""

from __future__ import annotations

import json
import logging

import pytest

from beatd.exceptions import BrokerError
from beatd.store.groups import Claimed, Complete, Ends, Part

BODY = {"task": "callback", "args": [], "kwargs": {}, "options": {"task_id": "body"}, "subtask_type": None}
PART = Part("g", 0, "id-1", b"[1, 'id-1', 'SUCCESS', 7]", json.dumps(BODY).encode(), "root")


class FakeGroups:
    """Gives one answer after the other, and the last one again."""

    is_polled = False

    def __init__(self, *answers):
        self.answers = list(answers)
        self.noted = []
        self.finished = []

    def end(self, parts, _owner):
        self.noted += parts
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    def sent(self, group, _owner, *, failed=False):
        self.finished.append((group, failed))


COMPLETE = Ends([Complete(PART, None, [("id-1", "SUCCESS", 7)])], [])


@pytest.fixture
def end_with(bench):
    """``end_with(*answers)``: end a task of a header, with these answers of the store."""

    def end(*answers):
        bench.results.groups = FakeGroups(*answers)
        bench.send(1)
        bench.turn()
        bench.pool.end(1, parts=[PART])
        return bench.results.groups

    return end


def test_the_body_is_sent_before_the_acknowledgement(bench, end_with):
    groups = end_with(COMPLETE)
    bench.turn()
    assert bench.journal.kinds() == ["store", "publish", "ack"]
    assert groups.finished == [("g", False)]


def test_a_body_that_another_worker_has_to_send_is_asked_for_until_it_is_sent(bench, end_with):
    groups = end_with(Ends([], [Claimed(PART, 60.0)]), Ends([], [Claimed(PART, 2.0)]), COMPLETE)
    for _ in range(3):
        bench.turn()
    assert len(groups.noted) == 1
    assert bench.worker._settlement.pending
    bench.clock.advance(5.0)
    bench.turn()
    bench.turn()
    assert len(groups.noted) == 2
    assert bench.journal.of("publish") == []
    bench.clock.advance(2.0)
    bench.turn()
    assert bench.journal.of("publish") == [("callback", "body")]
    assert groups.finished == [("g", False)]
    assert not bench.worker._settlement.pending


def test_a_body_that_the_other_worker_has_sent_is_forgotten(bench, end_with):
    groups = end_with(Ends([], [Claimed(PART, 60.0)]), Ends([], []))
    bench.turn()
    bench.clock.advance(5.0)
    bench.turn()
    bench.clock.advance(60.0)
    bench.turn()
    assert len(groups.noted) == 2
    assert not bench.worker._settlement.pending


def test_a_chord_does_not_fail_while_the_broker_is_away(bench, end_with):
    groups = end_with(COMPLETE)
    bench.publisher.away = True
    for _ in range(100):
        with pytest.raises(BrokerError):
            bench.turn()
    bench.publisher.away = False
    bench.turn()
    assert bench.journal.of("publish") == [("callback", "body")]
    assert groups.finished == [("g", False)]


def test_a_chord_whose_body_the_broker_never_takes_fails(bench, end_with, caplog):
    caplog.set_level(logging.ERROR)
    groups = end_with(COMPLETE)
    bench.publisher.disconnects = {"body"}
    for _ in range(100):
        try:
            bench.turn()
        except BrokerError:
            continue
        break
    assert groups.finished == [("g", True)]
    assert ("body", "FAILURE") in bench.journal.of("store")
    assert [(record.event, record.task, record.getMessage()) for record in caplog.records] == [
        ("chord_failed", "callback", "Chord g: the broker does not take the body's message")
    ]


def test_a_member_of_a_chord_that_cannot_be_counted_is_a_task_as_others(bench, caplog):
    """Another worker's app has the result backend, this one has none."""
    bench.send(1)
    bench.turn()
    bench.pool.end(1, parts=[PART])
    caplog.set_level(logging.ERROR)
    bench.turn()
    assert bench.journal.kinds() == ["store", "ack"]
    (failed,) = caplog.records
    assert (failed.event, failed.task_id) == ("chord_failed", "id-1")
    assert failed.getMessage().startswith("Chord g cannot be counted: chords and saved groups need a result backend")
