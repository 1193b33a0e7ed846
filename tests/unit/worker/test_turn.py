"""The worker's turn: what happens when reports, messages and remote control come at the same time."""

from __future__ import annotations

import itertools

import pytest

from beatd.app.routing import Route
from beatd.exceptions import BrokerError, StoreUnavailable
from beatd.message.protocol import build
from beatd.states import REVOKED
from beatd.store.result_document import document
from beatd.store.results import Stored
from beatd.worker.effects import Ended, Received, Revoked, Started, Unregistered
from beatd.worker.messages import KILLED, LOST, MEANWHILE, NO_JOB, FollowUpMessage, JobReport


def kinds(bench):
    return [type(effect) for effect in bench.remote.effects]


def test_a_task_from_the_queue_to_the_acknowledgement(bench):
    bench.send(1)
    bench.turn()
    bench.pool.begin(1)
    bench.pool.end(1)
    bench.turn()
    assert bench.journal == [("store", ("id-1", "SUCCESS")), ("ack", 1)]
    assert kinds(bench) == [Received, Started, Ended]


def test_an_early_acknowledged_task_is_acknowledged_once_at_its_start(bench):
    bench.send(1, "early")
    bench.turn()
    bench.pool.begin(1)
    bench.turn()
    assert bench.journal == [("ack", 1)]
    bench.pool.end(1)
    bench.turn()
    assert bench.journal == [("ack", 1), ("store", ("id-1", "SUCCESS"))]


def test_two_ends_of_one_job_in_one_turn_settle_it_once(bench):
    bench.send(1)
    bench.turn()
    bench.pool.end(1)
    bench.pool.end(1, KILLED, document=None)
    bench.turn()
    assert bench.journal == [("store", ("id-1", "SUCCESS")), ("ack", 1)]
    assert kinds(bench) == [Received, Ended]


def test_no_more_is_taken_than_the_pool_has_room_for(bench):
    bench.pool.size = 3
    for tag in range(1, 6):
        bench.send(tag)
    assert bench.turn() == 0.0
    assert sorted(bench.pool.jobs) == [1, 2, 3]
    assert bench.turn() > 0
    bench.pool.end(2)
    bench.turn()
    assert sorted(bench.pool.jobs) == [1, 3, 4]


def test_a_message_that_another_worker_has_taken_is_not_started_here(bench):
    for tag in (1, 2):
        bench.send(tag, "limited")
    bench.turn()
    bench.pool.begin(1)
    bench.consumer.gone = [1, 2]
    bench.turn()
    assert sorted(bench.pool.jobs) == [1]  # it runs: too late to withdraw
    bench.pool.end(1)
    bench.turn()
    assert bench.journal.of("ack") == [1]


def busy(bench, running):
    """A pool of two with four requests, of which these run."""
    bench.pool.size, bench.pool.room = 2, lambda: 10
    for tag in range(1, 5):
        bench.send(tag)
    bench.turn()
    for tag in running:
        bench.pool.begin(tag)
    bench.turn()


def test_what_waits_behind_long_tasks_goes_back_to_its_queue(bench):
    busy(bench, (1, 2))
    bench.clock.advance(1.9)
    bench.turn()
    assert bench.journal == []
    bench.clock.advance(1)
    bench.turn()
    assert bench.journal == [("give_back", 3), ("give_back", 4)]
    assert list(bench.remote.tools.requests) == [1, 2]
    bench.pool.end(1)
    bench.turn()
    assert bench.journal.of("ack") == [1]


def test_what_waits_while_a_process_is_free_or_the_worker_leaves_is_kept(bench):
    busy(bench, (1,))
    bench.clock.advance(3)
    bench.turn()
    bench.pool.begin(2)
    bench.worker.stop()
    bench.clock.advance(3)
    bench.turn()
    assert bench.journal == []
    assert list(bench.remote.tools.requests) == [1, 2, 3, 4]


def test_a_request_revoked_just_before_its_start_is_killed_at_its_start(bench, caplog):
    caplog.set_level("INFO")
    bench.send(1)
    bench.turn()
    (request,) = bench.remote.tools.requests.values()
    request.terminated = 15
    bench.remote.tools.condemn(1, None)
    bench.pool.begin(1)
    bench.turn()
    assert bench.pool.killed == [(1, 15)]
    bench.pool.end(1, KILLED, document=None)
    bench.turn()
    assert bench.journal.of("store") == [("id-1", "REVOKED")]
    assert bench.remote.effects[-1].report.state == REVOKED
    assert "task_terminated" in {getattr(record, "event", None) for record in caplog.records}


def test_a_request_that_remote_control_drops_is_revoked_and_forgotten(bench):
    bench.send(1)
    bench.turn()
    (request,) = bench.remote.tools.requests.values()
    assert bench.pool.withdraw(1)
    bench.remote.tools.drop(request)
    assert not bench.remote.tools.requests
    bench.turn()
    assert bench.journal == [("store", ("id-1", "REVOKED")), ("ack", 1)]
    assert kinds(bench) == [Received, Revoked]


def test_an_unregistered_task_fails(bench):
    bench.send(1, "unknown")
    bench.turn()
    assert bench.journal == [("store", ("id-1", "FAILURE")), ("ack", 1)]
    assert kinds(bench) == [Unregistered]
    assert bench.remote.effects[0].headers.id == "id-1"


def test_a_lost_process_gives_back_a_task_that_wants_it_and_fails_any_other(bench):
    bench.send(1, "keeps")
    bench.send(2)
    bench.turn()
    for tag in (1, 2):
        bench.pool.begin(tag)
        bench.pool.end(tag, LOST, document=None, text="signal 9")
    bench.turn()
    assert bench.journal == [("store", ("id-2", "FAILURE")), ("give_back", 1), ("ack", 2)]


@pytest.mark.parametrize("step", ["tend", "take"])
def test_reports_are_not_lost_when_the_consumer_fails_later_in_the_turn(bench, step):
    bench.send(1)
    bench.turn()
    bench.pool.end(1)
    bench.consumer.away = {step}
    with pytest.raises(BrokerError):
        bench.turn()
    bench.consumer.away.clear()
    bench.turn()
    assert bench.journal == [("store", ("id-1", "SUCCESS")), ("ack", 1)]


def test_messages_go_back_when_the_store_fails_during_admission(bench):
    bench.send(1, headers={"beatd-entry": "e", "beatd-due-at": "2026-01-01T00:00:00+00:00"})
    bench.finished.away = True
    with pytest.raises(StoreUnavailable):
        bench.turn()
    assert not bench.pool.jobs
    bench.finished.away = False
    bench.turn()
    assert bench.journal == [("give_back", 1)]


def test_a_shutdown_waits_for_running_tasks_and_takes_nothing_more(bench):
    bench.send(1)
    bench.turn()
    bench.worker.stop()
    bench.send(2)
    bench.turn()
    assert sorted(bench.pool.jobs) == [1]
    shutdown = bench.worker.shutdown
    assert not shutdown.is_over(busy=True)
    assert shutdown.is_over(busy=False)


def test_a_shutdown_waits_for_unsettled_results_but_not_forever(bench):
    bench.worker.stop()
    shutdown = bench.worker.shutdown
    assert not shutdown.is_over(busy=False, unsettled=True)
    bench.clock.advance(9)
    assert not shutdown.is_over(busy=False, unsettled=True)
    assert shutdown.is_over(busy=False, unsettled=False)
    bench.clock.advance(2)
    assert shutdown.is_over(busy=False, unsettled=True)


def test_the_end_gives_unfinished_messages_back_and_fails_acknowledged_ones(bench):
    bench.send(1)
    bench.send(2, "early")
    bench.turn()
    bench.pool.begin(2)
    bench.turn()
    bench.worker.stop()
    bench.worker.stop()
    assert bench.pool.abandoned
    bench.worker.run()
    assert bench.journal == [
        ("ack", 2),
        ("store", ("id-2", "FAILURE")),
        ("give_back", 1),
        ("stop", None),
    ]


def test_remote_control_is_answered_while_the_broker_is_away_and_a_shutdown_ends_the_pause(bench):
    turns = itertools.count(1)

    def then():
        bench.clock.advance(0.05)
        if next(turns) == 30:
            bench.worker.stop()

    bench.remote.then, bench.remote.turn_in = then, 0.0
    bench.consumer.away = {"take"}
    bench.worker.run()
    assert next(turns) > 30
    assert bench.journal == [("stop", None)]


def test_a_start_that_is_reported_after_the_end_changes_nothing(bench):
    bench.send(1, "early")
    bench.turn()
    bench.pool.end(1)
    bench.turn()
    bench.pool.begin(1)
    bench.turn()
    assert bench.journal == [("store", ("id-1", "SUCCESS")), ("ack", 1)]
    assert kinds(bench) == [Received, Ended]


def test_a_task_that_is_acknowledged_at_its_start_is_not_run_again_by_a_broker_that_was_away(bench):
    """The acknowledgement waits for the broker, and the end of the task does not add another one."""
    bench.send(1, "early")
    bench.turn()
    bench.pool.begin(1)
    bench.consumer.away = {"ack"}
    with pytest.raises(BrokerError):
        bench.turn()
    bench.pool.end(1)
    with pytest.raises(BrokerError):
        bench.turn()
    bench.consumer.away.clear()
    bench.turn()
    assert bench.journal == [("store", ("id-1", "SUCCESS")), ("ack", 1)]


def test_states_of_a_running_task_are_stored_in_order_and_none_after_it_was_given_up(bench):
    bench.send(1)
    bench.turn()
    bench.pool.begin(1)
    progress = Stored("id-1", document("id-1", "PROGRESS", {"done": 1}))
    bench.pool.reports.append(JobReport(1, MEANWHILE, results=[progress]))
    bench.pool.reports.append(JobReport(1, KILLED))
    bench.pool.reports.append(JobReport(1, MEANWHILE, results=[progress]))  # of the abandoned thread
    bench.turn()
    assert bench.journal == [("store", ("id-1", "PROGRESS")), ("store", ("id-1", "FAILURE")), ("ack", 1)]


def test_the_heartbeat_goes_on_while_another_server_keeps_the_worker_waiting(bench, monkeypatch):
    bench.send(1)
    bench.turn()
    bench.pool.end(1)
    bench.results.away = True
    monkeypatch.setattr(bench.consumer, "idle_for", lambda: 0.0)
    bench.remote.then, bench.remote.turn_in = (lambda: bench.clock.advance(1)), 0.0
    bench.worker._turn_or_back_off()
    assert bench.consumer.beats == 1
    bench.consumer.away = {"tend"}
    bench.worker._turn_or_back_off()
    assert bench.consumer.beats == 1, "a broker that is away is not asked twice"


@pytest.mark.parametrize(
    ("task", "fields", "announced"),
    [
        ("late", {}, False),
        ("early", {}, True),
        ("late", {"headers": {"beatd-entry": "e", "beatd-due-at": "2026-11-22T09:00:00.000+00:00"}}, True),
    ],
)
def test_starts_that_somebody_wants_to_know_are_announced(bench, task, fields, announced):
    """A run of the schedule is shown as running, and is not overdue, from its start."""
    bench.send(1, task, **fields)
    bench.turn()
    assert bench.pool.jobs[1].announce is announced


@pytest.fixture
def message():
    route = Route("celery", "", None)
    return FollowUpMessage.of(build("callback", "late"), route)


def test_messages_of_what_a_coroutine_has_left_running_are_published(bench, message):
    bench.app.outgoing.backlog.enter(1)
    bench.pool.reports.append(JobReport(NO_JOB, MEANWHILE, follow_ups=[message]))
    bench.turn()
    assert bench.journal.of("publish") == [("callback", "late")]
    assert bench.app.outgoing.backlog._count == 0


def test_messages_of_a_coroutine_that_was_given_up_are_dropped_and_named(bench, message, caplog):
    bench.app.outgoing.backlog.enter(1)
    bench.pool.reports.append(JobReport(7, MEANWHILE, follow_ups=[message]))
    bench.turn()
    assert bench.journal.of("publish") == []
    assert bench.app.outgoing.backlog._count == 0
    assert "message_dropped" in {getattr(record, "event", None) for record in caplog.records}


def test_messages_go_back_at_the_end_although_the_last_results_cannot_be_stored(bench, caplog):
    for tag in (1, 2):
        bench.send(tag)
    bench.turn()
    bench.pool.end(1)
    bench.results.away = True
    bench.worker.stop()
    bench.worker.stop()
    bench.worker.run()
    assert bench.journal == [("stop", None)]
    (failed,) = [record for record in caplog.records if getattr(record, "event", "") == "worker_stop_failed"]
    assert failed.getMessage().endswith("other workers run their messages again: results: away")
    assert not failed.exc_info
