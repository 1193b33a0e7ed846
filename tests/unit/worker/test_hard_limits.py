"""Hard time limits: enforced on what runs, once, and not on what has just ended."""

from __future__ import annotations

import pytest

from beatd.exceptions import BrokerError
from beatd.worker.messages import KILLED


def started(bench, tag, task="limited", **fields):
    bench.send(tag, task, **fields)
    bench.turn()
    bench.pool.begin(tag)
    bench.turn()


def test_a_run_is_killed_when_its_limit_is_over_and_not_before(bench):
    started(bench, 1)
    bench.clock.advance(4.9)
    assert bench.turn() == pytest.approx(0.1, abs=0.01)
    assert bench.pool.killed == []
    bench.clock.advance(0.2)
    bench.turn()
    assert [tag for tag, _ in bench.pool.killed] == [1]
    bench.pool.end(1, KILLED, document=None)
    bench.turn()
    assert bench.journal == [("store", ("id-1", "FAILURE")), ("ack", 1)]


def test_a_run_whose_end_takes_some_turns_is_killed_once(bench, caplog):
    started(bench, 1)
    bench.clock.advance(6)
    for _ in range(3):
        bench.turn()
    assert [tag for tag, _ in bench.pool.killed] == [1]
    assert [getattr(record, "event", "") for record in caplog.records].count("task_time_limit") == 1


def test_a_kill_that_came_too_late_leaves_the_next_run_alone(bench):
    """The pool says that nothing ran there any more: the end is on its way, and counts."""
    started(bench, 1)
    bench.clock.advance(6)
    bench.pool.too_late = True
    bench.turn()
    assert bench.pool.killed == []
    bench.pool.too_late = False
    bench.pool.end(1)
    started(bench, 2)
    bench.turn()
    assert bench.pool.killed == []
    assert bench.journal.of("store") == [("id-1", "SUCCESS")]


def test_limits_are_kept_while_the_broker_is_away(bench):
    started(bench, 1)
    bench.clock.advance(6)
    bench.consumer.away = {"tend", "take"}
    with pytest.raises(BrokerError):
        bench.turn()
    assert [tag for tag, _ in bench.pool.killed] == [1]


def test_a_message_may_have_a_limit_of_its_own(bench):
    started(bench, 1, "late", timelimit=[1, None])
    bench.clock.advance(1.1)
    bench.turn()
    assert [tag for tag, _ in bench.pool.killed] == [1]


def test_a_job_that_waits_in_the_pool_has_not_begun_its_time(bench):
    bench.send(1, "limited")
    bench.turn()
    bench.clock.advance(60)
    bench.turn()
    assert bench.pool.killed == []


def test_an_end_that_is_reported_in_the_turn_of_its_limit_counts(bench):
    started(bench, 1)
    bench.clock.advance(6)
    bench.pool.end(1)
    bench.turn()
    assert bench.pool.killed == []
    assert bench.journal.of("store") == [("id-1", "SUCCESS")]


def test_a_tag_whose_request_is_gone_is_not_killed_for_it(bench):
    started(bench, 1)
    bench.pool.end(1)
    bench.turn()
    bench.pool.running[1] = bench.clock.monotonic() - 60  # a run that nobody asked about
    bench.turn()
    assert bench.pool.killed == []


def revoked_in_process(bench, terminated):
    """Have a process get request 1, which is then revoked: with a signal in ``terminated``, or without."""
    bench.send(1)
    bench.turn()
    (request,) = bench.remote.tools.requests.values()
    request.terminated = terminated
    bench.pool.held.add(1)
    bench.remote.tools.condemn(1, None)


def test_what_was_terminated_before_it_began_is_ended_when_it_runs_also_if_nobody_reports_its_start(bench):
    revoked_in_process(bench, terminated=15)
    assert bench.turn() <= 0.1, "it may begin at any moment"
    assert bench.pool.killed == []
    bench.pool.running[1] = bench.clock.monotonic()
    for _ in range(2):
        bench.turn()
    assert bench.pool.killed == [(1, 15)]
    bench.pool.end(1, KILLED, document=None)
    bench.turn()
    assert bench.journal == [("store", ("id-1", "REVOKED")), ("ack", 1)]


@pytest.mark.parametrize("terminated", [None, 15])
def test_what_was_revoked_while_a_process_had_it_is_dropped_when_that_gives_it_back(bench, terminated):
    revoked_in_process(bench, terminated)
    bench.turn()
    assert bench.journal == []
    bench.pool.held.clear()
    bench.turn()
    assert bench.pool.withdrawn == [1]
    assert bench.journal == [("store", ("id-1", "REVOKED")), ("ack", 1)]
    assert bench.turn() > 0.1


def test_a_run_that_was_given_back_as_it_got_its_signal_gets_another_one_when_it_runs(bench):
    """A process looks if its next job was recalled when the job counts as running already."""
    revoked_in_process(bench, terminated=15)
    bench.pool.running[1] = bench.clock.monotonic()
    bench.turn()
    del bench.pool.running[1]
    bench.turn()
    assert bench.pool.killed == [(1, 15)]
    bench.clock.advance(1)
    bench.pool.running[1] = bench.clock.monotonic()
    for _ in range(2):
        bench.turn()
    assert bench.pool.killed == [(1, 15), (1, 15)]


def test_a_revoked_request_that_has_begun_goes_on_if_it_is_not_terminated(bench):
    bench.send(1)
    bench.turn()
    bench.pool.held.add(1)
    bench.remote.tools.condemn(1, None)
    bench.pool.begin(1)
    bench.turn()
    bench.pool.end(1)
    bench.turn()
    assert bench.pool.killed == []
    assert bench.journal.of("store") == [("id-1", "SUCCESS")]


def test_what_was_terminated_and_never_ran_is_forgotten(bench):
    for tag in (1, 2):
        bench.send(tag)
    bench.turn()
    for tag in (1, 2):
        bench.remote.tools.condemn(tag, None)
    assert bench.pool.withdraw(1)
    bench.remote.tools.drop(bench.remote.tools.requests[1])
    bench.consumer.gone = [2]
    bench.turn()
    assert bench.turn() > 0.1
