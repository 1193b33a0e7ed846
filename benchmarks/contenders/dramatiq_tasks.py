"""The tasks for dramatiq."""

import os
import time

import count
import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

broker = RedisBroker(url=os.environ["BENCH_REDIS"])
results = bool(os.environ.get("BENCH_RESULTS"))
if results:
    broker.add_middleware(Results(backend=RedisBackend(url=os.environ["BENCH_REDIS"])))
dramatiq.set_broker(broker)
stored = {"store_results": True} if results else {}


@dramatiq.actor(**stored)
def noop(n=0):
    count.one_more()
    return n


@dramatiq.actor(**stored)
def cpu(_n=0):
    count.work()
    count.one_more()


@dramatiq.actor(**stored)
def nap(_n=0):
    time.sleep(0.01)
    count.one_more()


def fill(kind, n):
    actor = globals()[kind]
    for _ in range(n):
        actor.send(1)


def round_trip():
    assert noop.send(1).get_result(block=True, timeout=10_000) == 1
