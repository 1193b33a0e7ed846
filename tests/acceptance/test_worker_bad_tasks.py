"""Tasks that do what no task should: each fails with words that help, and neither worker nor neighbours notice."""

from __future__ import annotations

import os
import re
import signal

import pytest

from beatd import App

TASKS = """
import asyncio, ctypes, logging, os, signal, socket, sys, threading, time
from beatd import App, Request, Task

app = App("proj", broker={url!r}, backend={url!r})
app.conf.result_max_bytes = 1_000_000
opened = []

class Base(BaseException):
    pass

class Unprintable(Exception):
    def __repr__(self):
        raise RuntimeError("no repr")
    __str__ = __repr__

class Locked(Exception):
    def __init__(self, wanted, argument):
        super().__init__(threading.Lock(), wanted)

class Hooks(Task):
    def on_success(self, *args):
        sys.exit("from a hook")

class Requested(Request):
    def on_success(self, *args, **kwargs):
        raise RuntimeError("from a request")

@app.task
def fine(x):
    print("a line of", x)
    return x

@app.task
def exits():
    sys.exit(3)

@app.task
def leaves():
    os._exit(0)

@app.task
def segfaults():
    ctypes.string_at(0)

@app.task
def interrupts():
    raise KeyboardInterrupt

@app.task
def generator_exits():
    raise GeneratorExit

@app.task
def base():
    raise Base("base")

@app.task
def recurses():
    return recurses()

@app.task
def raises_unprintable():
    raise Unprintable(object())

@app.task
def raises_locked():
    raise Locked(1, argument=2)

@app.task
def raises_huge():
    raise ValueError("x" * 5_000_000)

@app.task
def returns_object():
    return object()

@app.task
def returns_cycle():
    cycle = []
    cycle.append(cycle)
    return cycle

@app.task
def returns_huge():
    return "x" * 2_000_000

@app.task
def forks():
    if os.fork() == 0:
        return "child"
    return "parent"

@app.task
def forks_and_exits():
    pid = os.fork()
    if pid == 0:
        sys.exit(7)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

@app.task
def leaves_a_fork_behind():
    pid = os.fork()
    if pid == 0:
        time.sleep(60)
        os._exit(0)
    open("left_behind", "w").write(str(pid))
    os._exit(4)

@app.task
def blocks_signals():
    signal.pthread_sigmask(signal.SIG_BLOCK, range(1, signal.NSIG))

@app.task
def changes_handlers():
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)

@app.task
def sets_an_alarm():
    signal.alarm(1)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)

@app.task
def closes_streams():
    sys.stdout.close()
    sys.stderr.close()

@app.task
def closes_descriptors():
    os.close(1)
    os.close(2)

@app.task
def closes_everything():
    os.closerange(3, 4096)

@app.task
def goes_elsewhere():
    os.chdir("/")
    os.umask(0o777)

@app.task
def where():
    mask = os.umask(0)
    os.umask(mask)
    return [os.getcwd(), mask]

@app.task
def leaks():
    while True:
        opened.append(os.open("/dev/null", os.O_RDONLY))

@app.task(base=Hooks)
def has_a_bad_hook():
    return "done"

@app.task(Request=Requested)
def has_a_bad_request():
    return "done"

@app.task(soft_time_limit=0.3)
def sleeps():
    while True:
        time.sleep(0.01)

@app.task
async def async_exits():
    await asyncio.sleep(0)
    sys.exit(3)

@app.task
async def async_cancels():
    raise asyncio.CancelledError
"""

ALL = ("prefork", "threads", "asyncio", "solo")
MAIN = ("prefork", "solo")
"""Where tasks run in the main thread of a process."""
OWN = ("prefork",)
"""Where tasks run in a process that may die."""

TABLE = [
    ("exits", ALL, "FAILURE", r"SystemExit\(3\)"),
    ("leaves", OWN, "FAILURE", r"WorkerLostError\('Worker exited prematurely: exitcode 0\.'\)"),
    ("segfaults", OWN, "FAILURE", r"WorkerLostError\('Worker exited prematurely: signal 11 \(SIGSEGV\)\.'\)"),
    ("interrupts", ALL, "FAILURE", "KeyboardInterrupt"),
    ("generator_exits", ALL, "FAILURE", "GeneratorExit"),
    ("base", ALL, "FAILURE", "Base"),
    ("recurses", ALL, "FAILURE", "RecursionError"),
    ("raises_unprintable", ALL, "FAILURE", "Unprintable"),
    ("raises_locked", ALL, "FAILURE", "Locked"),
    ("raises_huge", ALL, "FAILURE", "ValueError"),
    ("returns_object", ALL, "FAILURE", "EncodeError.*object"),
    ("returns_cycle", ALL, "FAILURE", "EncodeError"),
    ("returns_huge", ALL, "FAILURE", "EncodeError.*result_max_bytes"),
    ("forks", ALL, "SUCCESS", "parent"),
    ("forks_and_exits", ALL, "SUCCESS", "7"),
    ("leaves_a_fork_behind", OWN, "FAILURE", "WorkerLostError.*exitcode 4"),
    ("blocks_signals", ALL, "SUCCESS", "None"),
    ("changes_handlers", MAIN, "SUCCESS", "None"),
    ("sets_an_alarm", MAIN, "SUCCESS", "None"),
    ("sleeps", ALL, "FAILURE", r"SoftTimeLimitExceeded\(0\.3\)"),
    ("closes_streams", ALL, "SUCCESS", "None"),
    ("closes_descriptors", OWN, "SUCCESS", "None"),
    ("closes_everything", OWN, "FAILURE", "WorkerLostError"),
    ("goes_elsewhere", MAIN, "SUCCESS", "None"),
    ("leaks", OWN, "FAILURE", "OSError"),
    ("has_a_bad_hook", ALL, "SUCCESS", "done"),
    ("has_a_bad_request", ALL, "SUCCESS", "done"),
    ("async_exits", ALL, "FAILURE", r"SystemExit\(3\)"),
    ("async_cancels", ALL, "FAILURE", "CancelledError"),
]


@pytest.fixture
def app(tmp_path, redis_url):
    (tmp_path / "proj.py").write_text(TASKS.format(url=redis_url))
    client = App("proj", broker=redis_url, backend=redis_url)
    yield client
    client.close()


@pytest.mark.parametrize("pool", ALL)
def test_bad_tasks_harm_nobody(app, start_beatd, tmp_path, pool):
    worker = start_beatd("worker", "-A", "proj", "-P", pool, "-c", "1")
    worker.expect(r"ready\.")
    umask = app.send_task("proj.where").get(timeout=20)[1]
    for name, pools, state, pattern in TABLE:
        if pool not in pools:
            continue
        result = app.send_task(f"proj.{name}")
        found = result.get(timeout=20, propagate=False)
        assert (name, result.state) == (name, state)
        assert re.search(pattern, repr(found)), f"{name}: {found!r}"
        assert app.send_task("proj.fine", (name,)).get(timeout=20) == name
        worker.expect(f"a line of {name}$")
    if pool in OWN:  # it holds what its parent had open, and must not hide that this is dead
        os.kill(int((tmp_path / "left_behind").read_text()), signal.SIGKILL)
    assert app.send_task("proj.where").get(timeout=20) == [str(tmp_path), umask]
    assert worker.end(signal.SIGTERM) == 0
    worker.expect(r"Task proj\.fine\[\S+\] succeeded", times=sum(pool in row[1] for row in TABLE))
    worker.expect(r"Request class Requested of task proj\.has_a_bad_request raised")
