"""The solo pool between its worker's turns."""

from __future__ import annotations

import pytest

from beatd.message.protocol import build, envelope
from beatd.worker.execution.executor import Executor
from beatd.worker.messages import Job
from beatd.worker.pools.solo import SoloPool


@pytest.fixture
def solo(make_bench):
    def make(**options):
        return make_bench(make_pool=lambda app: SoloPool(Executor(app, "w@here")), **options)

    return make


def job(tag):
    return Job(tag, envelope(build("late", f"id-{tag}"), queue="celery"), "celery")


def test_requests_that_a_rate_limit_frees_together_all_run(solo):
    bench = solo(rates={"late": "20/s"})
    for tag in range(1, 6):
        bench.send(tag)
    for _ in range(12):
        bench.turn()
    assert bench.journal.of("ack") == [1]
    bench.clock.advance(10)  # as during a long task: two tokens at once
    for _ in range(12):
        bench.turn()
    assert bench.journal.of("ack") == [1, 2, 3]
    for _ in range(12):
        bench.clock.advance(0.1)
        bench.turn()
    assert bench.journal.of("ack") == [1, 2, 3, 4, 5]
    assert not bench.worker._requests


def test_a_request_that_is_due_does_not_take_the_place_of_one_just_taken(solo):
    bench = solo(rates={"late": "10/s"})
    for tag in (1, 2):
        bench.send(tag)
    for _ in range(6):
        bench.turn()
    bench.send(3, "early")
    bench.clock.advance(0.2)
    bench.turn()  # takes 3, and 2 is due
    for _ in range(6):
        bench.turn()
    assert sorted(bench.journal.of("ack")) == [1, 2, 3]
    assert not bench.worker._requests


def test_a_due_request_runs_at_once(solo):
    bench = solo(rates={"late": "1/s"})
    for tag in (1, 2):
        bench.send(tag)
    for _ in range(6):
        bench.turn()
    bench.clock.advance(1)
    assert bench.turn() == 0.0


def test_what_has_not_begun_does_not_begin_once_the_pool_is_stopped(solo):
    ran = []
    bench = solo()
    bench.app.tasks["late"].run = ran.append
    bench.pool.submit([job(1), job(2)])
    bench.pool.stop(0.0)
    assert bench.pool.collect() == []
    assert ran == []


def test_jobs_are_withdrawn_one_by_one(solo):
    pool = solo().pool
    pool.submit([job(1), job(2)])
    assert pool.withdraw(1)
    assert not pool.withdraw(1)
    assert [report.tag for report in pool.collect()] == [2]
