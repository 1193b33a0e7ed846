"""The schedule: a frozen value with one method; one run at one moment, and the union of several schedules.

An entry with a union runs whenever one of them does, and once when several do at the same moment.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, tzinfo
from hashlib import blake2b
from typing import Any, Protocol, runtime_checkable

from beatd.exceptions import ScheduleError
from beatd.schedules.due import DueMethods, NowFunction, own_time
from beatd.schedules.duration import instant_ms, instant_text
from beatd.schedules.timezone import zone
from beatd.timestamps import from_ms, to_ms

#: Longest fingerprint that is written out; longer meanings are hashed.
FINGERPRINT_LENGTH = 64


@runtime_checkable
class Schedule(Protocol):
    """When an entry runs. Frozen and hashable; two schedules are equal when they mean the same."""

    def next_after(self, t: datetime, /) -> datetime | None:
        """The first run strictly later than the aware datetime ``t``, in UTC; None when there is none any more."""

    def next_after_ms(self, t_ms: int, /) -> int | None:
        """The same in whole milliseconds since 1970-01-01T00:00:00Z, for any ``t_ms``; none after the year 9998."""

    @property
    def notation(self) -> object:
        """The notation (str, number, dict or list) that ``parse`` reads back as an equal schedule."""

    @property
    def fingerprint(self) -> str:
        """A short stable text that changes if and only if the meaning does: fields, zone and DST rule."""


class BaseSchedule(DueMethods):
    """The base of all kinds: equality by meaning, and datetimes on top of integers.

    ``meaning`` is the canonical text of everything that decides when the schedule runs, and of nothing else. Each kind
    has its own ``meaning``, ``notation`` and ``next_after_ms``; a class of the user's need not, since it can only be
    asked whether it is due.
    """

    __slots__ = ()

    def __init__(self, nowfun: NowFunction | None = None, app: Any = None) -> None:
        vars(self).update(nowfun=nowfun, app=app)

    @property
    def meaning(self) -> str:
        return object.__repr__(self)

    @property
    def notation(self) -> object:
        raise ScheduleError(without_times(self))

    def next_after_ms(self, t_ms: int, /) -> int | None:
        raise NotImplementedError(without_times(self))

    def next_after(self, t: datetime, /) -> datetime | None:
        due_ms = self.next_after_ms(to_ms(t))
        return None if due_ms is None else from_ms(due_ms)

    @property
    def fingerprint(self) -> str:
        return shorten(self.meaning)

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, BaseSchedule) and self.meaning == other.meaning)

    def __hash__(self) -> int:
        return hash(self.meaning)

    def __repr__(self) -> str:
        return f"<{self.meaning}>"

    def __str__(self) -> str:
        return self.meaning


class StandIn(BaseSchedule):
    """The base of ``crontab``, ``schedule`` and ``solar``: classes with Celery's names, from which code may derive.

    Each object stands for a ``value``, by which it is scheduled; the daemon has only that. Attributes of subclasses
    and ``nowfun`` concern ``is_due`` and its like.
    """

    @property
    @abstractmethod
    def value(self) -> BaseSchedule: ...

    @property
    def meaning(self) -> str:
        return self.value.meaning

    @property
    def notation(self) -> object:
        return self.value.notation

    def next_after_ms(self, t_ms: int, /) -> int | None:
        return self.value.next_after_ms(t_ms)

    def in_local_zone(self) -> DueMethods:
        return self.value.in_local_zone()

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"app": None}  # an app cannot be pickled


def value_of(schedule: Schedule) -> Schedule:
    """Return the value by which a schedule is scheduled.

    Raises ScheduleError for one of a class of the user's that decides itself when it is due: nobody asks it.
    """
    if own := own_time(schedule, {"beatd"}):
        raise ScheduleError(
            f"a schedule with its own {own} cannot be scheduled: runs are computed beforehand, nobody asks it; "
            "write its times as a crontab, an interval, a list of schedules or a blackout"
        )
    if type(schedule).next_after_ms is BaseSchedule.next_after_ms:
        raise ScheduleError(without_times(schedule))
    return schedule.value if isinstance(schedule, StandIn) else schedule


def without_times(schedule: object) -> str:
    """The reason why a subclass of BaseSchedule alone cannot be scheduled, and what to write."""
    kind = type(schedule)
    return (
        f"the class {kind.__module__}.{kind.__qualname__} has no times: all that is known is that it is a schedule; "
        "derive it from crontab, schedule or solar, and give these the times: super().__init__(minute=0, hour=7)"
    )


def shorten(meaning: str) -> str:
    """``meaning`` itself where it is short, else its kind and a 128-bit digest."""
    if len(meaning) <= FINGERPRINT_LENGTH:
        return meaning
    return f"{meaning.split(' ', 1)[0]} {blake2b(meaning.encode(), digest_size=16).hexdigest()}"


@dataclass(frozen=True, slots=True, repr=False, weakref_slot=True)
class Once(BaseSchedule):
    """A single run, ``at_ms`` milliseconds since the epoch. Build it with ``once`` or ``parse``."""

    at_ms: int

    def next_after_ms(self, t_ms: int, /) -> int | None:
        return self.at_ms if self.at_ms > t_ms else None

    @property
    def notation(self) -> object:
        return {"at": instant_text(self.at_ms)}

    @property
    def meaning(self) -> str:
        return f"once {instant_text(self.at_ms)}"


def once(at: object, *, timezone: str | tzinfo = "UTC") -> Once:
    """One run at that moment; a naive one is the wall time of ``timezone``. Raises ScheduleError."""
    return Once(instant_ms(at, zone(timezone), "at"))


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class Union(BaseSchedule):
    """Whenever one of ``parts`` runs. Build it with ``parse([...])``."""

    parts: tuple[Schedule, ...]

    def next_after_ms(self, t_ms: int, /) -> int | None:
        return min((due for part in self.parts if (due := part.next_after_ms(t_ms)) is not None), default=None)

    @property
    def notation(self) -> object:
        return [part.notation for part in self.parts]

    @property
    def meaning(self) -> str:
        return "union " + " | ".join(sorted(str(part) for part in self.parts))


def union(parts: Iterable[Schedule]) -> Schedule:
    """Their union: nested ones are flattened, equal ones are taken once, and a single one is itself."""
    flat: dict[Schedule, None] = {}
    for part in parts:
        flat.update(dict.fromkeys(part.parts if isinstance(part, Union) else (part,)))
    return Union(tuple(flat)) if len(flat) > 1 else next(iter(flat))
