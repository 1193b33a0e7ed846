"""The prefork pool's own processes."""

from __future__ import annotations

import json
import logging
import math
import os
import signal
import sys
import time

import pytest

from beatd import App, signals
from beatd.clock import monotonic, sleep
from beatd.log_format import JsonFormatter
from beatd.message.protocol import build, envelope
from beatd.worker.execution.executor import Executor
from beatd.worker.messages import SKIPPED, Job
from beatd.worker.poller import Poller
from beatd.worker.pools import prefork_child
from beatd.worker.pools.prefork import PreforkPool
from beatd.worker.pools.prefork_child import ChildLimits, SharedStatus


def test_a_pool_that_was_stopped_has_no_processes_and_starts_none():
    pool = PreforkPool(
        2, Executor(App("proj", set_as_current=False), "w@host"), in_child=lambda _: None, limits=ChildLimits()
    )
    pool.start()
    assert len(pool.pids()) == 2
    pool.stop(5.0)
    assert pool.collect() == []
    assert pool.pids() == []


def test_a_large_job_is_written_as_fast_as_the_process_reads():
    app = App("proj", set_as_current=False)
    app.task(len, name="size")
    app.finalize()
    pool = PreforkPool(1, Executor(app, "w@host"))
    pool.start()
    poller, begun, reports = Poller(), monotonic(), []
    try:
        pool.submit([Job(1, envelope(build("size", "id", ("x" * 5_000_000,)), queue="q"), "q")])
        assert pool.unsent(), "it is larger than a socket's buffer"
        while not reports and monotonic() - begun < 30:
            poller.until(30, pool.files(), pool.unsent())
            reports += pool.collect()
    finally:
        pool.stop(5.0)
    assert [report.state for report in reports] == ["SUCCESS"]
    assert not pool.unsent()
    assert monotonic() - begun < 30, "no wait was longer than the process needed"


def test_what_has_ended_when_the_pool_stops_is_reported(wait_until):
    app = App("proj", set_as_current=False)
    app.task(len, name="size")
    app.finalize()
    pool = PreforkPool(1, Executor(app, "w@host"))
    pool.start()
    jobs = [Job(tag, envelope(build("size", f"id-{tag}", ("x",)), queue="q"), "q", announce=True) for tag in (1, 2)]
    pool.submit(jobs[:1])
    pool._children[0].send(jobs[1:])
    board = pool._children[0].board
    wait_until(lambda: board.begun_task() == 2 and board.read() is None, what="the ends of both, which nobody reads")
    pool.stop(0.0)
    assert [(report.tag, report.state) for report in pool.collect()] == [
        (1, "STARTED"), (1, "SUCCESS"), (2, "STARTED"), (2, "SUCCESS"),
    ]  # fmt: skip
    assert pool.collect() == []


@pytest.fixture
def pool():
    """A pool of one process whose task sleeps, or ends its process."""
    app = App("proj", set_as_current=False)
    app.task(time.sleep, name="sleep")
    app.task(lambda: os.kill(os.getpid(), signal.SIGKILL), name="die")
    app.finalize()
    pool = PreforkPool(1, Executor(app, "w@host"))
    pool.start()
    yield pool
    pool.stop(0.0)


def job(tag, task, *args, announce=True):
    return Job(tag, envelope(build(task, f"id-{tag}", args), queue="q"), "q", announce=announce)


def reports_until(pool, state):
    """The reports of a pool up to one with this state; it is asked when it wants to be, and when it has something."""
    poller, reports, until = Poller(), [], monotonic() + 30
    while not any(report.state == state for report in reports) and monotonic() < until:
        poller.until(min(pool.look_in(), 10.0), pool.files())
        reports += pool.collect()
    return [(report.tag, report.state) for report in reports]


def test_the_start_of_a_task_is_reported_while_it_runs_and_once(pool):
    assert pool.look_in() == math.inf
    pool.submit([job(1, "sleep", 60)])
    assert pool.look_in() < 0.1
    assert reports_until(pool, "STARTED") == [(1, "STARTED")]
    assert pool.look_in() == math.inf, "its end will come by itself"
    assert pool.collect() == []


def test_a_start_that_nobody_wants_to_know_is_not_looked_for(pool):
    pool.submit([job(1, "sleep", 0.1, announce=False)])
    assert pool.look_in() == math.inf
    assert reports_until(pool, "SUCCESS") == [(1, "SUCCESS")]


def test_a_task_that_ends_its_process_has_begun_and_is_lost(pool):
    pool.submit([job(1, "die")])
    assert reports_until(pool, "LOST") == [(1, "STARTED"), (1, "LOST")]


def test_a_message_that_cannot_be_opened_has_not_begun(pool):
    pool.submit([Job(1, b"{}", "q", announce=True)])
    assert reports_until(pool, "MALFORMED") == [(1, "MALFORMED")]


def test_a_task_that_runs_when_the_pool_is_stopped_has_begun(pool, wait_until):
    pool.submit([job(1, "sleep", 60)])
    wait_until(lambda: pool._children[0].board.begun_task() == 1, what="the message to be opened")
    pool.stop(0.0)
    assert [(report.tag, report.state) for report in pool.collect()] == [(1, "STARTED")]


def test_a_process_that_a_receiver_ends_at_its_start_is_named_and_replaced(tmp_path):
    log, tried = logging.FileHandler(tmp_path / "log"), tmp_path / "tried"
    log.setFormatter(JsonFormatter())

    def check_device(**_):
        if not tried.exists():
            tried.touch()
            sys.exit("no device")

    app = App("proj", set_as_current=False)
    app.task(len, name="size")
    app.finalize()
    pool = PreforkPool(
        1, Executor(app, "w@host"), in_child=lambda _number: signals.worker_process_init.send(sender=None)
    )
    logging.getLogger().addHandler(log)
    signals.worker_process_init.connect(check_device)
    try:
        pool.start()
        pool.submit([job(1, "size", "x", announce=False)])
        assert reports_until(pool, "SUCCESS") == [(1, "SUCCESS")], "the next process has run it"
    finally:
        signals.worker_process_init.disconnect(check_device)
        logging.getLogger().removeHandler(log)
        log.close()
        pool.stop(0.0)
    (said,) = map(json.loads, (tmp_path / "log").read_text().splitlines())
    assert (said["event"], said["level"], said["message"]) == (
        "pool_process_failed", "error", "Process of the pool failed"
    )  # fmt: skip
    assert "in check_device" in said["trace"]
    assert said["trace"].endswith("SystemExit: no device")


def test_a_job_is_never_seen_with_the_start_of_an_earlier_one():
    """Else its time limit would be over at once."""
    board, begun = SharedStatus(), monotonic()
    if not (pid := os.fork()):
        while True:  # jobs without an end
            board.begin(1)
            board.end()
    seen, oldest = 0, begun
    try:
        while seen < 300_000:
            if (now := board.read()) is not None:
                seen, oldest = seen + 1, min(oldest, now[1])
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        board.close()
    assert oldest >= begun


def test_a_job_that_comes_back_to_its_process_runs_once(tmp_path, monkeypatch):
    """It was recalled behind a long one, and the process says only after it has got it again that it had skipped it."""
    app = App("proj", set_as_current=False)

    @app.task(name="run")
    def run(name, seconds):
        with (tmp_path / "runs").open("a") as file:
            file.write(f"{name}\n")
        sleep(seconds)

    app.finalize()
    send = prefork_child._send

    def send_late(link, report):
        if report.state == SKIPPED:
            sleep(0.5)
        send(link, report)

    monkeypatch.setattr(prefork_child, "_send", send_late)
    pool, poller, ended, begun = PreforkPool(1, Executor(app, "w@host")), Poller(), [], monotonic()
    pool.start()
    try:
        jobs = [
            Job(tag, envelope(build("run", f"id-{tag}", (name, seconds)), queue="q"), "q")
            for tag, name, seconds in ((1, "long", 1.0), (2, "short", 0.0), (3, "last", 0.0))
        ]
        pool._children[0].send(jobs[:2])  # as if the tasks before had been short
        while len(ended) < 2 and monotonic() - begun < 30:
            poller.until(0.05, pool.files())
            ended += pool.collect()
        pool.submit(jobs[2:])
        while len(ended) < 3 and monotonic() - begun < 30:
            poller.until(0.05, pool.files())
            ended += pool.collect()
    finally:
        pool.stop(5.0)
    assert [report.tag for report in ended] == [1, 2, 3]
    assert (tmp_path / "runs").read_text().split() == ["long", "short", "last"]
