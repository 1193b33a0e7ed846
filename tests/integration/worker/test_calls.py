"""Calls of functions for one task, in the client and in a process of the pool: counts that repeat. Time is not counted.

They are of Python's functions, redis-py's as well, in the thread that is asked. A bound has a little slack for other
versions of Python; who lowers a count lowers the bound.
"""

import sys
import threading
from collections import Counter
from contextlib import contextmanager

import pytest

from beatd import App
from beatd.message.protocol import build, envelope
from beatd.states import SUCCESS
from beatd.store.client import connect
from beatd.worker.execution.executor import Executor
from beatd.worker.messages import Job
from beatd.worker.pools.prefork_child import ProcessStateGuard


@pytest.fixture
def app(redis_url):
    with App("x", broker=redis_url, backend=redis_url) as app:
        app.task(name="none")(lambda n=0: n)
        yield app


@contextmanager
def counted():
    """Count the calls of this thread within the block, by place and name."""
    calls = Counter()

    def note(frame, event, _):
        if event == "call":
            calls[f"{frame.f_code.co_filename}:{frame.f_code.co_firstlineno} {frame.f_code.co_name}"] += 1

    sys.setprofile(note)
    try:
        yield calls
    finally:
        sys.setprofile(None)


def delay_and_get(app, admin):
    """Calls of ``delay``, and of a ``get`` that first finds nothing and is then told the result."""
    with counted() as of_delay:
        result = app.tasks["none"].delay(1)
    reads = reads_of(admin)
    writer = threading.Thread(target=answer, args=(app, admin, result.id, reads))
    writer.start()
    with counted() as of_get:
        assert result.get(timeout=60, interval=30) == 5
    writer.join()
    assert reads_of(admin) == reads + 1, "the key is read once, when the channel is listened to"
    return of_delay, of_get


def reads_of(admin):
    return admin.info("commandstats").get("cmdstat_get", {}).get("calls", 0)


def answer(app, admin, task_id, reads):
    """Store the result when the client has read that there is none."""
    while reads_of(admin) == reads:
        pass
    app.backend.store_result(task_id, 5, SUCCESS)


def test_calls_of_delay_and_get(app, redis_url):
    with connect(redis_url) as admin:
        delay_and_get(app, admin)  # connects
        of_delay, of_get = delay_and_get(app, admin)
    assert of_delay.total() <= 180, of_delay.most_common()
    assert of_get.total() <= 118, of_get.most_common()


def test_calls_of_a_task_in_a_process(app):
    execute = Executor(app, "w")
    execute.tidy = ProcessStateGuard()
    jobs = [Job(n, envelope(build("none", str(n), (1,)), queue="celery"), "celery") for n in (1, 2)]
    execute(jobs[0], lambda _: None)
    with counted() as of_task:
        report = execute(jobs[1], lambda _: None)
    assert report.state == SUCCESS
    assert of_task.total() <= 70, of_task.most_common()
