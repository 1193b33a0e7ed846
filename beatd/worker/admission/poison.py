"""Poison-message detection: a message whose process or worker died three times goes to the dead letters.

The number of deaths travels with the message in the header ``beatd-deaths``; the worker that requeues the message
writes it, so the count outlives any worker. Brokers that requeue messages themselves change no headers: their counts
are in the state store.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from beatd.exceptions import StoreError
from beatd.store.client import Role, connect, translate_errors
from beatd.store.keys import Keys
from beatd.worker.request import Request

log = logging.getLogger("beatd.worker.suspects")

MAX_DEATHS = 3
_ALONE_FROM = MAX_DEATHS - 1
"""From this number of deaths on, a message runs without other suspects, to find the one that kills processes."""
QUARANTINE_MS = 2_000
"""Time for which a suspect is parked while another one runs."""
_KEPT_S = 24 * 3600
_REMEMBERED = 10_000


class DeathCounter:
    """Death counts for brokers without the header: in the server at ``url``, or in the worker's memory."""

    def __init__(self, url: str | None, keys: Keys, role: Role = "state store") -> None:
        self._client = connect(url, name="beatd-worker", role=role) if url else None
        self._keys = keys
        self._own: dict[str, int] = {}

    def add(self, names: Sequence[str], by: int) -> list[int]:
        """Add to the counts of messages, in one call of the store; returns the counts. Raises StoreError."""
        if self._client is None:
            return [self._add_own(name, by) for name in names]
        with translate_errors(self._client), self._client.pipeline(transaction=False) as pipeline:
            for name in names:
                pipeline.incrby(self._keys.deaths(name), by)
                pipeline.expire(self._keys.deaths(name), _KEPT_S)
            return [int(count) for count in pipeline.execute()[::2]]

    def _add_own(self, name: str, by: int) -> int:
        if len(self._own) >= _REMEMBERED and name not in self._own:
            del self._own[next(iter(self._own))]
        self._own[name] = self._own.get(name, 0) + by
        return self._own[name]


class PoisonDetector:
    """Decides about redelivered messages, before they run."""

    def __init__(self, deaths: DeathCounter) -> None:
        self._deaths = deaths
        self._counted: dict[int, str] = {}
        """By tag: requests whose count in the store stands for their run."""
        self._forgiven: list[str] = []
        """Counts of runs that have ended without a death, to be taken back."""
        self._alone: int | None = None
        """The tag of the suspect that runs alone."""

    def sift(self, requests: Sequence[Request]) -> tuple[list[Request], list[Request], list[Request]]:
        """Split requests into those to run, to park for :data:`QUARANTINE_MS`, and to bury. Raises StoreError."""
        counts, alone = self._count(requests), self._alone
        run: list[Request] = []
        later: list[Request] = []
        killers: list[Request] = []
        for request in requests:
            deaths = counts.get(request.delivery.tag, 0)
            if deaths >= MAX_DEATHS:
                self._counted.pop(request.delivery.tag, None)
                killers.append(request)
            elif deaths < _ALONE_FROM:
                run.append(request)
            elif self._alone is None:
                self._alone = request.delivery.tag
                log.warning(
                    "Task %s[%s] was running %d times when its process or worker died: it gets one more attempt, alone",
                    request.name,
                    request.id,
                    deaths,
                    extra={"event": "task_suspected", "task": request.name, "task_id": request.id, "deaths": deaths},
                )
                run.append(request)
            else:
                later.append(request)
        try:
            self._forgive(later)
        except StoreError:  # the caller returns all of them: none runs alone
            self._alone = alone
            for request in requests:
                self._counted.pop(request.delivery.tag, None)
            raise
        return run, later, killers

    def ended(self, tag: int, *, died: bool = False) -> None:
        """Forget a request that has ended; its count is taken back unless its process has ``died``."""
        if tag == self._alone:
            self._alone = None
        name = self._counted.pop(tag, None)
        if name is not None and not died:
            self._forgiven.append(name)

    def forgive(self) -> None:
        """Take back the counts of the runs that ended without a death; a store that is away delays nothing."""
        if not self._forgiven:
            return
        names, self._forgiven = self._forgiven, []
        try:
            self._deaths.add(names, -1)
        except StoreError as error:
            log.warning("The deaths of messages are not counted: %s", error, extra={"event": "deaths_uncounted"})

    def _forgive(self, requests: Sequence[Request]) -> None:
        names = [name for one in requests if (name := self._counted.pop(one.delivery.tag, None)) is not None]
        if names:
            self._deaths.add(names, -1)

    def _count(self, requests: Sequence[Request]) -> dict[int, int]:
        """Return the deaths of redelivered requests by tag; the broker's own deliveries are counted here."""
        deaths: dict[int, int] = {}
        names: dict[int, str] = {}
        for one in requests:
            if not one.headers.redelivered:
                continue
            if one.headers.deaths is not None:
                deaths[one.delivery.tag] = one.headers.deaths
            else:
                names[one.delivery.tag] = f"{one.headers.id}:{one.headers.retries}"
        if names:
            deaths |= zip(names, self._deaths.add(list(names.values()), 1), strict=True)
            self._counted |= names
        return deaths
