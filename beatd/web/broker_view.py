"""View of the broker for the page: workers, queues and dead letters. Readers share one answer for some seconds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from beatd.client.dead_letters import (
    DeadLetterSource,
    Filter,
    Refusal,
    each_place,
    facts,
    grouped,
    matching_letters,
    open_places,
)
from beatd.client.workers import QueueLength, WorkerClient, queue_facts
from beatd.clock import Clock
from beatd.exceptions import BeatdError
from beatd.model import Entry, Settings
from beatd.web.shared import Shared

SHARED_S = 4.0
"""Time for which an answer of workers and queues holds."""


class Letters(NamedTuple):
    """Dead letters that match, how many are like each of them, and how many there are in all."""

    letters: list[dict[str, Any]]
    total: int
    counts: Sequence[int] = ()


class BrokerView:
    """View of the broker. A broker that cannot be asked is a ``problem`` of the document."""

    def __init__(self, file: str, settings: Callable[[], Settings], store_url: Callable[[], str], clock: Clock) -> None:
        self._file = file
        self._settings = settings
        self._store_url = store_url
        self._workers = Shared(self._ask_workers, clock, SHARED_S)
        self._lengths = Shared(self._ask_lengths, clock, SHARED_S)
        self._names: set[str] = set()

    def workers(self) -> dict[str, Any]:
        """The workers that answer, and their running tasks."""
        return self._workers()

    def queues(self, entries: Sequence[Entry]) -> dict[str, Any]:
        """The queues that entries send to and workers take from, and how long they are."""
        settings = self._settings()
        sending = Counter(entry.options.queue or settings.broker.default_queue for entry in entries)
        workers = self.workers()
        self._names = {*sending, *(queue for worker in workers["workers"] for queue in worker["queues"])}
        lengths, problem = self._lengths()
        return {
            "queues": queue_facts(lengths, sending, workers["workers"]),
            "problem": problem or workers["problem"],
        }

    def dead_letters(self, wanted: Filter, limit: int) -> Letters:
        """The dead letters that match, the newest first. Raises ConfigError and StoreError."""
        with open_places(self._file, None, None) as places:
            found = [facts(one) for one in matching_letters(places, wanted, limit)]
            return Letters(found, sum(place.letters.count() for place in places))

    def grouped_letters(self, wanted: Filter, limit: int) -> Letters:
        """Return the dead letters that match in groups of alike ones: the newest of each, and how many there are."""
        with open_places(self._file, None, None) as places:
            groups = grouped(matching_letters(places, wanted, None))[:limit]
            total = sum(place.letters.count() for place in places)
            return Letters([facts(one.newest) for one in groups], total, [one.size for one in groups])

    def requeue(self, wanted: Filter) -> tuple[int, list[Refusal]]:
        """Send dead letters again; returns how many were sent, and the refusals."""
        with open_places(self._file, None, None) as places:
            return each_place(places, wanted, DeadLetterSource.requeue)

    def purge(self, wanted: Filter) -> int:
        """Throw dead letters away; returns how many were there."""
        with open_places(self._file, None, None) as places:
            count, _ = each_place(places, wanted, lambda place, letters: (place.letters.remove(letters), []))
        return count

    def stop(self, run_id: str) -> None:
        """End a run. Raises BrokerError and StoreError."""
        with self._client() as client:
            client.stop(run_id)
        self._workers.forget()

    def _client(self) -> WorkerClient:
        store_url = self._store_url()
        return WorkerClient(self._settings().broker.url or store_url, store_url)

    def _ask_workers(self) -> dict[str, Any]:
        try:
            with self._client() as client:
                return {"workers": client.workers(), "problem": None}
        except BeatdError as error:
            return {"workers": [], "problem": str(error)}

    def _ask_lengths(self) -> tuple[dict[str, QueueLength], str | None]:
        try:
            with self._client() as client:
                return client.lengths(self._names), None
        except BeatdError as error:
            return {}, str(error)
