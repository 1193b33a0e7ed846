"""The runtime schedule for programs: entries are checked, and put into the store in the form in which it keeps them."""

from __future__ import annotations

import builtins
from collections.abc import Iterator, Mapping
from datetime import datetime
from fnmatch import fnmatchcase
from itertools import islice
from typing import Any, NamedTuple

from beatd import config
from beatd.client.history import pause_facts
from beatd.client.outcomes import FAILED, EntryOutcome, OutcomeReader, RunDetail
from beatd.client.runs import RunClient
from beatd.client.watch import Change, changes
from beatd.clock import SystemClock
from beatd.config.entries import without_none
from beatd.config.writer import plain_table
from beatd.exceptions import ConfigError, Fault, MessageError
from beatd.message.json_codec import dumps, loads
from beatd.store.audit import Audit, audit_record, whoami
from beatd.store.client import connect
from beatd.store.history import Record
from beatd.store.history_reader import Histories
from beatd.store.runtime_entries import TABLE_MAX, Pause, Put, Runtime, place, read_pause, read_table, readable_table
from beatd.store.server_check import keys_in
from beatd.timestamps import to_ms


def checked(
    name: str, table: Mapping[str, Any], *, timezone: str = "UTC", defaults: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The table as it is stored, without Python's own values; raises ConfigError with all that is wrong.

    ``timezone`` and ``defaults`` are those of the daemons' files, if they are known: a runtime entry is read with them.
    """
    plain = without_none(plain_table(table))
    config.entry(name, plain, timezone=timezone, defaults=defaults, source=place(name))
    raw = dumps(plain)
    if len(raw) > TABLE_MAX:
        message = f"the entry has {len(raw) >> 10:,} KiB as JSON; at most {TABLE_MAX >> 10:,} KiB are stored"
        raise ConfigError([Fault(place(name), None, "", message)])
    stored: dict[str, Any] = loads(raw)
    if stored != plain:  # it is this that daemons will read
        config.entry(name, stored, timezone=timezone, defaults=defaults, source=place(name))
    return stored


class Stored(NamedTuple):
    """An entry in the state store. ``table`` has the keys that an entry has in ``beat.toml``."""

    name: str
    table: dict[str, Any]
    pause: Pause | None = None
    """Who paused it, when and why; None when it is not paused."""
    fault: str = ""
    """Why the table could not be read at all, as somebody else's value in the store; it is empty then."""


class Schedules:
    """The entries in a state store, and the pauses of any entries; a context manager.

    ``url`` and ``prefix`` are those of ``[redis]`` in ``beat.toml`` (``redis://``, ``rediss://``, ``unix://``,
    ``sentinel://``, ``redis+cluster://``); ``timeout`` bounds each answer, in seconds; ``by`` is who makes the changes,
    for the audit, by default user and host. Methods raise
    :class:`~beatd.exceptions.StoreUnavailable`, which is worth a retry and harmless to repeat, or
    :class:`~beatd.exceptions.StoreRefused`. May be used by several threads.

    >>> with Schedules("redis://localhost:6379/0") as schedules:  # doctest: +SKIP
    ...     schedules.put("nightly", task="reports.build", schedule="30 2 * * *", timezone="Europe/Berlin")
    """

    def __init__(self, url: str, *, prefix: str = "beatd", timeout: float = 5.0, by: str | None = None) -> None:
        self._client = connect(url, timeout_ms=int(timeout * 1000), name="beatd-client")
        self._keys = keys_in(self._client, prefix)
        self._audit, self._by = Audit(self._client, self._keys), whoami() if by is None else by
        self._runtime = Runtime(self._client, self._keys)
        self._clock = SystemClock()
        self._histories = Histories(self._client, self._keys)
        self._outcomes = OutcomeReader(self._client, self._keys, self._histories)
        manual = RunClient(self._client, self._keys, via="client")
        self.trigger, self.backfill = manual.trigger, manual.backfill
        """Have a run sent now, or those of a past window; see :class:`~beatd.client.runs.RunClient`."""

    def __enter__(self) -> Schedules:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def put(self, name: str, *, task: str, schedule: Any, **entry: Any) -> Put:
        """Put an entry, or another in its place; what that was: ``"added"``, ``"changed"`` or ``"unchanged"``.

        ``entry`` are further keys of an entry in ``beat.toml``. Values may be what Python has for them: ``crontab(…)``,
        ``every(…)``, a timedelta, a datetime. What is not said is as the daemons' files have it: their ``timezone`` and
        ``[defaults]``. Raises :class:`~beatd.exceptions.ConfigError` with all that is wrong; nothing is stored then.
        An entry of the same name in the daemons' files, or of their app, goes first.
        """
        table = checked(name, {"task": task, "schedule": schedule, **entry})
        done, before = self._runtime.exchange(name, table)
        if done != "unchanged":
            self._note("add" if done == "added" else "change", name, readable_table(before), table)
        return done

    def get(self, name: str) -> Stored | None:
        """The entry of that name in the state store, or None: one that comes from a file is not there."""
        table, pause = self._runtime.get(name)
        return None if table is None else _stored(name, table, None if pause is None else read_pause(pause))

    def list(self, pattern: str = "*") -> builtins.list[Stored]:
        """The entries in the state store whose names match a pattern such as ``tenant-42-*``, by name."""
        paused = self.paused()
        found = [(name, table) for name, table in self._runtime.tables() if fnmatchcase(name, pattern)]
        return [_stored(name, table, paused.get(name)) for name, table in sorted(found)]

    def remove(self, name: str) -> bool:
        """Take an entry out of the state store; tells whether it was there. A pause of that name stays."""
        before = self.get(name)
        removed = self._runtime.remove(name)
        if removed:
            self._note("remove", name, before and before.table)
        return removed

    def pause(self, name: str, *, reason: str = "", by: str = "", until: datetime | None = None) -> bool:
        """Suspend an entry, wherever it comes from, until it is resumed; tells whether it was not paused before.

        With ``until``, an aware datetime, a daemon resumes it then; of an entry that is paused already it changes the
        end.

        The name need not be in use: an entry that comes later begins paused.
        """
        until_ms = None if until is None else to_ms(until)
        note = Pause(since_ms=self._clock.now_ms(), by=by, reason=reason, until_ms=until_ms)
        done = self._runtime.put_pauses([_named(name)], note, () if until is None else ("until",))
        if done.paused or done.changed:
            self._note("pause", name, None, pause_facts(note), by=by)
        return bool(done.paused)

    def resume(self, name: str) -> bool:
        """Resume a paused entry; tells whether it was paused. Runs that were due meanwhile are not caught up."""
        resumed = bool(self._runtime.resume([name]))
        if resumed:
            self._note("resume", name)
        return resumed

    def _note(self, action: str, name: str, before: Any = None, after: Any = None, *, by: str = "") -> None:
        """Record a change in the audit."""
        author = by or self._by
        at_ms = self._clock.now_ms()
        self._audit.note(audit_record(at_ms, action, [name], by=author, via="client", before=before, after=after))

    def paused(self) -> dict[str, Pause]:
        """All paused entries, wherever they come from."""
        return dict(self._runtime.pauses())

    def history(self, name: str, limit: int = 20, *, failed: bool = False) -> builtins.list[Record]:
        """The last runs of an entry, the newest first: sent, skipped, missed, and how they ended as far as is known.

        ``failed``: only those that failed, were lost or revoked.
        """
        return [run.record for run in self.runs(name, limit, failed=failed)]

    def runs(self, name: str, limit: int = 20, *, failed: bool = False) -> builtins.list[RunDetail]:
        """The same with the outcome as a word, and all attempts with error, traceback and output."""
        records = builtins.list(self._histories.of([name]))
        details = self._outcomes.detailed(records, self._clock.now_ms())
        return builtins.list(islice((run for run in details if not failed or run.word in FAILED), limit))

    def run(self, name: str, run_id: str) -> RunDetail | None:
        """One run of an entry; None if it is not remembered."""
        return next((run for run in self.runs(name, 10_000) if run.record.run_id == run_id), None)

    def outcome(self, name: str) -> EntryOutcome:
        """The outcomes of an entry: the last ones, since when it fails or is overdue, its last success and error."""
        return self._outcomes.of([name], self._clock.now_ms())[name]

    def failing(self) -> dict[str, EntryOutcome]:
        """The entries whose last run failed, those that fail longest first."""
        return self._outcomes.of(builtins.list(self._outcomes.failing()), self._clock.now_ms())

    def watch(self, timeout: float | None = None) -> Iterator[Change]:
        """Yield what is put, removed, paused and resumed from this call on, by anyone.

        Ends when nothing has changed for ``timeout`` seconds, and never without one. A store that goes away is waited
        for, no longer than ``timeout``; what changed meanwhile is told when it is back.
        """
        return changes(self._client, self._keys, timeout=timeout)


def _stored(name: str, raw: bytes, pause: Pause | None) -> Stored:
    try:
        return Stored(name, read_table(raw), pause)
    except MessageError as error:
        return Stored(name, {}, pause, str(error))


def _named(name: str) -> str:
    if not name.strip():
        raise ConfigError([Fault(place(name), None, "", "the name of an entry cannot be empty")])
    return name
