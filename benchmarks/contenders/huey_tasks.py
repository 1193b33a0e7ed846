"""The tasks for huey. It acknowledges nothing: what a worker has taken when it dies is lost."""

import os
import time

import count
from huey import RedisHuey

results = bool(os.environ.get("BENCH_RESULTS"))
huey = RedisHuey("bench", url=os.environ["BENCH_REDIS"], results=results)


@huey.task()
def noop(n=0):
    count.one_more()
    return n


@huey.task()
def cpu(_n=0):
    count.work()
    count.one_more()


@huey.task()
def nap(_n=0):
    time.sleep(0.01)
    count.one_more()


def fill(kind, n):
    task = globals()[kind]
    for _ in range(n):
        task(1)


def round_trip():
    assert noop(1)(blocking=True, timeout=10, backoff=1, max_delay=0.001) == 1
