"""The tasks for saq. It stores a result for every job."""

import asyncio
import os

import count
from saq import Queue

queue = Queue.from_url(os.environ["BENCH_REDIS"])


async def noop(_ctx, n=0):
    count.one_more()
    return n


async def cpu(_ctx):
    count.work()
    count.one_more()


async def nap(_ctx):
    await asyncio.sleep(0.01)
    count.one_more()


settings = {
    "queue": queue,
    "functions": [noop, cpu, nap],
    "concurrency": int(os.environ.get("BENCH_CONCURRENCY", "10")),
}
_loop = asyncio.new_event_loop()


def fill(kind, n):
    async def send():
        for _ in range(0, n, 100):
            await asyncio.gather(*(queue.enqueue(kind) for _ in range(100)))

    _loop.run_until_complete(send())


def round_trip():
    assert _loop.run_until_complete(queue.apply("noop", n=1)) == 1
