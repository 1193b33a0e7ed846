"""Callbacks while the broker is away: no event loop waits for it, and they are sent when it is back."""

from __future__ import annotations

import pytest
import redis

from beatd import App

TASKS = """
import asyncio, os
from beatd import App
app = App("proj", broker={broker!r}, backend={backend!r})

def note(name, text):
    with open(name, "a") as file:
        file.write(text + "\\n")

@app.task
async def tick():
    while not os.path.exists("stop"):
        note("ticks", "one")
        await asyncio.sleep(0.02)

@app.task
async def add(x, y):
    while not os.path.exists("go"):
        await asyncio.sleep(0.02)
    return x + y

@app.task
async def flood():
    sent = refused = 0
    while not refused or not os.path.exists("go"):
        try:
            done.delay("late")
            sent += 1
        except done.OperationalError as error:
            refused += 1
            note("refused", repr(error))
        await asyncio.sleep(0.1)
    note("sent", str(sent))

@app.task
def done(value):
    note("done", str(value))
"""


def read(path):
    return path.read_text().split() if path.exists() else []


@pytest.fixture
def goes_on(tmp_path, wait_until):
    """``goes_on()``: wait for so many ticks of the event loop as take two seconds at least."""

    def goes_on():
        before = len(read(tmp_path / "ticks"))
        wait_until(lambda: len(read(tmp_path / "ticks")) >= before + 100, 30, "the event loop to go on")

    return goes_on


@pytest.fixture
def start(tmp_path, redis_url, start_beatd):
    """``worker, app = start(broker, pool, concurrency)``: a worker that is ready, and a client."""
    apps = []

    def start(broker, pool, concurrency):
        (tmp_path / "proj.py").write_text(TASKS.format(broker=broker.url, backend=redis_url))
        worker = start_beatd("worker", "-A", "proj", "-P", pool, "-c", str(concurrency))
        worker.expect(r"ready\.")
        apps.append(App("client", broker=broker.url, backend=redis_url, set_as_current=False))
        return worker, apps[-1]

    yield start
    for app in apps:
        app.close()


@pytest.mark.parametrize("pool", ["asyncio", "threads", "prefork"])
def test_a_callback_waits_for_the_broker_and_keeps_no_task_waiting(
    tmp_path, start_server, start, wait_until, goes_on, pool
):
    broker = start_server()
    worker, app = start(broker, pool, 3)
    result = app.signature("proj.add", (1, 2)).apply_async(link=app.signature("proj.done"))
    app.signature("proj.tick").apply_async()
    wait_until(lambda: len(read(tmp_path / "ticks")) > 5)
    broker.pause()
    try:
        (tmp_path / "go").touch()
        worker.expect(r"proj\.add\[.*succeeded")
        goes_on()  # while the broker does not answer
        assert not read(tmp_path / "done")
    finally:
        broker.resume()
    wait_until(lambda: read(tmp_path / "done"), 20)
    assert result.get(timeout=10) == 3
    (tmp_path / "stop").touch()
    wait_until(lambda: worker.find(r"proj\.tick\[.*succeeded"), 20)
    assert read(tmp_path / "done") == ["3"]


def test_a_hundred_callbacks_without_a_broker_do_not_hold_up_the_event_loop(
    tmp_path, start_server, start, wait_until, goes_on
):
    broker = start_server()
    worker, app = start(broker, "asyncio", 200)
    for n in range(100):
        app.signature("proj.add", (n, 0)).apply_async(link=app.signature("proj.done"))
    app.signature("proj.tick").apply_async()
    worker.expect(r"proj\.add\[.*received", times=100)
    wait_until(lambda: len(read(tmp_path / "ticks")) > 5)
    broker.pause()
    try:
        (tmp_path / "go").touch()
        worker.expect(r"proj\.add\[.*succeeded", times=100)
        goes_on()  # a loop that publishes, or waits for the broker, would stand still
    finally:
        broker.resume()
    wait_until(lambda: len(read(tmp_path / "done")) == 100, 30)
    (tmp_path / "stop").touch()
    wait_until(lambda: worker.find(r"proj\.tick\[.*succeeded"), 20)
    assert sorted(map(int, read(tmp_path / "done"))) == list(range(100))


def test_a_broker_that_is_killed_and_comes_back_gets_the_rest_of_a_chain(tmp_path, start_server, start, wait_until):
    broker = start_server("--appendonly", "yes")
    worker, app = start(broker, "asyncio", 3)
    (app.signature("proj.add", (1, 2)) | app.signature("proj.done")).apply_async()
    worker.expect(r"proj\.add\[.*received")
    with redis.Redis.from_url(broker.url) as client:
        wait_until(lambda: not client.keys("*unacked*"), what="the acknowledgement")
    broker.kill()
    (tmp_path / "go").touch()
    worker.expect(r"proj\.add\[.*succeeded")
    worker.expect(r"A server is away")
    broker.start()
    wait_until(lambda: read(tmp_path / "done"), 20)


def test_a_coroutine_that_sends_without_a_broker_is_told_so_and_what_it_has_sent_arrives(
    tmp_path, start_server, start, wait_until
):
    broker = start_server("--appendonly", "yes")
    _worker, app = start(broker, "asyncio", 3)
    app.send_task("proj.flood")
    wait_until(lambda: read(tmp_path / "done"), 20)
    broker.kill()
    wait_until(lambda: read(tmp_path / "refused"), 40)
    broker.start()
    (tmp_path / "go").touch()
    wait_until(lambda: read(tmp_path / "sent"), 20)
    sent = int(read(tmp_path / "sent")[0])
    wait_until(lambda: len(read(tmp_path / "done")) >= sent, 40)
    assert "the worker cannot publish" in (tmp_path / "refused").read_text()
