"""Pings of monitored entries: their runs that have started or ended since the last look, once each.

Marks in the store say which runs were told of. An entry that is seen for the first time begins with its next run.
"""

from __future__ import annotations

import secrets
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from beatd.clock import Clock
from beatd.model import Entry
from beatd.notify import monitors
from beatd.states import IGNORED, SUCCESS
from beatd.store.history import Record
from beatd.store.history_reader import Histories
from beatd.store.keys import Keys
from beatd.store.notices import Notice, Notices
from beatd.store.outcomes import Outcomes, Started

_RECENT = 20
_STARTED, _OVER = "s", "e"
_NOTHING = "-"
"""The mark of an entry of which no run was reported."""
_TOLD_FOR_MS = 900_000
"""Time for which the start or end of a run is reported after it was sent, or its end was seen."""
_LANES = 4
"""Notices to one host that are sent at the same time; those of one entry never are."""
_WAITING_MAX = 500
"""Notices that wait for one lane; further pings are left out."""


class RunEvent(NamedTuple):
    """A report to a monitor."""

    entry: Entry
    record: Record
    what: monitors.Event
    error: str = ""


class PingPlanner:
    """Finds the reports for monitors, and puts them into the outbox.

    Entries whose node of a cluster is left out of ``keys`` are put off.
    """

    def __init__(self, histories: Histories, outcomes: Outcomes, notices: Notices, keys: Keys, clock: Clock) -> None:
        self._histories, self._outcomes, self._notices = histories, outcomes, notices
        self._keys, self._clock = keys, clock
        self._marks: dict[str, str] = {}

    def begin(self) -> None:
        """Read the marks: a term begins."""
        self._marks = self._notices.marks("")

    def look(self, entries: Mapping[str, Entry], lease_value: str) -> int:
        """Put what is new into the outbox; returns how many notices were left out."""
        events, marks = self._events(entries)
        marks |= {name: "" for name in self._marks if name not in entries}
        if not marks:
            return 0
        waiting = self._notices.destinations() if events else {}
        notices = [one for number, event in enumerate(events) for one in self._notices_of(event, number)]
        kept = [(id_, notice) for id_, notice in notices if waiting.get(id_.rpartition("|")[0], 0) < _WAITING_MAX]
        dropped = self._notices.put(kept, "", marks, lease_value=lease_value)
        self._marks = {name: mark for name, mark in {**self._marks, **marks}.items() if mark}
        return max(dropped, 0) + len(notices) - len(kept)

    def _events(self, entries: Mapping[str, Entry]) -> tuple[list[RunEvent], dict[str, str]]:
        recent = self._histories.recent([name for name in entries if not self._keys.is_away(name)], _RECENT)
        open_ids = [str(one.run_id) for records in recent.values() for one in records if one.is_open]
        started = self._outcomes.started(open_ids)
        events, marks = list[RunEvent](), dict[str, str]()
        for name, records in recent.items():
            mark = self._marks.get(name)
            stages = _stages(records, started)
            text = " ".join(f"{run_id}{stage}" for run_id, stage in stages.items()) or _NOTHING
            if text != mark:
                marks[name] = text
                if mark is not None:
                    events += self._new(entries[name], records, stages, mark)
        return events, marks

    def _new(self, entry: Entry, records: Sequence[Record], stages: Mapping[str, str], mark: str) -> Iterator[RunEvent]:
        """Events since the mark was written, the oldest run first."""
        told = {word[:-1]: word[-1] for word in mark.split() if word != _NOTHING}
        now_ms = self._clock.now_ms()
        for record in reversed(records):
            stage = stages.get(_short(record))
            if stage is None or stage == told.get(_short(record)) or told.get(_short(record)) == _OVER:
                continue
            if abs(now_ms - record.at_ms - (record.runtime_ms or 0)) > _TOLD_FOR_MS and _short(record) not in told:
                continue  # nobody was there to tell it in time
            if stage == _STARTED:
                yield RunEvent(entry, record, "start")
            elif record.outcome in (SUCCESS, IGNORED):
                yield RunEvent(entry, record, "success")
            else:
                yield RunEvent(entry, record, "fail", self._error(record))

    def _error(self, record: Record) -> str:
        attempts = self._outcomes.records(record.entry)
        found = next((one for one in attempts if one.run_id == record.run_id), None)
        return ": ".join(filter(None, (found.type, found.message))) if found else (record.reason or "")

    def _notices_of(self, one: RunEvent, number: int) -> Iterator[tuple[str, Notice]]:
        policies, now_ms = one.entry.policies, self._clock.now_ms()
        body: dict[str, Any] = {"what": one.what, "run_id": one.record.run_id, "error": one.error}
        body["runtime_ms"] = one.record.runtime_ms
        ways: list[tuple[Any, str]] = [("ping", policies.ping)] if policies.ping else []
        ways += [("check_in", policies.sentry.dsn)] if policies.sentry else []
        for kind, url in ways:
            lane = zlib.crc32(one.entry.name.encode(errors="replace")) % _LANES
            id_ = f"{kind}:{monitors.host(url)}:{lane}|{now_ms:013}-{number:06}-{secrets.token_hex(3)}"
            yield id_, Notice(kind=kind, name=one.entry.name, body=body, created_ms=now_ms)


def _short(record: Record) -> str:
    return (record.run_id or "").replace("-", "")[:12]


def _stages(records: Sequence[Record], started: Mapping[str, Started]) -> dict[str, str]:
    """The stage that each run has reached; a run that waits in its queue is left out."""
    stages = {}
    for record in records:
        if record.sent and not record.is_open:
            stages[_short(record)] = _OVER
        elif record.run_id in started:
            stages[_short(record)] = _STARTED
    return stages
