"""The tasks for taskiq, on a Redis stream: messages are acknowledged."""

import asyncio
import os

import count
from taskiq_redis import RedisAsyncResultBackend, RedisStreamBroker

results = bool(os.environ.get("BENCH_RESULTS"))
broker = RedisStreamBroker(os.environ["BENCH_REDIS"])
if results:
    broker = broker.with_result_backend(RedisAsyncResultBackend(os.environ["BENCH_REDIS"], result_ex_time=600))


@broker.task
async def noop(n=0):
    count.one_more()
    return n


@broker.task
async def cpu(_n=0):
    count.work()
    count.one_more()


@broker.task
async def nap(_n=0):
    await asyncio.sleep(0.01)
    count.one_more()


_loop = asyncio.new_event_loop()
_started: list[bool] = []


def fill(kind, n):
    async def send():
        await broker.startup()
        task = globals()[kind]
        for _ in range(0, n, 100):
            await asyncio.gather(*(task.kiq(1) for _ in range(100)))
        await broker.shutdown()

    _loop.run_until_complete(send())


def round_trip():
    async def ask():
        if not _started:
            _started.append(True)
            await broker.startup()
        sent = await noop.kiq(1)
        return (await sent.wait_result(check_interval=0.001, timeout=10)).return_value

    assert _loop.run_until_complete(ask()) == 1
