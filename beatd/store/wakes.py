"""The channel on which daemons are told that there is something to look at."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import redis

from beatd.store.client import border
from beatd.store.keys import Keys

CHANGED, ORDERED, ASKED = "changed", "ordered", "asked"
"""Words on the channel: runtime entries or pauses have changed; there is an order; somebody asks for runs."""

Hear = Callable[[float], frozenset[str]]
"""``hear(seconds)``: the words that were said, after the first of them or when the time is over."""


@contextmanager
def listen(client: redis.Redis, keys: Keys, *, timeout: float = 5.0) -> Iterator[Hear]:
    """Listen from now on: what is said after this has yielded is not missed while the connection lasts.

    Raises :class:`~beatd.exceptions.StoreUnavailable` or :class:`~beatd.exceptions.StoreRefused`, also when hearing.
    """
    channel: redis.client.PubSub
    with border(client), client.pubsub(ignore_subscribe_messages=True) as channel:  # type: ignore[no-untyped-call]
        channel.subscribe(keys.wake)
        channel.get_message(timeout=timeout)  # the server's word that we are subscribed

        def hear(seconds: float) -> frozenset[str]:
            words = set()
            with border(client):
                message = channel.get_message(timeout=seconds)
                while message is not None:
                    words.add(message["data"].decode(errors="replace").partition(" ")[0])
                    message = channel.get_message(timeout=0)
            return frozenset(words)

        yield hear
