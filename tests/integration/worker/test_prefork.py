"""The prefork pool's own processes."""

from __future__ import annotations

from beatd import App
from beatd.clock import monotonic, sleep
from beatd.message.protocol import build, envelope
from beatd.worker.execution.executor import Executor
from beatd.worker.messages import Job
from beatd.worker.poller import Poller
from beatd.worker.pools.prefork import PreforkPool
from beatd.worker.pools.prefork_child import ChildLimits


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


def test_what_has_ended_when_the_pool_stops_is_reported():
    app = App("proj", set_as_current=False)
    app.task(len, name="size")
    app.finalize()
    pool = PreforkPool(1, Executor(app, "w@host"))
    pool.start()
    jobs = [Job(tag, envelope(build("size", f"id-{tag}", ("x",)), queue="q"), "q", announce=True) for tag in (1, 2)]
    pool.submit(jobs[:1])
    pool._children[0].send(jobs[1:])
    Poller().until(10, pool.files())
    sleep(0.5)  # both have ended, and nobody has read it
    pool.stop(0.0)
    assert [(report.tag, report.state) for report in pool.collect()] == [
        (1, "STARTED"), (1, "SUCCESS"), (2, "STARTED"), (2, "SUCCESS"),
    ]  # fmt: skip
    assert pool.collect() == []
