"""Watch over runs that are overdue or take too long, as part of the watch over outcomes.

Of most entries nothing is read: one without bounds cannot be late, and of the others each look says when that can be at
the earliest. Bounds are learned some at a time, of entries that have had runs, and anew at most every hour.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from beatd.model import Entry
from beatd.planning.overdue import Bounds, Delay, PastRun, bounds_of, delay_of, learned_bounds
from beatd.states import RETRY
from beatd.store.entry_state import EntryStates
from beatd.store.history import Record
from beatd.store.history_reader import Histories
from beatd.store.keys import Keys
from beatd.store.outcomes import Outcomes, Started
from beatd.timestamps import iso_ms

log = logging.getLogger("beatd.beat.outcomes")

RECENT = 20
"""Runs of an entry that are looked at."""
_LEARN_EVERY_MS, _LEARN_FIRST_MS = 3_600_000, 600_000
"""Pauses between two attempts to learn bounds: of an entry that has some, and of one that has not had enough runs."""
_LEARNED_MS, _OWN_MS = 300_000, 30_000
"""Longest pauses between two looks at an entry, with learned bounds and with bounds of its own: manual runs come at any
time."""
_LEARNED_AT_ONCE = 50
"""Entries of which bounds are learned in one look: the records of a run may have 64 KiB."""

Batches = Callable[[Sequence[Any]], Iterator[Sequence[Any]]]
Writer = Callable[[Mapping[str, int], Sequence[str]], None]


class Watched(NamedTuple):
    """Knowledge of one entry that has bounds, or may have some. Instants in ms."""

    entry: Entry
    learned: Bounds = Bounds()
    check_at_ms: int = 0
    """Until then it cannot be late."""


class OverdueWatch:
    """Raises :class:`~beatd.exceptions.StoreUnavailable` or :class:`~beatd.exceptions.StoreRefused`.

    Entries whose node of a cluster is left out of ``keys`` stay as they were at the last look with it.
    """

    def __init__(
        self, outcomes: Outcomes, histories: Histories, states: EntryStates, keys: Keys, batches: Batches
    ) -> None:
        self._keys = keys
        self._outcomes = outcomes
        self._histories = histories
        self._states = states
        self._batches = batches
        self._entries: Mapping[str, Entry] = {}
        self._watched: dict[str, Watched] = {}
        self._to_learn: dict[str, None] = {}
        """Entries with runs of which nothing was learned yet, the one that waits longest first."""
        self._learn_at_ms: dict[str, int] = {}
        self._overdue = LatenessRecord("overdue", keys, outcomes.overdue, outcomes.set_overdue)
        self._too_long = LatenessRecord("too_long", keys, outcomes.too_long, outcomes.set_too_long)

    def forget(self) -> None:
        """Forget everything: this daemon leads nothing any more."""
        self._entries, self._watched, self._to_learn, self._learn_at_ms = {}, {}, {}, {}
        self._overdue.forget()
        self._too_long.forget()

    def ran(self, names: Iterable[str]) -> None:
        """Note that these entries have had runs."""
        self._to_learn |= dict.fromkeys(names)

    def look(
        self, entries: Mapping[str, Entry], now_ms: int, is_led: Callable[[str], bool] = lambda _name: True
    ) -> None:
        """Find the entries that are late now. ``is_led`` tells of an entry that is gone if its shard is led still."""
        if entries is not self._entries:
            self._take_over(entries)
        self._learn(now_ms)
        due = [one.entry for name, one in self._watched.items() if one.check_at_ms <= now_ms and self._is_here(name)]
        delays: dict[str, Delay | None] = {}
        has_ended: set[str] = set()
        for batch in self._batches(due):
            self._check(batch, now_ms, delays, has_ended)
        for late, place in ((self._overdue, 0), (self._too_long, 1)):
            late.begin(entries)
            since = {name: ms for name, delay in delays.items() if delay and (ms := delay[place]) is not None}
            unknown = [name for name, delay in delays.items() if delay is None]
            known = {name: late.since(name, ms, keep=name not in has_ended) for name, ms in since.items()}
            late.note(known, unknown, is_led)

    def _is_here(self, name: str) -> bool:
        return not self._keys.is_away(name)

    def _take_over(self, entries: Mapping[str, Entry]) -> None:
        """Watch other entries from now on; what is known of those that stay is kept."""
        before, self._entries = self._watched, entries
        self._overdue.read_again()
        self._too_long.read_again()
        self._watched = {
            name: _watched(entry, before.get(name))
            for name, entry in entries.items()
            if name in before or _has_own_bounds(entry)
        }
        self._to_learn = {name: None for name in self._to_learn if name in entries}
        self._learn_at_ms = {name: ms for name, ms in self._learn_at_ms.items() if name in entries}

    def _learn(self, now_ms: int) -> None:
        """Learn the bounds of some entries whose time has come."""
        due = [name for name in self._to_learn if self._learn_at_ms.get(name, 0) <= now_ms and self._is_here(name)]
        names = due[:_LEARNED_AT_ONCE]
        if not names:
            return
        recent, ended = self._histories.recent(names, 2 * RECENT), self._outcomes.ended(names)
        for name in names:
            del self._to_learn[name]
            if (entry := self._entries.get(name)) is None or not _learns(entry):
                continue
            dues = {str(one.run_id): one.due_ms for one in recent[name] if one.sent}
            learned = learned_bounds(ended[name], dues)
            self._learn_at_ms[name] = now_ms + (_LEARN_EVERY_MS if learned.learned_from else _LEARN_FIRST_MS)
            if learned.learned_from or name in self._watched:
                self._watched[name] = Watched(entry, learned)

    def _check(
        self, entries: Sequence[Entry], now_ms: int, delays: dict[str, Delay | None], has_ended: set[str]
    ) -> None:
        """Find how late these entries are: None if it is not known now."""
        bounds = {one.name: bounds_of(one.policies, self._watched[one.name].learned) for one in entries}
        names = [name for name, bound in bounds.items() if bound[:3] != (None, None, None)]
        for name in bounds.keys() - set(names):
            self._plan(name, now_ms + _LEARN_EVERY_MS)
        if not names:
            return
        bounded = [one for one in entries if one.name in set(names)]
        states, recent = self._states.read(bounded, now_ms=now_ms), self._histories.recent(names, RECENT)
        open_ids = [str(one.run_id) for records in recent.values() for one in records if one.sent and not one.outcome]
        started = self._outcomes.started(open_ids)
        is_known = self._outcomes.knows_started
        for entry, state in zip(bounded, states, strict=True):
            if not is_known and any(one.sent and not one.outcome for one in recent[entry.name]):
                delays[entry.name] = None
                continue
            runs = [_past(entry, record, started, now_ms) for record in recent[entry.name] if record.sent]
            delay = delays[entry.name] = delay_of(entry, state, runs, bounds[entry.name], now_ms)
            if any(run.is_over for run in runs):
                has_ended.add(entry.name)
            at_most = now_ms if state is None else now_ms + (_LEARNED_MS if _learns(entry) else _OWN_MS)
            self._plan(entry.name, min(delay.check_at_ms or at_most, at_most))

    def _plan(self, name: str, check_at_ms: int) -> None:
        self._watched[name] = self._watched[name]._replace(check_at_ms=check_at_ms)


def _watched(entry: Entry, before: Watched | None) -> Watched:
    if before is None:
        return Watched(entry)
    return before if before.entry is entry else Watched(entry, before.learned)


def _has_own_bounds(entry: Entry) -> bool:
    return entry.policies.overdue_after_ms is not None or entry.policies.expect_within_ms is not None


def _learns(entry: Entry) -> bool:
    """True if the entry leaves a bound to be learned."""
    return entry.policies.overdue_after_ms is None or entry.policies.expect_within_ms is None


def _past(entry: Entry, record: Record, started: Mapping[str, Started], now_ms: int) -> PastRun:
    mark = None if record.outcome else started.get(str(record.run_id))
    is_at_work = mark is not None and not mark.is_lost(now_ms)
    return PastRun(
        record.due_ms,
        record.at_ms if entry.policies.overlap == "queue_one" else record.at_ms - record.late_ms,
        is_started=record.outcome is not None or mark is not None,
        is_over=record.outcome not in (None, RETRY),
        start_ms=mark.start_ms if mark is not None and is_at_work else None,
        end_ms=None if record.runtime_ms is None else record.at_ms + record.runtime_ms,
    )


class LatenessRecord:
    """Record of the entries that are late in one way, and since when (ms): in the store, and in the log on change."""

    def __init__(self, kind: str, keys: Keys, read: Callable[[], dict[str, int]], write: Writer) -> None:
        self._is_overdue = kind == "overdue"
        self._keys = keys
        self._read = read
        self._write = write
        self._since: dict[str, int] | None = None
        self._is_stale = True
        """True if other entries are led than when the store was read."""
        self._unread: frozenset[int] = frozenset()
        """Parts of a cluster that were left out when the store was read."""

    def forget(self) -> None:
        """Read the store again before the next change: another daemon leads meanwhile."""
        self._since = None

    def read_again(self) -> None:
        """Read the store again before the next change, too, for entries that another daemon has led until now."""
        self._is_stale = True

    def begin(self, led: Collection[str]) -> None:
        """Read from the store which of these entries the last leader left late, if that is not known."""
        if self._is_stale or self._since is None or self._unread.difference(self._keys.away):
            read = {name: ms for name, ms in self._read().items() if name in led}
            self._since, self._unread = read | (self._since or {}), frozenset(self._keys.away)
            self._is_stale = False

    def since(self, name: str, ms: int, *, keep: bool) -> int:
        """Return since when the entry is late. ``keep``: its history may have lost the first run by now."""
        return min(ms, (self._since or {}).get(name, ms)) if keep else ms

    def note(self, since: Mapping[str, int], unknown: Collection[str], is_led: Callable[[str], bool]) -> None:
        """Write and log what has changed.

        Entries that are left out, and those of ``unknown``, stay as they were. Those that are not led any more are
        another daemon's.
        """
        before = self._since or {}
        before = {name: ms for name, ms in before.items() if is_led(name)}
        kept = {name: ms for name, ms in before.items() if name in unknown or self._keys.is_away(name)}
        since = kept | dict(since)
        over = [name for name in before if name not in since]
        if since or over:
            self._write(since, over)
        for name in since.keys() - before.keys():
            text = "Entry %s is overdue since %s" if self._is_overdue else "Entry %s has taken too long since %s"
            event = "entry_overdue" if self._is_overdue else "entry_too_long"
            log.warning(text, name, iso_ms(since[name]), extra={"event": event, "entry": name})
        for name in over:
            event = "entry_overdue_over" if self._is_overdue else "entry_too_long_over"
            log.info("Entry %s is in time again", name, extra={"event": event, "entry": name})
        self._since = since
