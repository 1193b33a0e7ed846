"""The tasks for beatd; messages are acknowledged after the run."""

import os
import time
import uuid

import count

from beatd import App, broker
from beatd.broker import Address, OutgoingMessage
from beatd.message.protocol import build

results = bool(os.environ.get("BENCH_RESULTS"))
app = App("bench", broker=os.environ["BENCH_BROKER"], backend=os.environ["BENCH_REDIS"])
app.conf.task_acks_late = True
app.conf.task_ignore_result = not results


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


@app.task
async def anap(_n=0):
    import asyncio

    await asyncio.sleep(0.01)
    count.one_more()


def fill(kind, n, prefix="beatd_tasks"):
    """Messages as every Celery client makes them: they serve Celery's worker, too."""
    publisher = broker.open(os.environ["BENCH_BROKER"])
    calls = (OutgoingMessage(build(f"{prefix}.{kind}", str(uuid.uuid4()), (1,)), Address("celery")) for _ in range(n))
    while batch := [one for one, _ in zip(calls, range(500), strict=False)]:
        publisher.publish_many(batch)
    publisher.close()


def round_trip():
    assert noop.delay(1).get(timeout=10) == 1
