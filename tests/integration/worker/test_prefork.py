"""The prefork pool's own processes."""

from __future__ import annotations

from beatd import App
from beatd.clock import monotonic
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
