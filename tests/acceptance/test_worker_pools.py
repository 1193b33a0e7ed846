"""What every pool can do: coroutines, limits, rates, processes that are replaced, pools that grow and shrink."""

from __future__ import annotations

import signal

import pytest

from beatd import App
from beatd.exceptions import SoftTimeLimitExceeded, TimeLimitExceeded
from beatd.store.keys import Keys

TASKS = """
import asyncio, os, threading, time
import redis
from beatd import App
from beatd.exceptions import SoftTimeLimitExceeded

app = App("proj", broker={url!r}, backend={url!r})
app.conf.worker_autoscale_idle = 1.0
server = redis.Redis.from_url({url!r})
loops = []

@app.task
def add(x, y):
    return x + y

@app.task
def pid():
    return os.getpid()

@app.task(bind=True)
async def who(self, seconds):
    await asyncio.sleep(seconds)
    loops.append(asyncio.get_running_loop())
    return [self.request.id, len(set(loops))]

@app.task(bind=True, max_retries=2)
async def flaky(self):
    await asyncio.sleep(0)
    if self.request.retries < 2:
        raise self.retry(countdown=0.1)
    return self.request.retries

@app.task(autoretry_for=(KeyError,), retry_kwargs={{"countdown": 0.1}})
async def retried():
    await asyncio.sleep(0)
    if server.incr("retried") < 3:
        raise KeyError("again")
    return "done"

@app.task(acks_late=True)
async def together(name):
    server.sadd("together", name)
    while server.scard("together") < 200:
        await asyncio.sleep(0.05)

@app.task(soft_time_limit=0.3)
async def soft(catch):
    try:
        await asyncio.gather(asyncio.sleep(60), asyncio.sleep(60))
    except SoftTimeLimitExceeded:
        if not catch:
            raise
        return "cleaned up"

@app.task(soft_time_limit=0.3)
def soft_sync(catch):
    try:
        while True:
            time.sleep(0.01)
    except SoftTimeLimitExceeded:
        if not catch:
            raise
        return "cleaned up"

@app.task(time_limit=0.5)
async def hard():
    while True:
        try:
            await asyncio.sleep(60)
        except Exception:
            pass

@app.task(time_limit=0.5)
def hard_sync():
    while True:
        try:
            time.sleep(0.05)
        except Exception:
            pass

@app.task(acks_late=True)
def nap(seconds):
    server.incr("napping")
    time.sleep(seconds)

@app.task(rate_limit="10/s", ignore_result=True)
def limited(name):
    server.rpush("limited", f"{{time.monotonic()}}")

@app.task
def eat(megabytes):
    return [os.getpid(), len(b"x" * megabytes * 2**20)]
"""

POOLS = ("prefork", "threads", "asyncio", "solo")


@pytest.fixture
def app(tmp_path, redis_url):
    (tmp_path / "proj.py").write_text(TASKS.format(url=redis_url))
    client = App("proj", broker=redis_url, backend=redis_url)
    yield client
    client.close()


@pytest.fixture
def start_worker(app, start_beatd):
    def start(*options):
        worker = start_beatd("worker", "-A", "proj", "-n", "w1", *options)
        worker.expect(r"ready\.")
        return worker

    return start


def send(app, name, *args, **options):
    return app.send_task(f"proj.{name}", args, **options)


@pytest.mark.parametrize("pool", POOLS)
def test_coroutines_and_limits(start_worker, app, pool):
    worker = start_worker("-P", pool, "-c", "1" if pool == "prefork" else "4")
    found = [send(app, "who", 0, task_id=f"id-{n}").get(timeout=20) for n in range(3)]
    loops = 4 if pool == "threads" else 1  # each thread has one of its own
    assert [name for name, _ in found] == ["id-0", "id-1", "id-2"]
    assert all(number <= loops for _, number in found)
    assert send(app, "flaky").get(timeout=20) == 2
    assert send(app, "retried").get(timeout=20) == "done"
    for name in ("soft", "soft_sync"):
        assert send(app, name, True).get(timeout=20) == "cleaned up"
        with pytest.raises(SoftTimeLimitExceeded, match=r"0\.3"):
            send(app, name, False).get(timeout=20)
    for name in ("hard", "hard_sync"):
        with pytest.raises(TimeLimitExceeded):
            send(app, name).get(timeout=20)
        assert send(app, "add", 2, 3).get(timeout=20) == 5
    assert worker.end(signal.SIGTERM, timeout=15) == 0


def test_asyncio_runs_hundreds_at_once(start_worker, app):
    worker = start_worker("-P", "asyncio", "-c", "200")
    results = [send(app, "together", n) for n in range(200)]
    for result in results:
        result.get(timeout=30)
    assert worker.end(signal.SIGTERM) == 0


def test_a_process_that_is_too_large_is_replaced(start_worker, app):
    worker = start_worker("-c", "1", "--max-memory-per-child", "200000")
    small, still, large = (send(app, "eat", size).get(timeout=20)[0] for size in (1, 1, 300))
    assert small == still == large, "it finishes its task"
    assert send(app, "pid").get(timeout=20) != large
    worker.expect(r"child process exiting after exceeding memory limit \(\d+KiB / 200000KiB\)")


def test_the_pool_scales_with_the_work(start_worker, app, server, wait_until):
    worker = start_worker("--autoscale", "3,1")
    for _ in range(4):
        send(app, "nap", 1.5)
    wait_until(lambda: int(server.get("napping") or 0) >= 3, what="three at work")
    worker.expect("Scaling up")
    wait_until(lambda: server.get("napping") == "4")
    worker.expect("Scaling down", timeout=20)
    assert send(app, "add", 2, 3).get(timeout=20) == 5
    assert worker.end(signal.SIGTERM) == 0


def test_a_rate_limit_holds_up_nobody_else(start_worker, app, server, wait_until):
    start_worker("-c", "2")
    for n in range(120):
        send(app, "limited", n)
    assert send(app, "add", 2, 3).get(timeout=20) == 5
    assert server.llen("limited") < 120
    wait_until(lambda: server.zcard(Keys().workers().parked) > 10, what="messages that wait in the store")
    wait_until(lambda: server.llen("limited") >= 30, timeout=30)
    moments = [float(moment) for moment in server.lrange("limited", 0, 29)]
    assert moments[-1] - moments[0] > 2, "thirty at ten a second"
    wait_until(lambda: server.llen("celery") == 0, what="all of them to be taken")


def test_a_beat_may_run_inside(start_worker, server, tmp_path, wait_until):
    with (tmp_path / "proj.py").open("a") as file:
        file.write("\napp.add_periodic_task(0.5, app.tasks['proj.limited'].s('beat'), name='often')\n")
    worker = start_worker("-c", "1", "-B")
    wait_until(lambda: server.llen("limited") >= 2, timeout=30)
    worker.send(signal.SIGINT)
    assert worker.wait(15) == 0
    worker.expect("beatd stopped")


def test_a_wrong_rate_limit_is_named(tmp_path, start_beatd):
    (tmp_path / "wrong.py").write_text(
        "from beatd import App\napp = App('x')\n@app.task(rate_limit='ten a day')\ndef slow(): ...\n"
    )
    worker = start_beatd("worker", "-A", "wrong")
    assert worker.wait() == 2
    assert "wrong.slow: rate_limit 'ten a day' is no rate limit, expected one like '10/s'" in worker.text
