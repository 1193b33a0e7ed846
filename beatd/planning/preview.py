"""The next runs of an entry, computed ahead: for ``next``, ``list``, the status page and ``simulate``.

Nothing is decided here: when an entry runs comes from :mod:`beatd.planning.timeline`, and what becomes of a run from
:func:`beatd.planning.policies.decide`, both of them the daemon's own. What only a living daemon knows is assumed to be
in order: workers finish in time and queues are short.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from heapq import heappop, heappush
from operator import itemgetter
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from beatd.exceptions import ScheduleError
from beatd.model import Entry, EntryState, Run
from beatd.planning.policies import Facts, Skip, decide
from beatd.planning.timeline import fire_ms, first_sent_ms, timeline
from beatd.schedules import Schedule, bind, dst_note, latest_ms, zone
from beatd.timestamps import from_ms, to_ms

if TYPE_CHECKING:
    from beatd.store.held_back import HeldBackEntry


class Outlook(NamedTuple):
    """``runs`` have been sent; ``last_due_ms`` is when the last was due, ``next_due_ms`` when the next will be."""

    entry: Entry
    runs: int
    last_due_ms: int | None
    next_due_ms: int | None
    next_fire_ms: int | None
    """When the next run leaves: later than it is due if the entry has jitter."""
    note: str
    """Why there is no next run, in words."""
    held: HeldBackEntry | None = None
    """Why it is held back, if it is."""


def outlooks(
    entries: Sequence[Entry],
    states: Sequence[EntryState | None],
    now_ms: int,
    *,
    paused: Container[str],
    held: Mapping[str, HeldBackEntry],
    last_dues: Callable[[Sequence[str]], Mapping[str, int]],
) -> list[Outlook]:
    """The outlooks of many entries. One that cannot be computed has the error as its note, and the others theirs.

    ``last_dues`` reads from the history when the last runs of entries were due: asked for those whose state does not
    say, as that of an entry that was resumed.
    """
    looks = [_safe(entry, state, now_ms) for entry, state in zip(entries, states, strict=True)]
    unknown = [look.entry.name for look in looks if look.runs and look.last_due_ms is None]
    past = last_dues(unknown) if unknown else {}
    return [
        look._replace(
            last_due_ms=past.get(name, look.last_due_ms),
            note="paused" if name in paused else f"held back: {held[name].reason}" if name in held else look.note,
            held=held.get(name),
        )
        for look in looks
        for name in (look.entry.name,)
    ]


def _safe(entry: Entry, state: EntryState | None, now_ms: int) -> Outlook:
    """The outlook of an entry, whatever is wrong with it: one entry hides no other."""
    try:
        look = outlook(entry, state, now_ms)
        for ms in (look.last_due_ms, look.next_due_ms, look.next_fire_ms):
            if ms is not None:
                from_ms(ms).astimezone(zone(entry.timezone).info)
    except Exception as error:  # noqa: BLE001 - shown as the note
        text = f"error: {str(error) or type(error).__name__}"
        return Outlook(entry, 0 if state is None else state.runs, None, None, None, text)
    return look


def outlook(entry: Entry, state: EntryState | None, now_ms: int) -> Outlook:
    """Return the last and next run of ``entry`` at that moment. ``state`` is its state in the store, if any."""
    line = timeline(entry, now_ms if state is None else state.first_seen_ms)
    runs = 0 if state is None else state.runs
    last_due_ms = None if state is None else _last_run(line, state)
    next_due_ms, note = _next_run(entry, line, state, now_ms)
    next_fire_ms = None if next_due_ms is None else fire_ms(entry, line, next_due_ms)
    return Outlook(entry, runs, last_due_ms, next_due_ms, next_fire_ms, note)


def _last_run(line: Schedule, state: EntryState) -> int | None:
    """The last due time, if a run was due then: for an entry that has just begun it is when it began."""
    is_run = state.runs and line.next_after_ms(state.last_due_ms - 1) == state.last_due_ms
    return state.last_due_ms if is_run else None


def _next_run(entry: Entry, line: Schedule, state: EntryState | None, now_ms: int) -> tuple[int | None, str]:
    policies = entry.policies
    if not policies.enabled:
        return None, "not enabled"
    if state is not None and policies.max_runs is not None and state.runs >= policies.max_runs:
        return None, f"over after {policies.max_runs} run{'s' if policies.max_runs != 1 else ''}"
    due_ms = _delayed(entry, line, state, now_ms) or line.next_after_ms(now_ms)
    try:
        due_ms = first_sent_ms(entry, line, due_ms)
    except ScheduleError:
        return None, "blacked out"
    if due_ms is None or _is_stale(entry, due_ms):
        return None, "no run is left"
    return due_ms, ""


def _delayed(entry: Entry, line: Schedule, state: EntryState | None, now_ms: int) -> int | None:
    """A run that is due already and waits for its share of the jitter."""
    if state is None or not entry.policies.jitter_ms or state.last_due_ms >= now_ms:
        return None
    due_ms = latest_ms(line, max(state.last_due_ms, now_ms - entry.policies.jitter_ms), now_ms)
    return due_ms if due_ms is not None and fire_ms(entry, line, due_ms) > now_ms else None


def _is_stale(entry: Entry, due_ms: int) -> bool:
    """True if its message would have expired, at an instant that the entry names, before it is due."""
    expires = entry.options.expires
    return isinstance(expires, datetime) and to_ms(expires) <= due_ms


_DST = {
    "gap": "moved out of the skipped hour",
    "overlap": "in the repeated hour",
    None: "",
}
_SKIPS = {
    Skip.BLACKOUT: "not sent: blackout",
    Skip.EXPIRED: "not sent: expired",
}


class Upcoming(NamedTuple):
    """One run to come: when it leaves, with its jitter, and when it is due; both in ms since the epoch."""

    fire_ms: int
    due_ms: int
    entry: Entry
    skip: Skip | None = None
    """Why it will not be sent, if so."""

    @property
    def due_at(self) -> datetime:
        """When it is due, in UTC."""
        return from_ms(self.due_ms)

    @property
    def local(self) -> datetime:
        """When it is due, in the time zone of the entry."""
        return self.due_at.astimezone(zone(self.entry.timezone).info)

    @property
    def fire_at(self) -> datetime:
        """When it leaves, in UTC."""
        return from_ms(self.fire_ms)

    @property
    def note(self) -> str:
        """In words what is out of the ordinary: that it is not sent, or what a clock change has to do with it."""
        skip = "" if self.skip is None else _SKIPS.get(self.skip, f"not sent: {self.skip.value}")
        return "; ".join(filter(None, (skip, _DST[dst_note(self.entry.schedule, self.due_at)])))


def upcoming(entry: Entry, after_ms: int, *, first_seen_ms: int | None = None, runs: int = 0) -> Iterator[Upcoming]:
    """The runs of an entry that are due after ``after_ms``, in order, those that are not sent among them.

    ``first_seen_ms`` is when the daemon first saw the entry, by default ``after_ms``. ``runs`` have been sent
    already, of which ``max_runs`` has to know.
    """
    if not entry.policies.enabled:
        return
    line = timeline(entry, after_ms if first_seen_ms is None else first_seen_ms)
    left = None if entry.policies.max_runs is None else entry.policies.max_runs - runs
    if left is not None and left <= 0:
        return
    due_ms = _first_due(entry, after_ms, first_seen_ms)
    while due_ms is not None:
        run = foreseen(entry, line, due_ms)
        yield run
        if run.skip is None and left is not None:
            left -= 1
            if left <= 0:
                return
        due_ms = line.next_after_ms(due_ms)


def foreseen(entry: Entry, line: Schedule, due_ms: int) -> Upcoming:
    """The run of ``entry`` that is due at ``due_ms`` on its timeline, as the daemon will see it when it leaves."""
    leaves_ms = fire_ms(entry, line, due_ms)
    if entry.policies.blackout is None and entry.options.expires is None:
        return Upcoming(leaves_ms, due_ms, entry)
    verdict = decide(Run(entry, due_ms, leaves_ms, line), "", Facts(leaves_ms, frozenset(), {}))
    return Upcoming(leaves_ms, due_ms, entry, verdict.skip)


def all_upcoming(
    entries: Iterable[Entry],
    after_ms: int,
    *,
    first_seen_ms: int | None = None,
    until_ms: int | None = None,
    known: Mapping[str, EntryState] = MappingProxyType({}),
    on_error: OnError | None = None,
) -> Iterator[Upcoming]:
    """The runs of all entries that are due before ``until_ms``, in the order in which they leave.

    ``known`` is what the store remembers of entries, if it was asked. With ``on_error`` an entry whose runs cannot be
    computed is told to it and left out, and the others go on.

    No run leaves before it is due: so an entry is not looked at before what leaves earlier has been taken.
    """
    firsts: dict[tuple[object, ...], int | None] = {}
    starts: list[tuple[int, str, Entry]] = []
    for entry in entries:
        seen_ms = known[entry.name].first_seen_ms if entry.name in known else first_seen_ms
        key = (id(entry.schedule), entry.policies.start, entry.policies.end, seen_ms)
        if key not in firsts:
            firsts[key] = _first_due_or_none(entry, after_ms, seen_ms, on_error)
        if (first := firsts[key]) is not None and (until_ms is None or first < until_ms):
            starts.append((first, entry.name, entry))
    waiting: _Waiting = []
    for first_due_ms, name, entry in sorted(starts, key=itemgetter(0, 1)):
        yield from _leaving(waiting, first_due_ms, until_ms)
        state = known.get(name)
        seen_ms, runs = (state.first_seen_ms, state.runs) if state else (first_seen_ms, 0)
        following = upcoming(entry, after_ms, first_seen_ms=seen_ms, runs=runs)
        _wait(waiting, name, _isolated(entry, following, on_error) if on_error else following, until_ms)
    yield from _leaving(waiting, None, until_ms)


OnError = Callable[[Entry, Exception], None]


def _isolated(entry: Entry, runs: Iterator[Upcoming], on_error: OnError) -> Iterator[Upcoming]:
    """The runs of an entry, up to the first that cannot be computed or shown."""
    try:
        for run in runs:
            _ = run.local, run.fire_at, run.note
            yield run
    except Exception as error:  # noqa: BLE001 - told, and the others go on
        on_error(entry, error)


def _first_due_or_none(entry: Entry, after_ms: int, seen_ms: int | None, on_error: OnError | None) -> int | None:
    try:
        return _first_due(entry, after_ms, seen_ms)
    except Exception as error:
        if on_error is None:
            raise
        on_error(entry, error)
        return None


_Waiting = list[tuple[int, str, Upcoming, Iterator[Upcoming]]]
"""A heap of the next runs of entries, with those that follow."""


def _leaving(waiting: _Waiting, before_ms: int | None, until_ms: int | None) -> Iterator[Upcoming]:
    while waiting and (before_ms is None or waiting[0][0] < before_ms):
        _, name, run, following = heappop(waiting)
        yield run
        _wait(waiting, name, following, until_ms)


def _wait(waiting: _Waiting, name: str, runs: Iterator[Upcoming], until_ms: int | None) -> None:
    run = next(runs, None)
    if run is not None and (until_ms is None or run.due_ms < until_ms):
        heappush(waiting, (run.fire_ms, name, run, runs))


def _first_due(entry: Entry, after_ms: int, first_seen_ms: int | None) -> int | None:
    seen_ms = after_ms if first_seen_ms is None else first_seen_ms
    since_ms = max(after_ms, seen_ms) if counts_from_first_seen(entry) else after_ms
    return timeline(entry, seen_ms).next_after_ms(since_ms)


def counts_from_first_seen(entry: Entry) -> bool:
    """True for an interval whose phase is the moment at which a daemon first sees the entry."""
    schedule = entry.schedule
    return entry.policies.start is None and bind(schedule, from_ms(0)) is not schedule


def caveats(entries: Sequence[Entry], since: str) -> list[str]:
    """List what the file alone cannot know about the runs of ``entries``; ``since`` is where they begin."""
    enabled = [entry for entry in entries if entry.policies.enabled]
    found = []
    if any(map(counts_from_first_seen, enabled)):
        found.append(
            f"note: intervals without an anchor count from {since} here, in a daemon from when it first saw them"
        )
    if any(entry.policies.max_runs is not None for entry in enabled):
        found.append(f"note: max_runs counts from {since} here, in a daemon from the entry's first run")
    return found
