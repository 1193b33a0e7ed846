"""Next run: the answer to "when does it run next", for ``list``, page, ``next``, ``simulate`` and ``check`` alike.

The rule: the runs to come are those of a leader that resumes the entry now. They begin at its resume point
(:class:`beatd.planning.catchup.ResumePoints`), follow each other on its timeline (:mod:`beatd.planning.timeline`), and
of each :func:`beatd.planning.policies.decide` says if it is sent; ``max_runs`` counts those that are. The next run is
the first that is sent: an overdue one, if the daemon is behind or away. All parts are those of the daemon's own heap.
Assumed to be in order is what only a living daemon knows: workers finish in time and queues are short.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from heapq import heappop, heappush
from itertools import islice, takewhile
from operator import itemgetter
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from beatd.exceptions import ScheduleError
from beatd.model import Entry, EntryState, Run
from beatd.planning.catchup import ResumePoints
from beatd.planning.policies import SEND, Decision, Facts, Skip, decide
from beatd.planning.timeline import BlackedOut, after_blackouts_ms, fire_ms, next_due_ms, timeline
from beatd.schedules import Schedule, bind, dst_note, is_chain, latest_ms, zone
from beatd.timestamps import LAST_MS, from_ms

if TYPE_CHECKING:
    from beatd.store.held_back import HeldBackEntry

NOTHING_WAITS: Mapping[str, int] = MappingProxyType({})
WAITS = "waits: the run before has not ended"
"""Note of a run that is held back by ``overlap = "queue_one"``."""
EXPIRED_IN_A_ROW = 1_000
"""Expired runs in a row that are passed in search of one that is sent."""
RUNS_COUNTED = 100_000
"""Runs that are counted at most, of an entry with ``max_runs``."""


def new_state(now_ms: int) -> EntryState:
    """State of an entry that a leader sees for the first time at ``now_ms``."""
    return EntryState(now_ms, now_ms, 0)


def state_at(entry: Entry, state: EntryState | None, at_ms: int, now_ms: int) -> EntryState:
    """State of an entry at another instant, as if all runs that are due up to then had been sent."""
    if state is None:
        return new_state(at_ms)
    since_ms = max(at_ms, state.first_seen_ms) if counts_from_first_seen(entry) else at_ms
    if at_ms <= now_ms:
        return state._replace(last_due_ms=since_ms)
    if is_chain(entry.schedule):
        since_ms = _last_of_chain(entry, state, at_ms, ResumePoints(now_ms))
    runs = state.runs
    if entry.policies.max_runs is not None:
        before = takewhile(lambda run: run.due_ms <= at_ms, upcoming(entry, state, ResumePoints(now_ms)))
        runs += sum(run.skip is None for run in islice(before, RUNS_COUNTED))
    return state._replace(last_due_ms=max(since_ms, state.last_due_ms), runs=runs)


def _last_of_chain(entry: Entry, state: EntryState, at_ms: int, points: ResumePoints) -> int:
    """The run before ``at_ms`` on which the next one depends, or the moment from which that counts."""
    line, due_ms, _, passes_over = points.of(entry, state)
    if due_ms is None or due_ms > at_ms:
        return points.now_ms if passes_over else state.last_due_ms
    return latest_ms(line, after_ms=due_ms, until_ms=at_ms) or due_ms


class Outlook(NamedTuple):
    """``runs`` have been sent; ``last_due_ms`` is when the last was due, ``next_due_ms`` when the next will be."""

    entry: Entry
    runs: int
    last_due_ms: int | None
    next_due_ms: int | None
    next_fire_ms: int | None
    """When the next run leaves: later than it is due if the entry has jitter."""
    note: str
    """Why there is no next run, or why it is not sent yet, in words."""
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
    waiting: Mapping[str, int] = NOTHING_WAITS,
) -> list[Outlook]:
    """The outlooks of many entries. One that cannot be computed has the error as its note, and the others theirs.

    ``last_dues`` reads from the history when the last runs of entries were due: asked for those whose state does not
    say, as that of an entry that was resumed. ``waiting`` are due times of runs that wait for the run before.
    """
    points = ResumePoints(now_ms, waiting)
    looks = [_safe_outlook(entry, state, points) for entry, state in zip(entries, states, strict=True)]
    unknown = [look.entry.name for look in looks if look.runs and look.last_due_ms is None]
    past = last_dues(unknown) if unknown else {}
    for number, look in enumerate(looks):
        name = look.entry.name
        if name in past:
            look = looks[number] = look._replace(last_due_ms=past[name])  # noqa: PLW2901
        if name in held:
            look = looks[number] = look._replace(note=f"held back: {held[name].reason}", held=held[name])  # noqa: PLW2901
        if name in paused:
            looks[number] = look._replace(note="paused")
    return looks


_DAY_MS = 86_400_000


def _safe_outlook(entry: Entry, state: EntryState | None, points: ResumePoints) -> Outlook:
    """The outlook of an entry, whatever is wrong with it: one entry hides no other."""
    try:
        look = outlook(entry, state, points)
        for ms in (look.last_due_ms, look.next_due_ms, look.next_fire_ms):
            if ms is not None and not _DAY_MS < ms < LAST_MS - _DAY_MS:  # where a zone's time may not exist
                from_ms(ms).astimezone(zone(entry.timezone).info)
    except Exception as error:  # noqa: BLE001 - shown as the note
        text = f"error: {str(error) or type(error).__name__}"
        return Outlook(entry, 0 if state is None else state.runs, None, None, None, text)
    return look


def outlook(entry: Entry, state: EntryState | None, points: ResumePoints) -> Outlook:
    """Return the last and next run of ``entry``. ``state`` is its state in the store, if any."""
    runs = 0 if state is None else state.runs
    last_due_ms = None if state is None else _last_run(timeline(entry, state.first_seen_ms), state)
    run, note = next_run(entry, state or new_state(points.now_ms), points)
    if run is None:
        return Outlook(entry, runs, last_due_ms, None, None, note)
    return Outlook(entry, runs, last_due_ms, run.due_ms, run.fire_ms, WAITS if run.waits else note)


def _last_run(line: Schedule, state: EntryState) -> int | None:
    """The last due time, if a run was due then: for an entry that has just begun it is when it began."""
    is_run = state.runs and line.next_after_ms(state.last_due_ms - 1) == state.last_due_ms
    return state.last_due_ms if is_run else None


def next_run(entry: Entry, state: EntryState, points: ResumePoints) -> tuple[Upcoming | None, str]:
    """Return the next run that is sent; or ``None``, and why there is none in words."""
    policies = entry.policies
    if not policies.enabled:
        return None, "not enabled"
    if policies.max_runs is not None and state.runs >= policies.max_runs:
        return None, f"over after {policies.max_runs} run{'s' if policies.max_runs != 1 else ''}"
    try:
        run = next(upcoming(entry, state, points, sent_only=True), None)
    except BlackedOut:
        return None, "blacked out"
    return run, "no run is left" if run is None else ""


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
    decision: Decision = SEND
    """Decision for it, as far as it can be foreseen."""
    overdue: bool = False
    """True if it should have left already: it leaves as soon as there is a leader."""
    waits: bool = False
    """True if it leaves when the run before has ended."""

    @property
    def skip(self) -> Skip | None:
        """Why it will not be sent, if so."""
        return self.decision.skip

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
        """The exceptions in words: it is not sent, waits, is overdue, or is moved by a clock change."""
        skip = "" if self.skip is None else _SKIPS.get(self.skip, f"not sent: {self.skip.value}")
        late = WAITS if self.waits else "overdue" if self.overdue else ""
        return "; ".join(filter(None, (skip or late, _DST[dst_note(self.entry.schedule, self.due_at)])))


def upcoming(entry: Entry, state: EntryState, points: ResumePoints, *, sent_only: bool = False) -> Iterator[Upcoming]:
    """The runs of an entry that a leader makes which resumes it at ``points.now_ms``, in order.

    With ``sent_only`` without those that are skipped: blackouts are jumped over. Raises
    :class:`~beatd.exceptions.ScheduleError` if the search for one that is sent takes too long.
    """
    line, due_ms, remaining_runs, _ = points.of(entry, state)
    expired = 0
    while due_ms is not None:
        if sent_only and (due_ms := after_blackouts_ms(entry, line, due_ms)) is None:
            return
        run = planned_run(entry, line, due_ms, points.now_ms)
        if run.overdue and points.waiting.get(entry.name) == due_ms:
            run = run._replace(overdue=False, waits=True)
        if run.skip is None or not sent_only:
            expired = 0
            yield run
        elif isinstance(entry.options.expires, datetime):  # so have all that follow
            return
        elif (expired := expired + 1) == EXPIRED_IN_A_ROW:
            raise ScheduleError(f"its next {EXPIRED_IN_A_ROW:,} runs have expired")
        if run.skip is None and remaining_runs is not None:
            remaining_runs -= 1
            if remaining_runs == 0:
                return
        passed_ms = run.decision.passed_ms
        due_ms = next_due_ms(line, due_ms if passed_ms is None else passed_ms)


def planned_run(entry: Entry, line: Schedule, due_ms: int, now_ms: int) -> Upcoming:
    """The run of ``entry`` that is due at ``due_ms`` on its timeline, as the daemon decides when it leaves."""
    leaves_ms = fire_ms(entry, line, due_ms)
    overdue, policies = leaves_ms <= now_ms, entry.policies
    if policies.blackout is None and entry.options.expires is None and policies.overlap != "queue_one":
        return Upcoming(leaves_ms, due_ms, entry, SEND, overdue)
    facts = Facts(max(leaves_ms, now_ms), frozenset(), {})
    return Upcoming(leaves_ms, due_ms, entry, decide(Run(entry, due_ms, leaves_ms, line), "", facts), overdue)


def all_upcoming(
    entries: Iterable[Entry],
    now_ms: int,
    *,
    state_of: Callable[[Entry], EntryState] | None = None,
    until_ms: int | None = None,
    sent_only: bool = False,
    on_error: OnError | None = None,
    waiting: Mapping[str, int] = NOTHING_WAITS,
) -> Iterator[Upcoming]:
    """The runs of all entries that are due before ``until_ms``, in the order in which they leave.

    ``state_of`` gives the state of an entry, by default that of one that is new. With ``on_error`` an entry whose runs
    cannot be computed is passed to it and left out, and the others go on. ``waiting`` as in :func:`outlooks`.

    No run leaves before it is due: so an entry is not looked at before what leaves earlier has been taken.
    """
    points, unseen = ResumePoints(now_ms, waiting), new_state(now_ms)
    starts: list[tuple[int, str, Entry, EntryState]] = []
    for entry in entries:
        state, due_ms = _begin(entry, state_of or (lambda _: unseen), points, on_error)
        if due_ms is not None and (until_ms is None or due_ms < until_ms):
            starts.append((due_ms, entry.name, entry, state))
    starts.sort(key=itemgetter(0, 1))
    heap: _Waiting = []
    for due_ms, name, entry, state in starts:
        yield from _leaving(heap, (due_ms, name), until_ms)
        runs = upcoming(entry, state, points, sent_only=sent_only)
        _wait(heap, name, _isolated(entry, runs, on_error) if on_error else runs, until_ms)
    yield from _leaving(heap, None, until_ms)


OnError = Callable[[Entry, Exception], None]


def _isolated(entry: Entry, runs: Iterator[Upcoming], on_error: OnError) -> Iterator[Upcoming]:
    """The runs of an entry, up to the first that cannot be computed or shown."""
    try:
        for run in runs:
            _ = run.local, run.fire_at, run.note
            yield run
    except Exception as error:  # noqa: BLE001 - reported, and the others go on
        on_error(entry, error)


def _begin(
    entry: Entry, state_of: Callable[[Entry], EntryState], points: ResumePoints, on_error: OnError | None
) -> tuple[EntryState, int | None]:
    """Return the state of an entry and its first due time; of an entry without one the state does not matter."""
    try:
        state = state_of(entry)
        return state, points.of(entry, state).due_ms
    except Exception as error:
        if on_error is None:
            raise
        on_error(entry, error)
        return new_state(points.now_ms), None


_Waiting = list[tuple[int, str, Upcoming, Iterator[Upcoming]]]
"""A heap of the next runs of entries, with those that follow."""


def _leaving(waiting: _Waiting, before: tuple[int, str] | None, until_ms: int | None) -> Iterator[Upcoming]:
    while waiting and (before is None or waiting[0][:2] < before):
        _, name, run, following = heappop(waiting)
        yield run
        _wait(waiting, name, following, until_ms)


def _wait(waiting: _Waiting, name: str, runs: Iterator[Upcoming], until_ms: int | None) -> None:
    run = next(runs, None)
    if run is not None and (until_ms is None or run.due_ms < until_ms):
        heappush(waiting, (run.fire_ms, name, run, runs))


def counts_from_first_seen(entry: Entry) -> bool:
    """True for an interval whose phase is the moment at which a daemon first sees the entry."""
    schedule = entry.schedule
    return entry.policies.start is None and bind(schedule, from_ms(0)) is not schedule


def caveats(entries: Sequence[Entry], since: str) -> list[str]:
    """List what the file alone cannot know about the runs of ``entries``; ``since`` is where they begin."""
    enabled = [entry for entry in entries if entry.policies.enabled]
    notes = []
    if any(map(counts_from_first_seen, enabled)):
        notes.append(
            f"note: intervals without an anchor count from {since} here, in a daemon from when it first saw them"
        )
    if any(is_chain(entry.schedule) for entry in enabled):
        notes.append(f"note: relative intervals count from {since} here, in a daemon from the last run")
    if any(entry.policies.max_runs is not None for entry in enabled):
        notes.append(f"note: max_runs counts from {since} here, in a daemon from the entry's first run")
    return notes
