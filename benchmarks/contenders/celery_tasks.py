"""The tasks for Celery; messages are acknowledged after the run."""

import os
import time

import count
from celery import Celery

app = Celery("bench", broker=os.environ["BENCH_BROKER"], backend=os.environ["BENCH_REDIS"])
app.conf.task_acks_late = True
app.conf.task_ignore_result = not os.environ.get("BENCH_RESULTS")


@app.task
def noop(n=0):
    count.one_more()
    return n


@app.task
def cpu(_n=0):
    count.work()
    count.one_more()


@app.task
def nap(_n=0):
    time.sleep(0.01)
    count.one_more()


def fill(kind, n):
    from beatd_tasks import fill

    fill(kind, n, prefix="celery_tasks")


@app.task
def size(data):
    return len(data)


def large(megabytes):
    data = "x" * (megabytes << 20)
    began = time.perf_counter()
    assert size.delay(data).get(timeout=60) == len(data)
    return time.perf_counter() - began


def round_trip():
    assert noop.delay(1).get(timeout=10) == 1
