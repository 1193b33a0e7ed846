"""View of the state store for the page: every read is bounded, and readers share one answer for half a second."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from beatd.client.entries import waiting_runs
from beatd.client.outcomes import EntryOutcome, OutcomeReader, RunDetail
from beatd.clock import Clock
from beatd.exceptions import StoreError, StoreUnavailable
from beatd.model import Entry, EntryState, RedisSettings
from beatd.planning.overdue import Bounds
from beatd.store.audit import Audit, AuditRecord, audit_record
from beatd.store.client import connect
from beatd.store.daemon_registry import Registry, Sizes
from beatd.store.entry_state import EntryStates
from beatd.store.held_back import HeldBack, HeldBackEntry
from beatd.store.history import RecordFilter
from beatd.store.history_reader import Histories, Totals
from beatd.store.keys import Keys
from beatd.store.outage import OutageWatch
from beatd.store.outcomes import Summary
from beatd.store.pipeline import joint_reads
from beatd.store.runtime_replica import RuntimeReplica
from beatd.store.server_check import readable_keys
from beatd.web.shared import Shared

if TYPE_CHECKING:
    import redis

Document = Mapping[str, Any]

SHARED_S = 0.5
"""An answer, or the lack of one, holds for so long: a hundred viewers ask the store no more often than one. One that
took longer holds for as long as it took."""

IDLE_S = 20.0
"""A connection that was not used for so long is not used again: something on the way may have forgotten it."""


class StoreView:
    """View of the store. ``overview`` gives the document of ``beatd status --json``, ``url`` where the store is now.

    Raises :class:`~beatd.exceptions.StoreUnavailable` or :class:`~beatd.exceptions.StoreRefused`.
    """

    def __init__(
        self,
        overview: Callable[[redis.Redis], Document],
        url: Callable[[], str],
        settings: RedisSettings,
        clock: Clock,
    ) -> None:
        self._overview = overview
        self._url = url
        self._settings = settings
        self._clock = clock
        self.outage = OutageWatch(clock)
        """Since when the store has been away, as far as this process knows."""
        self._opening = threading.Lock()
        self._shared: redis.Redis | None = None
        """The client of all reads, and where and when it was used last."""
        self._shared_url, self._shared_at = "", 0.0
        self._replica: RuntimeReplica | None = None
        self._status = Shared(self._read_status, clock, SHARED_S, error=StoreError)
        self._mirror = Shared(self._refreshed_replica, clock, SHARED_S, error=StoreError)
        self._summaries = Shared(self._read_summaries, clock, SHARED_S)

    def close(self) -> None:
        """End the connections that are kept."""
        if self._shared is not None:
            self._shared.close()

    def status(self) -> Document:
        """The document of ``beatd status --json``, at most half a second old."""
        return self._status()

    def mirror(self) -> RuntimeReplica:
        """The runtime entries and pauses, as they were at most half a second ago."""
        return self._mirror()

    def _read_status(self) -> Document:
        with self._client() as client:
            return self._overview(client)

    def _refreshed_replica(self) -> RuntimeReplica:
        """Return the replica, brought up to date by the client in use."""
        with self._client() as client:
            if self._replica is None:
                self._replica = RuntimeReplica(client, self._keys(client))
            elif self._replica.client is not client:
                self._replica.connect(client)
            self._replica.refresh()
            return self._replica

    def states(self, entries: Sequence[Entry], *, now_ms: int) -> list[EntryState | None]:
        """Return the state of each entry; ``None`` for one that no leader has seen yet."""
        with self._states() as states:
            return states.read(entries, now_ms=now_ms)

    def waiting(self, entries: Sequence[Entry], states: Sequence[EntryState | None], now_ms: int) -> dict[str, int]:
        """Due times (ms) of the runs that wait for the run before, by entry."""
        shards = self.status()["shards"]
        led = {one["shard"] for one in shards if one["leader"]}
        with self._client() as client:
            keys = self._keys(client)
            return waiting_runs(client, keys, entries, states, shards=len(shards), led=led, now_ms=now_ms)

    def runs(self, names: Sequence[str]) -> list[int]:
        """Return the number of runs, by schedule or by hand, of each entry."""
        with self._client() as client:
            totals = self._histories(client).totals(names)
        return [totals[name].runs for name in names]

    def sizes(self) -> Sizes:
        """The number of dead letters, and of notifications that wait."""
        with self._client() as client:
            return Registry(client, self._keys(client)).sizes(shards=0)

    def held(self, names: Sequence[str]) -> dict[str, HeldBackEntry]:
        """The entries among ``names`` that are held back."""
        status = self.status()
        if not status["held_back_count"]:
            return {}
        with self._client() as client:
            return HeldBack(client, self._keys(client), shards=len(status["shards"])).read(names)

    def last_dues(self, names: Sequence[str]) -> dict[str, int]:
        """When the last runs of entries were due, as far as their history says."""
        with self._client() as client:
            return self._histories(client).last_dues(names)

    def outcomes(self, names: Sequence[str], now_ms: int, *, held: Container[str]) -> dict[str, EntryOutcome]:
        """The outcomes of entries: the last ten runs, failures, what is overdue."""
        with self._reader() as reader:
            return {name: one.while_held(name in held) for name, one in reader.of(names, now_ms).items()}

    def bounds(self, entry: Entry) -> Bounds:
        """The bounds beyond which a run of the entry is overdue or takes too long."""
        with self._reader() as reader:
            return reader.bounds(entry)

    def failing(self) -> Mapping[str, Summary]:
        """The entries whose last run failed."""
        return {name: one for name, one in self.summaries().items() if one.failing_since_ms}

    def overdue(self) -> dict[str, int]:
        """The entries of which a run is overdue, and since when (ms)."""
        with self._reader() as reader:
            return reader.overdue()

    def too_long(self) -> dict[str, int]:
        """The entries of which a run takes too long, and since when (ms)."""
        with self._reader() as reader:
            return reader.too_long()

    def summaries(self) -> Mapping[str, Summary]:
        """The summaries of all entries, at most half a second old."""
        return self._summaries()

    def _read_summaries(self) -> Mapping[str, Summary]:
        with self._reader() as reader:
            return reader.summaries()

    def totals(self, names: Container[str]) -> Counter[str]:
        """Ends of attempts of these entries together, by outcome."""
        with self._reader() as reader:
            return reader.totals(names)

    def history(self, name: str, now_ms: int) -> tuple[list[RunDetail], Totals]:
        """The last runs of an entry, the newest first, and how many there were."""
        with self._client() as client:
            histories = self._histories(client)
            outcomes = OutcomeReader(client, self._keys(client), histories)
            with joint_reads() as read:
                details = read(lambda: outcomes.detailed(list(histories.of([name])), now_ms))
                totals = read(histories.totals, [name])
            return details.result(), totals.result()[name]

    def find_run(self, run_id: str, names: Sequence[str], now_ms: int) -> list[RunDetail]:
        """The runs among those of entries whose id begins so."""
        with self._reader() as reader:
            return reader.find(run_id, names, now_ms)

    def newest(self, names: Sequence[str], count: int, wanted: RecordFilter, now_ms: int) -> list[RunDetail]:
        """The newest runs of entries, the newest first; only those that are wanted."""
        with self._client() as client:
            histories = self._histories(client)
            records = histories.newest(names, count, wanted)
            return OutcomeReader(client, self._keys(client), histories).detailed(records, now_ms)

    def departures(self, names: Sequence[str]) -> list[tuple[int, str]]:
        """When runs of entries were sent, failed or were skipped (ms), as far as that is remembered."""
        with self._client() as client:
            return list(self._histories(client).departures(names))

    def changes(self, limit: int, subject: str) -> list[AuditRecord]:
        """The newest changes of the audit, the newest first."""
        with self._client() as client:
            return Audit(client, self._keys(client)).read(limit, subject=subject)

    def note_change(self, by: str, action: str, subject: str, *, before: Any, after: Any) -> None:
        """Write a change into the audit."""
        record = audit_record(self._clock.now_ms(), action, [subject], by=by, via="page", before=before, after=after)
        with self._client() as client:
            Audit(client, self._keys(client)).note(record)
        for shared in (self._status, self._mirror):  # a change is shown at once
            shared.forget()

    def _histories(self, client: redis.Redis) -> Histories:
        return Histories(client, self._keys(client))

    @contextmanager
    def connection(self) -> Iterator[tuple[redis.Redis, Keys]]:
        """A connection to the store, for what changes it."""
        with self._client() as client:
            yield client, self._keys(client)

    @contextmanager
    def _reader(self) -> Iterator[OutcomeReader]:
        with self._client() as client:
            yield OutcomeReader(client, self._keys(client), self._histories(client))

    @contextmanager
    def _states(self) -> Iterator[EntryStates]:
        with self._client() as client:
            yield EntryStates(client, self._keys(client))

    def _keys(self, client: redis.Redis) -> Keys:
        return readable_keys(client, self._settings.prefix)

    @contextmanager
    def _client(self) -> Iterator[redis.Redis]:
        """The client that reads share. One that is replaced ends with the last of its reads."""
        with self._watched():
            url, now = self._url(), self._clock.monotonic()
            with self._opening:
                if self._shared is None or url != self._shared_url or now - self._shared_at > IDLE_S:
                    self._shared = connect(url, timeout_ms=self._settings.timeout_ms, name="beatd-web")
                self._shared_url, self._shared_at = url, now
                client = self._shared
            yield client

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """Errors of a store that is away say since when."""
        try:
            yield
        except StoreUnavailable as error:
            raise self.outage.failed(error) from None
        self.outage.answered()
