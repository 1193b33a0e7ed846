"""States of a task in the order in which it went through them, whichever process stores them."""

from __future__ import annotations

import json

import pytest
import redis

from beatd import App

TASKS = """
import time
from beatd import App
from beatd.exceptions import Ignore

app = App("proj", broker={url!r}, backend={url!r})
app.conf.task_track_started = True

@app.task(bind=True)
def own_state(self, state):
    self.update_state(state=state, meta={{"by": "task"}})
    raise Ignore()

@app.task(bind=True)
async def own_state_async(self, state):
    self.update_state(state=state, meta={{"by": "task"}})
    raise Ignore()

@app.task(bind=True)
def progress(self):
    for step in range(3):
        self.update_state(state="PROGRESS", meta=step)
    return "done"

@app.task(bind=True, max_retries=1)
def fails_on_retry(self):
    if self.request.retries == 0:
        raise self.retry(countdown=0)
    raise KeyError("again")

@app.task
def add(x, y):
    return x + y

@app.task(bind=True)
def replaced(self, x, y):
    return self.replace(add.s(x, y))
"""


@pytest.fixture
def app(tmp_path, redis_url):
    (tmp_path / "proj.py").write_text(TASKS.format(url=redis_url))
    client = App("proj", broker=redis_url, backend=redis_url, set_as_current=False)
    yield client
    client.close()


def start(start_beatd, pool):
    worker = start_beatd("worker", "-A", "proj", "-P", pool, "-c", "4")
    worker.expect(r"ready\.")
    return worker


@pytest.mark.parametrize("pool", ["prefork", "threads", "asyncio", "solo"])
def test_a_state_that_the_task_stores_itself_stays(app, start_beatd, wait_until, pool):
    worker = start(start_beatd, pool)
    names = ["proj.own_state", "proj.own_state_async"]
    results = [app.send_task(name, ("FAILURE" if n % 2 else "HELD",)) for n in range(20) for name in names]
    worker.expect("ignored", times=40)
    expected = [state for state in ("HELD", "FAILURE") * 10 for _ in names]
    wait_until(lambda: [result.state for result in results] == expected, 15, "the states")


def test_progress_does_not_go_back(app, start_beatd, redis_url):
    """Subscribed before the task is sent: a client that subscribes later reads the stored state first."""
    start(start_beatd, "prefork")
    with redis.Redis.from_url(redis_url) as client, client.pubsub(ignore_subscribe_messages=True) as stored:
        stored.psubscribe("celery-task-meta-*")
        stored.get_message(timeout=5)
        for _ in range(10):
            app.send_task("proj.progress").get(timeout=10)
            steps = []
            while ("SUCCESS", "done") not in steps:
                message = stored.get_message(timeout=10)
                assert message, steps
                document = json.loads(message["data"])
                steps.append((document["status"], document["result"]))
            assert [step for step in steps if step[0] != "STARTED"] == [
                *(("PROGRESS", number) for number in range(3)),
                ("SUCCESS", "done"),
            ]
            assert [status for status, _ in steps].index("STARTED") == 0


@pytest.mark.parametrize("pool", ["prefork", "asyncio"])
def test_the_result_of_a_quick_retry_stays(app, start_beatd, pool):
    worker, other = start(start_beatd, pool), start_beatd("worker", "-A", "proj", "-n", "other", "-c", "2")
    other.expect(r"ready\.")
    results = [app.send_task("proj.fails_on_retry") for _ in range(100)]
    for result in results:
        with pytest.raises(KeyError, match="again"):
            result.get(timeout=20)
    worker.expect("retry: Retry in")
    assert {result.state for result in results} == {"FAILURE"}


def test_a_replacement_has_the_last_word(app, start_beatd):
    start(start_beatd, "prefork")
    assert [app.send_task("proj.replaced", (n, 1)).get(timeout=10) for n in range(20)] == list(range(1, 21))
