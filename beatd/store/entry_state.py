"""The state of entries, read without a lease: last due times, runs that were sent before, runs that are not over yet.

The store forgets. It has the last runs of an entry (its history), the last due time, the stretches that were passed
over (the last eight, for a week), and for a day the ids of runs that were sent by hand or ended in a bundled worker.
What lies between the moment at which the entry was first seen and its last due, and in none of those stretches, was
claimed; so it counts as sent unless the history says otherwise.

A run is over when its result says so (stored by any worker in this server, in Celery's format), when a bundled worker
has noted its end, when the broker refused it, or when the time that it may take has passed: so nothing can silence an
entry for ever.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from typing import Any, NamedTuple

import redis

from beatd.exceptions import MessageError
from beatd.model import Entry, EntryState, Policies, run_id
from beatd.schedules import bind
from beatd.states import READY_STATES
from beatd.store import history as records
from beatd.store.claims import LOAD_BATCH
from beatd.store.client import is_cluster, translate_errors
from beatd.store.ended_runs import covers
from beatd.store.keys import Keys, ShardKeys
from beatd.store.results import decode, result_key
from beatd.store.run_record import REFUSED
from beatd.store.run_requests import Reason
from beatd.timestamps import to_ms

_OFF = "off "
"""Begins the fingerprint of an entry that is not in force."""


class Fingerprints:
    """The fingerprints of entries: the store sees by them that a schedule is another one, or was resumed.

    The start from which an interval counts is a part of its schedule: another start moves all of its runs.
    """

    def __init__(self) -> None:
        self._by_schedule: dict[tuple[int, datetime | None], str] = {}

    def of(self, entry: Entry) -> str:
        """Return that of an entry; computed once for those that share a schedule, which must outlive this.

        Raises UnicodeEncodeError for one that the store cannot take.
        """
        schedule, start = entry.schedule, entry.policies.start
        fingerprint = self._by_schedule.get((id(schedule), start))
        if fingerprint is None:
            fingerprint = (schedule if start is None else bind(schedule, start)).fingerprint
            fingerprint.encode()
            self._by_schedule[id(schedule), start] = fingerprint
        return fingerprint if entry.policies.enabled else f"{_OFF}{fingerprint}"


def limits_text(policies: Policies) -> str | None:
    """Return the limits of an entry as the store notes them: ``<start> <end> <max_runs>``; ``None`` if it has none."""
    start, end, max_runs = policies.start, policies.end, policies.max_runs
    if start is None and end is None and max_runs is None:
        return None
    limits = (start and to_ms(start), end and to_ms(end), max_runs)
    return " ".join("-" if limit is None else str(limit) for limit in limits)


def kept_from_running_until_ms(noted: str, *, last_due_ms: int, runs: int, now_ms: int) -> int | None:
    """Until when an entry could not run by the limits that are ``noted`` of it; as in ``load_entries.lua``.

    ``None`` if that is no later than its last due: all its missed runs may be caught up.
    """
    limits = noted.split()
    if len(limits) != 3:
        return None
    start_ms, end_ms, max_runs = (int(limit) if _NUMBER.fullmatch(limit) else None for limit in limits)
    if (end_ms is not None and end_ms < now_ms) or (max_runs is not None and runs >= max_runs):
        return now_ms
    return min(start_ms - 1, now_ms) if start_ms is not None and start_ms - 1 > last_due_ms else None


_NUMBER = re.compile(r"[0-9]{1,15}")


class EntryStates:
    """Raises :class:`~beatd.exceptions.StoreUnavailable` or :class:`StoreRefused`."""

    def __init__(self, client: redis.Redis, keys: Keys) -> None:
        self._client = client
        self._keys = keys

    def read(self, entries: Sequence[Entry], *, now_ms: int) -> list[EntryState | None]:
        """Return the state of each entry as a leader that loads it now gets it; ``None`` if it is new or unreadable.

        An entry that was changed or resumed since the last leader loaded it goes on from now, and one whose limits
        were changed from when these let it run, as in ``load_entries.lua``.
        """
        names, fingerprints = [entry.name for entry in entries], Fingerprints()
        rows = self._rows(names)
        return [_state(entry, rows.get(entry.name, _NEW), fingerprints, now_ms) for entry in entries]

    def begin(self, last_runs: Sequence[tuple[Entry, int]]) -> list[str]:
        """Begin the state of entries as if their last runs (ms) had been sent by beatd, and return their names.

        Entries that a daemon has seen before are left as they are.
        """
        fingerprints, begun = Fingerprints(), []
        with translate_errors(self._client):
            for entry, ms in last_runs:
                with self._client.pipeline(transaction=True) as pipeline:
                    part = self._keys.of(entry.name)
                    pipeline.hsetnx(part.fingerprints, entry.name, f"{ms} {fingerprints.of(entry)}")
                    pipeline.hsetnx(part.last_due, entry.name, ms)
                    is_new, _ = pipeline.execute()
                if is_new:
                    begun.append(entry.name)
        return begun

    def _rows(self, names: Sequence[str]) -> dict[str, _Row]:
        """The fields of entries, some in a command: other clients get their turn between."""
        batches = [names[start : start + LOAD_BATCH] for start in range(0, len(names), LOAD_BATCH)]
        asked = [item for batch in batches for item in self._keys.by_part(batch)]
        with translate_errors(self._client), self._client.pipeline(transaction=False) as pipeline:
            for part, own in asked:
                for key in (part.last_due, part.fingerprints, part.runs, part.limits):
                    pipeline.hmget(key, own)
            answers = pipeline.execute()
        rows: dict[str, _Row] = {}
        for (_, own), *fields in zip(asked, *(answers[n::4] for n in range(4)), strict=True):
            rows |= zip(own, zip(*fields, strict=True), strict=True)
        return rows


_Row = tuple[bytes | None, bytes | None, bytes | None, bytes | None]
_NEW: _Row = (None, None, None, None)


def _state(entry: Entry, row: _Row, fingerprints: Fingerprints, now_ms: int) -> EntryState | None:
    last_due, known, sent, noted = row
    first_seen, _, stored = (known or b"").partition(b" ")
    last_due_ms, first_seen_ms, runs = _number(last_due), _number(first_seen), _number(sent or b"0")
    if last_due_ms is None or first_seen_ms is None or runs is None:
        return None
    try:
        fingerprint = fingerprints.of(entry).encode()
    except Exception:  # noqa: BLE001 - told where its next run is computed
        fingerprint = stored
    if stored != fingerprint:
        last_due_ms = max(last_due_ms, now_ms)
        if stored.removeprefix(_OFF.encode()) != fingerprint.removeprefix(_OFF.encode()):
            first_seen_ms = now_ms
    elif noted is not None and (limits := noted.decode(errors="replace")) != limits_text(entry.policies):
        until_ms = kept_from_running_until_ms(limits, last_due_ms=last_due_ms, runs=runs, now_ms=now_ms)
        last_due_ms = max(last_due_ms, until_ms or 0)
    return EntryState(last_due_ms, first_seen_ms, runs)


def _number(raw: bytes | None) -> int | None:
    return int(raw) if raw is not None and raw.isdigit() else None


@dataclass(frozen=True, slots=True)
class EntryPast:
    """The past of one entry."""

    first_seen_ms: int = 0
    last_due_ms: int = 0
    gaps: Sequence[tuple[int, int]] = ()
    passed_over: Sequence[tuple[int, int]] = ()
    """Those of ``gaps`` that the leader has decided about: their runs do not come by themselves."""
    sent: frozenset[int] = field(default_factory=frozenset)
    """Due times of runs that the history has as sent."""
    unsent: frozenset[int] = field(default_factory=frozenset)
    ended: bytes = b""
    """Stretches of time whose runs have ended."""

    def reason(self, due_ms: int, *, comes: bool, now_ms: int) -> Reason | None:
        """Return the reason not to send a run, if any. ``comes``: what is due after the last due comes by itself."""
        if due_ms > self.last_due_ms:
            is_missed = any(after < due_ms < before for after, before in self.passed_over)
            return "to_come" if comes and not is_missed else None
        if due_ms in self.sent:
            return "dispatched"
        if due_ms in self.unsent or any(after < due_ms < before for after, before in self.gaps):
            return "to_come" if due_ms > now_ms else None  # of a clock that was ahead, and is set right
        return "dispatched" if due_ms > self.first_seen_ms or covers(self.ended, due_ms) else None


class DispatchLookup:
    """Raises :class:`~beatd.exceptions.StoreUnavailable` or :class:`~beatd.exceptions.StoreRefused`."""

    def __init__(self, client: redis.Redis, keys: Keys) -> None:
        self._client = client
        self._keys = keys

    def read_past(self, entry: Entry) -> EntryPast:
        """Return the past of an entry; one round trip."""
        name, shard = entry.name, self._keys.of(entry.name)
        with translate_errors(self._client), self._client.pipeline(transaction=False) as pipeline:
            for key in (shard.fingerprints, shard.last_due, shard.gaps, shard.ended):
                pipeline.hget(key, name)
            pipeline.get(self._keys.history(name))
            known, last_due, gaps, ended, history = pipeline.execute()
        bounds = [int(number) for number in (gaps or b"").split() if number.isdigit()]
        passed_over = list(pairwise(bounds))[::2]
        lines = list(records.read(name, history or b""))
        return EntryPast(
            _number((known or b"").partition(b" ")[0]) or 0,
            _number(last_due) or 0,
            [*passed_over, *((one.due_ms, one.at_ms) for one in lines if one.kind == "missed")],
            passed_over,
            frozenset(one.due_ms for one in lines if _was_sent(one)),
            frozenset(one.due_ms for one in lines if one.kind == "skipped" or one.outcome == REFUSED),
            ended or b"",
        )

    def reasons(self, name: str, dues_ms: Sequence[int]) -> list[Reason | None]:
        """Of each run whether it is remembered by its id: sent by hand, or ended; one round trip."""
        ids = [run_id(name, due_ms) for due_ms in dues_ms]
        if not ids:
            return []
        with translate_errors(self._client), self._client.pipeline(transaction=False) as pipeline:
            part = self._keys.of(name)
            pipeline.mget([f"{part.sent}{one}" for one in ids])
            pipeline.mget([f"{part.finished}{one}" for one in ids])
            pipeline.mget(_result_keys(self._client, part, ids, self._keys.results))
            found: Any = zip(*pipeline.execute(), strict=True)
        return [
            "sent_before" if sent is not None else "dispatched" if ended is not None or result is not None else None
            for sent, ended, result in found
        ]


def _result_keys(client: redis.Redis, part: ShardKeys, run_ids: Sequence[str], prefix: str) -> list[str]:
    """The keys of results; in a cluster those of the ends that a worker noted, which are in the entry's slot."""
    return [f"{part.finished}{one}" if is_cluster(client) else result_key(one, prefix) for one in run_ids]


def _was_sent(record: records.Record) -> bool:
    """True for a run that reached the broker."""
    return record.kind in ("scheduled", "backfilled") and record.outcome != REFUSED


log = logging.getLogger("beatd.store")

SAID_KEPT = 10_000
"""Entries whose last warning is remembered, so that it is not repeated."""


class UnfinishedRun(NamedTuple):
    """A run that is not over: it counts as over at ``until_ms`` in any case."""

    run_id: str
    until_ms: int


class Running:
    """The last run of entries that mind overlaps, of one shard."""

    def __init__(self, client: redis.Redis, keys: Keys, *, shard: int = 0) -> None:
        self._client = client
        self._keys = keys.shard(shard)
        self._results = keys.results
        self._key = self._keys.running
        self._said: dict[str, str] = {}

    def unfinished(self, runtimes: Mapping[str, int], *, now_ms: int) -> dict[str, UnfinishedRun]:
        """Return the last runs that are not over, by entry, given the time (ms) each may run; two round trips at most.

        A run that seems to have begun in the future was sent by a clock that was ahead, and counts as over.
        """
        if not runtimes:
            return {}
        with translate_errors(self._client):
            values: Any = self._client.hmget(self._key, list(runtimes))
        runs = {name: self._parsed(name, value) for name, value in zip(runtimes, values, strict=True) if value}
        asked = {name: run_id for name, (run_id, until_ms) in runs.items() if 0 < until_ms - now_ms <= runtimes[name]}
        if not asked:
            return {}
        with translate_errors(self._client), self._client.pipeline(transaction=False) as pipeline:
            pipeline.mget(_result_keys(self._client, self._keys, list(asked.values()), self._results))
            # of runs by hand, and of those that ended under an earlier version; others are not in the hash any more
            pipeline.mget([f"{self._keys.finished}{run_id}" for run_id in asked.values()])
            pipeline.mget([f"{self._keys.refused}{run_id}" for run_id in asked.values()])
            results, ended, refused = pipeline.execute()
        found = zip(asked.items(), results, map(any, zip(ended, refused, strict=True)), strict=True)
        over = {name for (name, run_id), result, end in found if end or self._is_over(name, run_id, result)}
        return {name: UnfinishedRun(*runs[name]) for name in asked if name not in over}

    def _is_over(self, name: str, run_id: str, result: Any) -> bool:
        """True if the result is final. An unreadable one counts as final: it was stored by a task that has ended."""
        if result is None:
            return False
        try:
            return decode(result)["status"] in READY_STATES
        except (MessageError, LookupError, TypeError, ValueError, RecursionError):
            text = "The result of the last run of %s cannot be read (%s); the run counts as ended"
            self._say_once(name, run_id, text, result_key(run_id, self._results))
            return True

    def _parsed(self, name: str, value: bytes) -> tuple[str, int]:
        run_id, _, until_ms = value.decode(errors="replace").partition(" ")
        if until_ms.isascii() and until_ms.isdigit() and len(until_ms) < 16:
            return run_id, int(until_ms)
        text = "The field of %s in %s is no run; no run of it counts as unfinished"
        self._say_once(name, str(value[:60]), text, self._key)
        return "", 0

    def _say_once(self, name: str, about: str, text: str, key: str) -> None:
        """Warn, but of one entry and run only once."""
        if self._said.get(name) == about:
            return
        if len(self._said) >= SAID_KEPT:
            self._said.clear()
        self._said[name] = about
        log.warning(text, name, key, extra={"event": "running_unreadable", "entry": name, "key": key})
