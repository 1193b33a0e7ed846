"""The prefork pool's own processes."""

from __future__ import annotations

from beatd import App
from beatd.worker.execution.executor import Executor
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
