"""Messages that kill whoever runs them: each gets three chances, and takes nobody with it at the last.

How often a message was in the hands of a process or worker when that died travels with it in the header
``beatd-deaths``, written by whoever puts it back; so the count outlives any worker. Brokers that put messages back by
themselves change no headers: for these it is kept in the state store.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from beatd.exceptions import StoreError
from beatd.store.client import connect, translate_errors
from beatd.store.keys import Keys
from beatd.worker.request import Request

log = logging.getLogger("beatd.worker.suspects")

MAX_DEATHS = 3
_ALONE_FROM = MAX_DEATHS - 1
"""So many deaths may be its neighbours' doing: before it is condemned it runs without company of its kind."""
QUARANTINE_MS = 2_000
"""How long one that has to run alone steps aside for another such."""
_KEPT_S = 24 * 3600
_REMEMBERED = 10_000


class DeathCounter:
    """Counts for brokers that keep none: in the state store at ``url``, or without one in this worker's memory."""

    def __init__(self, url: str | None, keys: Keys) -> None:
        self._client = connect(url, name="beatd-worker") if url else None
        self._keys = keys
        self._own: dict[str, int] = {}

    def add(self, name: str, by: int) -> int:
        """Count for the message of that name; returns its count."""
        if self._client is None:
            if len(self._own) >= _REMEMBERED:
                del self._own[next(iter(self._own))]
            self._own[name] = self._own.get(name, 0) + by
            return self._own[name]
        key = self._keys.deaths(name)
        with translate_errors(self._client), self._client.pipeline(transaction=False) as pipeline:
            pipeline.incrby(key, by)
            pipeline.expire(key, _KEPT_S)
            return int(pipeline.execute()[0])


class PoisonDetector:
    """Decides about messages that have come back, before they run."""

    def __init__(self, deaths: DeathCounter) -> None:
        self._deaths = deaths
        self._counted: dict[int, str] = {}
        """By tag: requests that are counted in the store for as long as they run."""
        self._alone: int | None = None
        """The tag of the one that runs alone."""

    def sift(self, requests: Sequence[Request]) -> tuple[list[Request], list[Request], list[Request]]:
        """Requests to be run, to be put aside for :data:`QUARANTINE_MS`, and to be buried. Raises StoreError."""
        run: list[Request] = []
        later: list[Request] = []
        killers: list[Request] = []
        for request in requests:
            deaths = self._deaths_of(request) if request.headers.redelivered else 0
            if deaths >= MAX_DEATHS:
                killers.append(request)
            elif deaths < _ALONE_FROM:
                run.append(request)
            elif self._alone is None:
                self._alone = request.delivery.tag
                log.warning(
                    "Task %s[%s] was running %d times when its process or worker died: its last chance",
                    request.name,
                    request.id,
                    deaths,
                    extra={"event": "task_suspected", "task": request.name, "task_id": request.id, "deaths": deaths},
                )
                run.append(request)
            else:
                self.forgive(request)
                later.append(request)
        return run, later, killers

    def ended(self, tag: int) -> None:
        """That one has ended, in whatever way."""
        if tag == self._alone:
            self._alone = None
        self._counted.pop(tag, None)

    def forgive(self, request: Request) -> None:
        """That one is given back by a worker that lives: it is not to blame."""
        name = self._counted.pop(request.delivery.tag, None)
        if name is not None:
            self._deaths.add(name, -1)

    def _deaths_of(self, request: Request) -> int:
        headers = request.headers
        if headers.deaths is not None:
            return headers.deaths
        name = f"{headers.id}:{headers.retries}"
        self._counted[request.delivery.tag] = name
        return self._deaths.add(name, 1)


def try_forgive(poison: PoisonDetector, requests: Sequence[Request]) -> None:
    """:meth:`PoisonDetector.forgive` for a worker that leaves: a store that is away must not keep it."""
    try:
        for request in requests:
            poison.forgive(request)
    except StoreError as error:
        log.warning("Cannot count in the state store: %s", error, extra={"event": "deaths_uncounted"})
