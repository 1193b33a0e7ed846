"""How runs ended: where results may be, and waiting for one."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from beatd import broker
from beatd.cli.installation import Installation
from beatd.store.client import connect
from beatd.store.history import Ending, Histories

_LOOK_S = 0.05


@contextmanager
def histories(place: Installation, result_backend: str | None) -> Iterator[Histories]:
    """The histories of an installation, with outcomes that Celery's workers store: in ``result_backend``, on the broker
    if that is a Redis, or in the state store."""
    settings = place.head.settings
    urls = [url for url in (result_backend, settings.broker.url) if url and broker.is_redis(url)]
    with ExitStack() as stack:
        clients = [
            stack.enter_context(connect(broker.redis_url(url), timeout_ms=settings.redis.timeout_ms)) for url in urls
        ]
        yield Histories(place.client, place.keys, results=clients)


def await_ending(known: Histories, run_id: str, seconds: float) -> Ending | None:
    """How a run ended, when it has; ``None`` if it has not within so many seconds."""
    until = time.monotonic() + seconds
    while (ending := known.endings([run_id])[0]) is None and time.monotonic() < until:
        time.sleep(min(_LOOK_S, max(until - time.monotonic(), 0.0)))
    if ending is not None and ending.runtime_ms is None:  # the bundled worker stores a result first, then says the rest
        time.sleep(_LOOK_S)
        ending = known.endings([run_id])[0] or ending
    return ending
