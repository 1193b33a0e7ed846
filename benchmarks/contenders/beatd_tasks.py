"""The tasks for beatd; messages are acknowledged after the run."""

import itertools
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
    while batch := list(itertools.islice(calls, 500)):
        assert not publisher.publish_many(batch)
    publisher.close()


def fill_runs(kind, n, entries=1_000):
    """Messages of the schedule's runs, ``entries`` of them due at a time, with their histories."""
    from beatd.beat.message_builder import MessageBuilder
    from beatd.model import Entry, Run
    from beatd.schedules import every
    from beatd.store import history
    from beatd.store.client import connect
    from beatd.store.keys import Keys

    schedule, messages = every("1s"), MessageBuilder("celery")
    named = [Entry(name=f"entry-{i}", task=f"beatd_tasks.{kind}", schedule=schedule) for i in range(entries)]
    known = Keys().shard().fingerprints
    begun = int(time.time() * 1000)  # each time others: a run that has ended is not run again
    with connect(os.environ["BENCH_REDIS"]) as client:
        client.hset(known, mapping={entry.name: "0 every" for entry in named})
        for at in range(0, n, entries):
            due = begun + at // entries
            pipeline, cell = client.pipeline(transaction=False), history.run_cell(history.SENT, due, due, due)
            for entry in named[: n - at]:
                pipeline.append(Keys().history(entry.name), cell)
                run = Run(entry, due, due, schedule, None, due - 1)
                pipeline.lpush("celery", messages.render(run, None))
            pipeline.execute()


@app.task
def size(data):
    return len(data)


def large(megabytes):
    """Seconds for a task with an argument of that size, from the call to its result."""
    data = "x" * (megabytes << 20)
    began = time.perf_counter()
    assert size.delay(data).get(timeout=60) == len(data)
    return time.perf_counter() - began


def round_trip():
    assert noop.delay(1).get(timeout=10) == 1
