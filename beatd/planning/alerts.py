"""Alerts: the difference between the conditions of now and those that a notification target knows of.

A condition is something that is wrong, and since when. It is reported to a target once; again after ``repeat``;
and when it is over. So a message is about a change, however many runs fail.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import NamedTuple

from beatd.model import AlertKind, Entry, NotifyTarget


class Subject(NamedTuple):
    """Kind of a condition, and what it is about: an entry, a shard or a daemon."""

    kind: AlertKind
    name: str

    @property
    def is_of_entry(self) -> bool:
        """True if it is about an entry."""
        return self.kind in _OF_ENTRIES

    @property
    def field(self) -> str:
        """The name of its mark in the store."""
        return f"{self.kind} {self.name}"

    @classmethod
    def of(cls, field: str) -> Subject:
        """Read a name of a mark."""
        kind, _, name = field.partition(" ")
        return cls(kind, name)  # type: ignore[arg-type]


class Condition(NamedTuple):
    """Something that is wrong. ``text``: the reason."""

    since_ms: int
    failures: int = 1
    """Failures in a row."""
    text: str = ""


class ToldCondition(NamedTuple):
    """A condition that was reported to a target, and when it was last reported."""

    since_ms: int
    told_ms: int

    @property
    def text(self) -> str:
        """The text of its mark in the store."""
        return f"{self.since_ms} {self.told_ms}"

    @classmethod
    def of(cls, text: str) -> ToldCondition:
        """Read the text of a mark; one that cannot be read counts as reported long ago."""
        words = text.split()
        return cls(int(words[0]), int(words[1])) if len(words) == 2 and all(map(str.isdigit, words)) else cls(0, 0)


class BriefFailure(NamedTuple):
    """Failures in a row that were over before they were reported."""

    since_ms: int
    end_ms: int
    failures: int


class Changes(NamedTuple):
    """Changes for a target: conditions to report, and marks to remove without a report."""

    begun: Mapping[Subject, Condition]
    lasting: Mapping[Subject, Condition]
    """Reported before, and to be reported again."""
    over: Mapping[Subject, ToldCondition]
    forgotten: frozenset[Subject]
    """Over, and not reported."""
    brief: Mapping[Subject, BriefFailure] = MappingProxyType({})
    """Begun and over since the last message."""

    @property
    def number(self) -> int:
        """Number of changes to report."""
        return len(self.begun) + len(self.lasting) + len(self.over) + len(self.brief)


_OF_ENTRIES = frozenset({"failure", "overdue", "missed", "held", "too_long"})
_MISSED_FOR_MS = 3_600_000
"""Time (ms) after the last missed run for which missed runs are reported."""


def is_for(target: NotifyTarget, entry: Entry) -> bool:
    """True if the target gets reports of the entry: it names the target, or names none and fits patterns and tags."""
    if entry.policies.notify is not None:
        return target.name in entry.policies.notify
    if target.tags and not set(target.tags).intersection(entry.policies.tags):
        return False
    return any(fnmatchcase(entry.name, pattern) for pattern in target.match)


def changes(
    target: NotifyTarget,
    conditions: Mapping[Subject, Condition],
    told: Mapping[Subject, ToldCondition],
    *,
    entry: Callable[[str], Entry | None],
    now_ms: int,
    is_unknown: Callable[[Subject], bool] = lambda _: False,
    recovered: Iterable[tuple[str, BriefFailure]] = (),
) -> Changes:
    """Return the changes for a target. ``is_unknown`` is true for what could not be checked: it is not over.

    ``recovered`` are entries that succeeded after failures since the target's last message, the oldest first.

    An entry that left the schedule, or that another target is told of now, is forgotten without a word.
    """
    begun, lasting = {}, {}
    wanted = {each: one for each, one in conditions.items() if _is_wanted(target, each, one, entry)}
    for subject, condition in wanted.items():
        before = told.get(subject)
        if before is None or (subject.kind == "missed" and condition.since_ms > before.since_ms):
            begun[subject] = condition
        elif target.repeat_ms and subject.kind != "missed" and abs(now_ms - before.told_ms) >= target.repeat_ms:
            lasting[subject] = condition  # abs: after a step of the clock it is reported at once, and then as before
    over, forgotten = {}, set()
    for subject, before in told.items():
        if subject in wanted or is_unknown(subject):
            continue
        is_told = "recovery" in target.on and subject.kind != "missed" and _concerns(target, subject, entry)
        if is_told and subject not in conditions:
            over[subject] = before
        else:
            forgotten.add(subject)
    brief = {}
    for name, one in recovered:
        subject = Subject("failure", name)
        is_news = subject not in told and subject not in wanted
        if is_news and _is_wanted(target, subject, Condition(one.since_ms, one.failures), entry):
            brief[subject] = one
    return Changes(begun, lasting, over, frozenset(forgotten), brief)


def _is_wanted(
    target: NotifyTarget, subject: Subject, condition: Condition, entry: Callable[[str], Entry | None]
) -> bool:
    if subject.kind not in target.on or (subject.kind == "failure" and condition.failures < target.after):
        return False
    return _concerns(target, subject, entry)


def _concerns(target: NotifyTarget, subject: Subject, entry: Callable[[str], Entry | None]) -> bool:
    if not subject.is_of_entry:
        return True
    found = entry(subject.name)
    return found is not None and is_for(target, found)


def is_recent(before_ms: int, now_ms: int) -> bool:
    """True if runs that were missed until then are reported."""
    return abs(now_ms - before_ms) < _MISSED_FOR_MS
