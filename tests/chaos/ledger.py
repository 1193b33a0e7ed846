"""The books: every message that reached a queue, and whether they agree with the claims and the schedule."""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import redis

from beatd.message.protocol import open_envelope
from beatd.model import RUN_NAMESPACE
from tests.chaos.store import StateStore

AWAY = (redis.ConnectionError, redis.TimeoutError)

Run = tuple[str, int]
"""An entry's name and when the run was due (ms)."""


class Books:
    """What reached the broker."""

    def __init__(self) -> None:
        self.seen: Counter[tuple[str, int, str]] = Counter()
        """How often each message came: entry, due, id."""
        self.first_at: dict[Run, float] = {}
        """When each run was first seen (monotonic)."""

    def note(self, headers: Mapping[str, Any]) -> None:
        """A message came."""
        run = headers["beatd-entry"], due_ms_of(headers["beatd-due-at"])
        self.seen[*run, headers["id"]] += 1
        self.first_at.setdefault(run, time.monotonic())

    @property
    def ids(self) -> set[str]:
        return {run_id for _, _, run_id in self.seen}


class Account(NamedTuple):
    """What is wrong; nothing, if all is well."""

    due: int
    claimed: int
    messages: int
    lost: list[Run]
    doubled: list[Run]
    strange: list[str]
    """Messages with an id that is not their run's, or for an instant at which nothing was due."""

    def __str__(self) -> str:
        text = f"due {self.due}, claimed {self.claimed}, messages {self.messages}"
        return f"{text}: {len(self.lost)} lost, {len(self.doubled)} doubled, {len(self.strange)} strange"


class Consumer:
    """Takes every message once, whatever happens to the server meanwhile.

    A queue is renamed, read, and only then deleted. Each step may be repeated, so no answer that was lost on the way is
    mistaken for a message that was lost or doubled.
    """

    def __init__(self, client: redis.Redis, queues: Sequence[str]) -> None:
        self._client = client
        self._queues = queues
        self._batches = 0
        self.books = Books()
        self.error: BaseException | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="consumer", daemon=True)

    def __enter__(self) -> Consumer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join(30)

    def _run(self) -> None:
        while not self._stopping.wait(0.2):
            try:
                self.drain()
            except Exception as error:  # noqa: BLE001 - a thread's death must not look like an empty queue
                self.error = error
                return

    def drain(self) -> None:
        """Take what there is now."""
        for queue in self._queues:
            batch = f"chaos:batch:{self._batches}"
            try:
                with contextlib.suppress(redis.ResponseError):  # no such key: the queue is empty
                    self._client.renamenx(queue, batch)
                raws = self._client.lrange(batch, 0, -1)
            except AWAY:
                return
            self._record(raws)  # first of all: when it was seen decides whether it may come again
            self._forget(batch)
            self._batches += 1

    def _forget(self, batch: str) -> None:
        for _ in range(600):
            try:
                self._client.delete(batch)
            except AWAY:
                time.sleep(0.1)
            else:
                return
        raise AssertionError("the state store did not come back within a minute")

    def _record(self, raws: Iterable[bytes]) -> None:
        for raw in raws:
            self.books.note(open_envelope(raw).headers)


def due_ms_of(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1000)


class Records:
    """What the store remembers of entries, in all its parts."""

    def __init__(self, store: StateStore) -> None:
        self._store = store

    def first_seen(self) -> dict[str, int]:
        """When each entry's phase began (ms)."""
        return {name: int(known.split(b" ")[0]) for name, known in self._read("fingerprints")}

    def last_due(self) -> dict[str, int]:
        return {name: int(due) for name, due in self._read("last_due")}

    def runs(self) -> dict[str, int]:
        return {name: int(count) for name, count in self._read("runs")}

    def due(self, began: Mapping[str, int], intervals: Mapping[str, int]) -> set[Run]:
        """All runs up to the last that was claimed. ``began``: when each entry was first seen, from the start."""
        claimed_to = self.last_due()
        return {
            (name, ms)
            for name, phase in began.items()
            for ms in range(phase + intervals[name], claimed_to[name] + 1, intervals[name])
        }

    def _read(self, field: str) -> Iterator[tuple[str, bytes]]:
        for part in self._store.keys.all_parts():
            key = getattr(part, field)
            with self._store.client_of(key) as client:
                yield from ((name.decode(), value) for name, value in client.hgetall(key).items())


def id_of(run: Run) -> str:
    """The id that a run must have."""
    return str(uuid.uuid5(RUN_NAMESPACE, f"{run[0]}@{run[1]}"))


def balance(records: Records, books: Books, began: Mapping[str, int], due: set[Run]) -> Account:
    """Compare schedule, claims and messages, run by run."""
    times: defaultdict[Run, int] = defaultdict(int)
    strange = []
    for (name, ms, run_id), count in books.seen.items():
        times[name, ms] += count
        if run_id != id_of((name, ms)):
            strange.append(f"{name}@{ms} came as {run_id}")
    strange += [f"{name}@{ms} was not due" for name, ms in sorted(times.keys() - due)]
    strange += [f"{name} has another phase" for name, phase in records.first_seen().items() if phase != began[name]]
    doubled = [run for run, count in times.items() if count > 1]
    claimed = sum(records.runs().values())
    return Account(len(due), claimed, sum(times.values()), sorted(due - times.keys()), doubled, strange)
