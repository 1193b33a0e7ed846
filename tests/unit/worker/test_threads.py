"""Threads and coroutines of the worker's own process."""

from __future__ import annotations

import asyncio
import pickle
import queue
import sys
import threading

import msgspec
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


def end(pool):
    """Stop a pool, and close its event loop: else garbage collection warns of it during another test."""
    pool.stop(1.0)
    if isinstance(pool, AsyncioPool):
        pool._thread.join(10)
        pool._loop.close()


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


def test_a_pool_that_shrinks_and_grows_while_it_is_busy_has_as_many_threads_as_before():
    app, release = App("x", set_as_current=False), {name: threading.Event() for name in ("first", "second", "third")}
    for name, event in release.items():
        app.task(lambda event=event: event.wait(30), name=name)
    app.finalize()
    pool = ThreadPool(2, Executor(app, "w@here"))
    pool.start()
    try:
        pool.submit([job(1, "first"), job(2, "second")])
        pool.shrink()
        pool.grow()
        pool.submit([job(3, "third")])
        release["first"].set()
        assert [report.tag for report in ends(pool, 1)] == [1]
        release["third"].set()
        assert [report.tag for report in ends(pool, 1)] == [3], "it does not wait for the second, which goes on"
    finally:
        for event in release.values():
            event.set()
        pool.stop(5.0)


def test_jobs_that_wait_are_run_at_once_by_a_pool_that_grows():
    over, release = queue.SimpleQueue(), threading.Event()

    def execute(one, _say):
        if one.tag == 1:
            release.wait(30)
        return JobReport(one.tag, "SUCCESS")

    group = ThreadGroup(1, execute, over.put)
    group.submit(job(1))
    group.submit(job(2))
    group.resize(2)
    assert over.get(timeout=10).tag == 2
    group.resize(1)
    release.set()
    assert over.get(timeout=10).tag == 1
    until = monotonic() + 10
    while len(group._threads) > 1 and monotonic() < until:
        pass
    assert len(group._threads) == 1, "the surplus one ends"
    group.submit(job(3))
    assert over.get(timeout=10).tag == 3
    group.stop(monotonic() + 5)


@pytest.mark.parametrize("begun", [True, False])
def test_a_coroutine_that_is_cancelled_by_another_one_fails(begun):
    """As by code that cancels all tasks of the loop: a job without an end would keep its place for ever."""
    app = App("x", set_as_current=False)
    sleeping = threading.Event()

    @app.task(name="sleeps")
    async def sleeps():
        sleeping.set()
        await asyncio.sleep(60)

    @app.task(name="cancels")
    async def cancels():
        if not begun:
            pool._accept([2])  # in the same turn of the loop: the other one has no time to begin
        for one in asyncio.all_tasks():
            one.cancel()
        await asyncio.sleep(60)

    app.finalize()
    pool = AsyncioPool(5, Executor(app, "w@here"))
    pool.start()
    try:
        if begun:
            pool.submit([job(2, "sleeps")])
            assert sleeping.wait(10)
        else:
            pool._held.add(2)
            pool._queued[2] = job(2, "sleeps")
        pool.submit([job(1, "cancels")])
        found = ends(pool, 2)
        assert sorted((report.tag, report.state) for report in found) == [(1, "FAILURE"), (2, "FAILURE")]
        assert all(b"CancelledError" in report.document for report in found)
        assert pool.running_since() == {}
        until = monotonic() + 10
        while pool._tasks and monotonic() < until:
            pass
        assert not pool._tasks, "their places are free"
        assert sleeping.is_set() is begun
    finally:
        end(pool)


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
        end(pool)
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


class Leaving:
    """What ends the thread that unpickles it, as a module that calls ``sys.exit()`` does."""

    def __reduce__(self):
        return sys.exit, (3,)


@pytest.mark.parametrize("kind", [ThreadPool, AsyncioPool])
def test_a_body_that_ends_the_thread_which_reads_it_is_malformed(kind):
    app = App("x", set_as_current=False, accept_content=["json", "pickle"])
    app.task(lambda: 7, name="t")
    app.finalize()
    pool = kind(1, Executor(app, "w@here"))
    pool.start()
    try:
        body = pickle.dumps(([Leaving()], {}, None))
        message = msgspec.structs.replace(
            build("t", "id-1"), body=body, content_type="application/x-python-serialize", content_encoding="binary"
        )
        pool.submit([Job(1, envelope(message, queue="q"), "q"), job(2)])
        assert [(report.tag, report.state) for report in ends(pool, 2)] == [(1, "MALFORMED"), (2, "SUCCESS")]
    finally:
        end(pool)
