"""Settlement: the order of its steps, and servers that go away between them."""

from __future__ import annotations

import logging
import random

import pytest

from beatd.exceptions import BrokerError, StoreError
from beatd.message.protocol import build, envelope
from beatd.states import FAILURE
from beatd.worker import callbacks_publisher
from beatd.worker.execution.executor import Executor
from beatd.worker.messages import Delivery, Headers, Job
from beatd.worker.request import Request
from beatd.worker.run_outcomes import RunOutcomes
from tests.fakes import FakeClock

CALLBACK = {"task": "callback", "args": [], "kwargs": {}, "options": {}, "subtask_type": None, "immutable": False}
ERRBACK = CALLBACK | {"task": "errback"}


def run(bench, tag, task="late", *, embed=None):
    """Run a task as a pool does and report its end."""
    delivery = bench.send(tag, task, embed=embed)
    bench.turn()
    report = Executor(bench.app, "w@here")(Job(tag, delivery.raw, "celery"), lambda _: None)
    bench.pool.jobs.pop(tag)
    bench.pool.reports.append(report)
    return report


def turn_until_settled(bench):
    for _ in range(200):
        try:
            bench.turn()
        except (StoreError, BrokerError):
            continue
        return
    pytest.fail("never settled")


def test_callbacks_leave_after_the_result_and_before_the_acknowledgement(bench):
    report = run(bench, 1, embed={"callbacks": [CALLBACK, CALLBACK]})
    assert bench.publisher.attempts == 0  # the pool publishes nothing
    bench.turn()
    assert bench.journal.kinds() == ["store", "publish", "publish", "ack"]
    assert len(report.follow_ups) == 2


def test_a_repeated_run_publishes_its_callbacks_under_the_same_ids(bench):
    published = []
    for tag in (1, 2):
        delivery = bench.send(tag, task_id="the-id", embed={"callbacks": [CALLBACK, CALLBACK]})
        bench.consumer.inbox.clear()
        report = Executor(bench.app, "w@here")(Job(tag, delivery.raw, "celery"), lambda _: None)
        published.append([message.unpack().message.id for message in report.follow_ups])
    assert published[0] == published[1]
    assert len(set(published[0])) == 2


def test_the_document_names_the_callbacks_as_children(bench):
    report = run(bench, 1, embed={"callbacks": [CALLBACK]})
    (message,) = report.follow_ups
    assert message.unpack().message.id in report.document.decode()


def test_callbacks_are_kept_while_the_broker_is_away(bench):
    run(bench, 1, embed={"callbacks": [CALLBACK]})
    bench.publisher.away = True
    for _ in range(5):
        with pytest.raises(BrokerError):
            bench.turn()
    assert "ack" not in bench.journal.kinds()
    bench.publisher.away = False
    bench.turn()
    assert bench.journal.kinds() == ["store", "publish", "ack"]


def test_callbacks_are_kept_for_as_long_as_the_broker_is_away(bench, caplog):
    """Consumers of RabbitMQ and of kombu reconnect by themselves, and the loop gets to the callbacks meanwhile."""
    run(bench, 1, embed={"callbacks": [CALLBACK]})
    bench.publisher.away = True
    for _ in range(200):
        with pytest.raises(BrokerError):
            bench.turn()
    assert bench.journal.kinds() == ["store"]
    warned = [record for record in caplog.records if getattr(record, "event", None) == "followup_retrying"]
    assert sum(record.levelno >= logging.WARNING for record in warned) <= 10
    bench.publisher.away = False
    bench.turn()
    assert bench.journal.kinds() == ["store", "publish", "ack"]


def test_a_refused_callback_fails_its_task_and_tells_its_errback(bench, caplog):
    bench.publisher.refuses = {"callback"}
    run(bench, 1, embed={"callbacks": [CALLBACK], "errbacks": [ERRBACK]})
    bench.turn()
    assert bench.journal[:1] == [("store", ("id-1", "SUCCESS"))]
    assert bench.journal.kinds() == ["store", "publish", "store", "ack"]
    assert bench.journal.of("store")[-1] == ("id-1", FAILURE)
    assert [task for task, _ in bench.journal.of("publish")] == ["errback"]
    assert "followup_failed" in {getattr(record, "event", None) for record in caplog.records}


def test_errbacks_that_are_refused_do_not_fail_anything_again(bench):
    bench.publisher.refuses = {"callback", "errback"}
    run(bench, 1, embed={"callbacks": [CALLBACK], "errbacks": [ERRBACK]})
    bench.turn()
    assert bench.journal.of("store") == [("id-1", "SUCCESS"), ("id-1", FAILURE)]
    assert bench.journal.of("ack") == [1]


def test_a_callback_that_ends_every_connection_is_given_up_and_others_are_published(bench):
    bench.publisher.disconnects = {"poison"}
    poison = CALLBACK | {"options": {"task_id": "poison"}}
    for tag in (1, 2):
        bench.send(tag)
    bench.turn()
    for tag, callback in ((1, poison), (2, CALLBACK)):
        raw = envelope(build("late", f"id-{tag}", embed={"callbacks": [callback]}), queue="celery")
        bench.pool.reports.append(Executor(bench.app, "w@here")(Job(tag, raw, "celery"), lambda _: None))
    turn_until_settled(bench)
    assert bench.journal.of("ack") == [1, 2]
    assert len(bench.journal.of("publish")) == 1
    assert bench.journal.of("store")[-1] == ("id-1", FAILURE)


def test_errbacks_of_a_task_that_failed_leave_by_the_worker(bench):
    report = run(bench, 1, embed={"errbacks": [ERRBACK]})
    assert report.follow_ups == []  # it succeeded

    @bench.app.task(name="fails")
    def fails():
        raise ValueError("no")

    report = run(bench, 2, "fails", embed={"errbacks": [ERRBACK]})
    assert [message.unpack().message.headers["task"] for message in report.follow_ups] == ["errback"]
    bench.turn()
    assert [task for task, _ in bench.journal.of("publish")] == ["errback"]


def test_large_numbers_of_callbacks_leave_in_batches(bench):
    count = 2 * callbacks_publisher._BATCH + 5
    run(bench, 1, embed={"callbacks": [CALLBACK] * count})
    bench.turn()
    assert len(bench.journal.of("publish")) == count
    assert bench.publisher.attempts == 3


@pytest.mark.parametrize("seed", range(20))
def test_servers_that_fail_between_the_steps_change_nothing_in_the_end(make_bench, seed):
    """Fail each step at random: all is settled, in order, and no message is acknowledged before its result."""
    draw, bench = random.Random(seed), make_bench()
    tags = range(1, 8)
    for tag in tags:
        run(bench, tag, embed={"callbacks": [CALLBACK]} if tag % 2 else None)
    for _ in range(30):
        bench.results.away = draw.random() < 0.3
        bench.publisher.away = draw.random() < 0.3
        bench.consumer.away = {name for name in ("ack", "tend", "take") if draw.random() < 0.3}
        try:
            bench.turn()
        except (StoreError, BrokerError):
            continue
    bench.results.away = bench.publisher.away = False
    bench.consumer.away = set()
    bench.turn()
    assert sorted(bench.journal.of("ack")) == list(tags)
    assert sorted(bench.journal.of("store")) == [(f"id-{tag}", "SUCCESS") for tag in tags]
    assert len(bench.journal.of("publish")) == len(set(bench.journal.of("publish"))) == 4
    stored = bench.journal.index(("store", ("id-7", "SUCCESS")))
    assert stored < bench.journal.index(("ack", 7))
    assert not bench.worker._settlement.pending


def test_runs_are_marked_as_running_also_after_the_clock_was_set_back(bench):
    clock, request = (
        FakeClock(waits=False),
        Request(Delivery(1, "q", b""), Headers("id-1", "late", entry="e"), bench.app.tasks["late"]),
    )
    outcomes = RunOutcomes(clock, "w@here")
    outcomes.begin(request)
    outcomes.collect_long_runs()
    assert outcomes.long_runs == []
    clock.step(-3600)
    clock.advance(2.1)
    outcomes.collect_long_runs()
    assert outcomes.long_runs == [request]


def test_a_flush_without_anything_new_tells_nothing(bench):
    run(bench, 1)
    bench.turn()
    before = list(bench.journal)
    bench.turn()
    bench.turn()
    assert bench.journal == before


def test_an_item_that_no_server_can_take_is_dropped_and_the_others_are_settled(bench, caplog):
    bench.results.impossible = {"id-2"}
    for tag in (1, 2, 3):
        bench.send(tag)
    bench.turn()
    for tag in (1, 2, 3):
        bench.pool.end(tag)
    bench.turn()
    assert bench.journal.of("store") == [("id-1", "SUCCESS"), ("id-3", "SUCCESS")]
    assert bench.journal.of("ack") == [1, 2, 3]
    events = [getattr(record, "event", None) for record in caplog.records]
    assert events.count("settlement_failed") == events.count("settlement_dropped") == 1
    assert "id-2" in caplog.text


def test_a_retry_is_published_after_its_state_is_stored(bench):
    @bench.app.task(name="again", bind=True, acks_late=True)
    def again(self):
        raise self.retry(countdown=0)

    report = run(bench, 1, "again")
    assert (report.state, bench.publisher.attempts) == ("RETRY", 0)
    bench.turn()
    assert list(bench.journal) == [("store", ("id-1", "RETRY")), ("publish", ("again", "id-1")), ("ack", 1)]


def test_a_retry_that_the_broker_refuses_fails_the_task(bench):
    @bench.app.task(name="again", bind=True, acks_late=True)
    def again(self):
        raise self.retry(countdown=0)

    bench.publisher.refuses = {"again"}
    run(bench, 1, "again")
    bench.turn()
    assert bench.journal.of("store") == [("id-1", "RETRY"), ("id-1", FAILURE)]
    assert bench.journal.of("ack") == [1]


@pytest.mark.parametrize("options", [{"queue": "q\udcff"}, {"task_id": "t\udcff"}])
def test_a_callback_with_a_name_that_is_no_text_fails_its_task(bench, options):
    report = run(bench, 1, embed={"callbacks": [CALLBACK | {"options": options}]})
    assert (report.state, report.follow_ups) == (FAILURE, [])
    assert b"UTF-8" in report.document
