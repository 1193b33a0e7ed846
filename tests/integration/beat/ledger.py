"""What should become of one entry whatever happens, told without heap, store and bisection: run by run, by the docs.

The instants are what the leader's clock shows. ``load`` is called when a leader begins, when it looks at the entry
after a change, and when it finds that it was late or that its clock was set; ``serve`` when time has passed in which it
led. A clock that is set back blurs what is due until the latest time that it has shown: that is sent at most once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import NamedTuple

from beatd.model import Entry, run_id
from beatd.planning.timeline import fire_ms, hidden, timeline
from beatd.schedules import Schedule, bind, is_chain
from beatd.timestamps import to_ms

LATE = 20_000
MINUTE, DAY = 60_000, 86_400_000
RETRY = 500


class Sent(NamedTuple):
    """A run that leaves at ``at_ms``."""

    name: str
    due_ms: int
    at_ms: int


class Limits(NamedTuple):
    """Limits of an entry (ms)."""

    start: int | None
    end: int | None
    max_runs: int | None


def limits_of(entry: Entry) -> Limits:
    policies = entry.policies
    return Limits(policies.start and to_ms(policies.start), policies.end and to_ms(policies.end), policies.max_runs)


class Ledger:
    """One entry. ``takes`` returns how long (ms) a run takes by its id, None for ever."""

    def __init__(self, name: str, takes: Callable[[str], int | None]) -> None:
        self.name = name
        self._takes = takes
        self.sent: list[Sent] = []
        self.blurred_ms = 0
        """What is due until then may be sent, once."""
        self.is_vague = False
        """True if nothing more is known of it but that no run is sent twice."""
        self.was_off = False
        """True if it was not in force for a while since a leader has loaded it."""
        self._schedule: Schedule | None = None
        self._limits: Limits | None = None
        self._first_seen = self._base = self._count = 0
        self._entry: Entry | None = None
        self._line: Schedule
        self._due: int | None = None
        self._at = self._leaves = 0
        """The next run, and the earliest instant at which it may be decided about; when it leaves, if it has waited."""
        self._running: tuple[int | None, int] = (0, 0)
        """When the last run ends, and when it counts as over at the latest."""

    def load(self, entry: Entry | None, now: int, *, is_noticed: bool = True) -> None:
        """A leader looks at the entry; one that is not in the schedule counts as off once that ``is_noticed``."""
        self._entry = None
        if entry is None:
            self.was_off = self.was_off or is_noticed
            return
        start, limits = entry.policies.start, limits_of(entry)
        schedule = entry.schedule if start is None else bind(entry.schedule, start)
        before, self._limits = self._limits, limits
        if schedule != self._schedule:
            self._schedule, self._first_seen, self._base = schedule, now, now
        elif self.was_off or not entry.policies.enabled:
            self._base = now
        elif before != limits and before is not None:
            self._base = max(self._base, self._kept_until(before, now))
        self._base = max(self._base, self.blurred_ms)
        self.was_off = not entry.policies.enabled
        self._look_blurred(entry)
        if entry.policies.enabled:
            self._entry, self._line = entry, timeline(entry, self._first_seen)
            self._resume(entry, now)

    def _look_blurred(self, entry: Entry) -> None:
        """What depends on the runs before cannot be told of an entry of which some may have been sent."""
        counts = entry.policies.max_runs is not None or entry.policies.overlap != "allow"
        if self.blurred_ms and (counts or is_chain(entry.schedule)):
            self.is_vague = True

    def _kept_until(self, before: Limits, now: int) -> int:
        """Until when other limits did not let it run."""
        if before.end is not None and before.end < now:
            return now
        if before.max_runs is not None and self._count >= before.max_runs:
            return now
        return 0 if before.start is None else min(before.start - 1, now)

    def _dues(self, after: int) -> Iterator[int]:
        due = self._line.next_after_ms(after)
        while due is not None:
            yield due
            due = self._line.next_after_ms(due)

    def _resume(self, entry: Entry, now: int) -> None:
        """Decide about missed runs."""
        missed = list[int]()
        to_come = None
        for due in self._dues(self._base):
            if fire_ms(entry, self._line, due) > now:
                to_come = due
                break
            missed.append(due)
        self._at, self._leaves = now, 0
        if not missed or fire_ms(entry, self._line, missed[0]) >= now - LATE:
            self._due = next(iter(missed), to_come)
            return
        chosen = self._caught_up(entry, missed, now)
        if chosen:
            self._due = chosen[0]
        elif to_come is not None and to_come <= now:  # it waits for its jitter
            self._base, self._due = missed[-1], to_come
        else:
            self._base, self._due = now, self._line.next_after_ms(now)

    def _caught_up(self, entry: Entry, missed: list[int], now: int) -> list[int]:
        policies = entry.policies
        if policies.catch_up == "none":
            return []
        window = policies.catch_up_window_ms
        if window is None and policies.catch_up == "all":
            window = DAY
        elif window is None:
            first, second = (*self._next(self._base, 2), None, None)[:2]
            window = DAY if first is None or second is None else min(max(second - first, MINUTE), DAY)
        open_dues = [due for due in missed if due > now - window and not hidden(entry, due)]
        return open_dues[-1:] if policies.catch_up == "latest" else open_dues[-policies.catch_up_max :]

    def _next(self, after: int, number: int) -> list[int]:
        return [due for due, _ in zip(self._dues(after), range(number), strict=False)]

    def fires_ms(self) -> int | None:
        """When its next run is decided about."""
        entry, due = self._entry, self._due
        if entry is None or due is None or self._count >= (entry.policies.max_runs or self._count + 1):
            return None
        return max(fire_ms(entry, self._line, due), self._at)

    def stand_still(self, until: int) -> None:
        """Nothing was decided before then."""
        self._at = max(self._at, until)

    def serve(self, until: int) -> None:
        """A leader works until then."""
        while self._entry is not None and self._due is not None and (at := self.fires_ms()) is not None and at <= until:
            passed = self._decide(self._entry, self._due, at)
            if passed is None:
                self._at = self._leaves = at + RETRY  # from when its lifetime counts, too
            else:
                self._base, self._leaves = passed, 0
                self._due = self._line.next_after_ms(passed)

    def _decide(self, entry: Entry, due: int, at: int) -> int | None:
        """Send or skip a run; returns up to when runs are dealt with, None if it waits."""
        overlap = entry.policies.overlap
        if hidden(entry, due) or self._is_expired(entry, due, at):
            return due
        if overlap != "allow" and self._is_busy(entry, at):
            return due if overlap == "skip" else None
        self.sent.append(Sent(self.name, due, at))
        self._count += 1
        self.runs(entry, run_id(self.name, due), at)
        if overlap != "queue_one":
            return due
        return max([due, *(later for later in self._until(due, at))])

    def _until(self, after: int, until: int) -> Iterator[int]:
        for due in self._dues(after):
            if due > until:
                return
            yield due

    def runs(self, entry: Entry, id_: str, at: int) -> None:
        """A run of it was sent, by schedule or by hand."""
        if entry.policies.overlap == "allow":
            return
        takes = self._takes(id_)
        self._running = (None if takes is None else at + takes, at + (entry.policies.max_runtime_ms or 60 * MINUTE))

    def _is_busy(self, entry: Entry, at: int) -> bool:
        ends, until = self._running
        return not (ends is not None and ends <= at) and 0 < until - at <= (
            entry.policies.max_runtime_ms or 60 * MINUTE
        )

    def _is_expired(self, entry: Entry, due: int, at: int) -> bool:
        match entry.options.expires:
            case None:
                return False
            case "auto":
                following = self._line.next_after_ms(due)
                return following is not None and following <= at
            case datetime() as moment:
                return to_ms(moment) <= at
            case lifetime:
                return (self._leaves or fire_ms(entry, self._line, due)) + lifetime <= at

    def blur(self, until: int) -> None:
        """The clock is set back: what is due until the latest time that it has shown may be sent, once."""
        self.blurred_ms = max(self.blurred_ms, until)
        entry = self._entry
        self._base = max(self._base, until)
        if entry is not None:
            self._look_blurred(entry)
            self._due = next(self._dues(self._base), None)
