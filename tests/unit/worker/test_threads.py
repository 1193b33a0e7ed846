"""Threads and coroutines of the worker's own process."""

from __future__ import annotations

import asyncio
import queue
import threading

import pytest

from beatd import App
from beatd.clock import monotonic
from beatd.message.protocol import build, envelope
from beatd.worker.execution.call import _Alarms
from beatd.worker.execution.executor import Executor
from beatd.worker.messages import Job, JobReport, is_end
from beatd.worker.poller import Poller
from beatd.worker.pools.asyncio_pool import AsyncioPool
from beatd.worker.pools.threads import ThreadGroup, ThreadPool


def job(tag, task="t"):
    return Job(tag, envelope(build(task, f"id-{tag}"), queue="q"), "q")


def ends(pool, count):
    """Wait for the ends of ``count`` jobs; returns them."""
    found, until, poller = [], monotonic() + 10, Poller()
    while len(found) < count and monotonic() < until:
        poller.until(0.1, pool.files())
        found += [report for report in pool.collect() if is_end(report)]
    return found


class LateQueue(queue.SimpleQueue):
    """A queue whose reader finds nothing just before a job is put into it."""

    def __init__(self):
        super().__init__()
        self.between = lambda: None

    def get_nowait(self):
        try:
            return super().get_nowait()
        except queue.Empty:
            between, self.between = self.between, lambda: None
            between()
            raise


def test_a_job_that_comes_while_a_thread_looks_for_one_counts_no_thread_twice():
    """Else a later job waits for a busy thread although another one could be started."""
    release, over = threading.Event(), queue.SimpleQueue()

    def execute(one, _say):
        if one.tag != 1:
            release.wait(10)
        return JobReport(one.tag, "SUCCESS")

    group = ThreadGroup(3, execute, over.put)
    group._jobs = jobs = LateQueue()
    second, met = threading.Thread(target=lambda: group.submit(job(2))), threading.Event()

    def submit_meanwhile():
        second.start()
        met.set()
        second.join(0.3)  # waits until the thread is counted, or has put its job already

    jobs.between = submit_meanwhile
    group.submit(job(1))
    assert over.get(timeout=10).tag == 1
    assert met.wait(10)
    second.join(10)
    group.submit(job(3))
    group.submit(job(4))
    until = monotonic() + 5
    while len(group.running_since()) < 3 and monotonic() < until:
        pass
    assert sorted(group.running_since()) == [2, 3, 4]
    release.set()
    group.stop(monotonic() + 5)


@pytest.fixture
def pool():
    app = App("x", set_as_current=False)
    app.task(lambda: 7, name="t")
    app.finalize()
    made = ThreadPool(2, Executor(app, "w@here"))
    made.start()
    yield made
    made.stop(1.0)


def test_a_thread_that_the_system_refuses_is_started_later(pool, monkeypatch, caplog):
    def refuse(_thread):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as refusing:
        refusing.setattr(threading.Thread, "start", refuse)
        pool.submit([job(1)])
    assert "pool_thread_failed" in {getattr(record, "event", None) for record in caplog.records}
    assert [report.tag for report in ends(pool, 1)] == [1]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("how", ["task", "callback", "stop"])
def test_code_of_a_task_that_ends_the_event_loop_ends_no_other_task(how, caplog):
    app = App("x", set_as_current=False)

    async def leave():
        raise SystemExit(3)

    def leave_at_once():
        raise SystemExit(3)

    @app.task(name="leaves")
    async def leaves():
        loop = asyncio.get_running_loop()
        match how:
            case "task":
                await asyncio.wait([loop.create_task(leave())])
            case "callback":
                loop.call_soon(leave_at_once)
            case "stop":
                loop.stop()
        await asyncio.sleep(0.05)
        return "over"

    @app.task(name="t")
    async def sleeps():
        await asyncio.sleep(0.1)
        return "slept"

    app.finalize()
    pool = AsyncioPool(5, Executor(app, "w@here"))
    pool.start()
    try:
        pool.submit([job(1), job(2, "leaves"), job(3)])
        assert sorted((report.tag, report.state) for report in ends(pool, 3)) == [
            (1, "SUCCESS"), (2, "SUCCESS"), (3, "SUCCESS"),
        ]  # fmt: skip
        pool.submit([job(4)])
        assert [report.tag for report in ends(pool, 1)] == [4]
    finally:
        pool.stop(1.0)
    logged = "event_loop_interrupted" in {getattr(record, "event", None) for record in caplog.records}
    assert logged is (how != "stop")


def test_a_limit_without_end_keeps_no_other_from_being_kept():
    alarms, rung = _Alarms(), threading.Event()
    cancel = alarms.after(1e300, lambda: None)
    alarms.after(0.05, rung.set)
    assert rung.wait(5)
    cancel()
    rung.clear()
    alarms.after(0.05, rung.set)
    assert rung.wait(5)
