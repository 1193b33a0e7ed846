"""How messages come in: Redis natively, every other broker through kombu, behind one small port.

The promise: a message that ``take`` returned is this worker's until it is settled, and comes back to its queue if the
worker is gone before that.
"""

from __future__ import annotations

from collections.abc import Sequence

from beatd.broker import is_redis, redis_url
from beatd.clock import Clock
from beatd.store.keys import Keys
from beatd.worker.consumers.port import Consumer

__all__ = ["Consumer", "open_consumer"]


def open_consumer(url: str, queues: Sequence[str], *, name: str, clock: Clock, prefix: str = "beatd") -> Consumer:
    """A consumer of ``queues`` on the broker at ``url`` for the worker called ``name``. Connects on ``start``."""
    if is_redis(url):
        from beatd.worker.consumers.redis import RedisConsumer  # noqa: PLC0415

        return RedisConsumer(redis_url(url), queues, name=name, clock=clock, keys=Keys(prefix))
    from beatd.worker.consumers.kombu import KombuConsumer  # noqa: PLC0415

    return KombuConsumer(url, queues, clock=clock)
