"""Questions that Celery lets code ask a schedule: is it due now, and how long is it until the next run?

The daemon never asks them. They alone depend on a clock and on the current app's time zone: both come from the app, as
in Celery, or else from the host and UTC.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Container
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, cast

from beatd.clock import SystemClock
from beatd.schedules.timezone import Zone, zone
from beatd.timestamps import from_ms

NowFunction = Callable[[], datetime]


class ScheduleState(NamedTuple):
    """State of a schedule: if it is due, and the seconds until it is to be asked again: Celery's ``schedstate``."""

    is_due: bool
    next: float


class TimeSource:
    """The time now and the zone of schedules that name none; the app replaces them by its own."""

    @staticmethod
    def now() -> datetime:
        return from_ms(SystemClock().now_ms())

    @staticmethod
    def timezone() -> str:
        return "UTC"


_source: Any = TimeSource


def set_time_source(source: Any) -> None:
    """Take the time and the zone from ``source``, which has the methods of :class:`TimeSource`."""
    global _source  # noqa: PLW0603 - one current app for each process
    _source = source


class DueMethods:
    """The methods that Celery's schedules have. A naive moment is in UTC."""

    __slots__ = ()

    nowfun: NowFunction | None = None
    """The clock that ``is_due`` asks, in place of the app's."""
    app: Any = None
    """The app that was given; it has no effect."""

    @abstractmethod
    def next_after(self, t: datetime, /) -> datetime | None: ...

    def now(self) -> datetime:
        """The time now, aware, of ``nowfun`` or of the app."""
        return _aware(_source.now() if self.nowfun is None else self.nowfun())

    def remaining_delta(self, last_run_at: datetime) -> tuple[datetime, timedelta, datetime]:
        """Return the last run, the time from it to the run after it, and the time now; all in UTC."""
        last = _aware(last_run_at).astimezone(UTC)
        due = self.in_local_zone().next_after(last)
        return last, timedelta.max if due is None else due - last, _aware(self.now()).astimezone(UTC)

    def remaining_estimate(self, last_run_at: datetime) -> timedelta:
        """Return the time from now until the run that follows ``last_run_at``: negative if that is past, and
        ``timedelta.max`` if there is none any more.
        """
        last, delta, now = self.remaining_delta(last_run_at)
        return delta if delta == timedelta.max else last + delta - now

    def is_due(self, last_run_at: datetime) -> ScheduleState:
        """Return whether a run that follows ``last_run_at`` is due now, and the seconds until the next one."""
        remaining = self.remaining_estimate(last_run_at)
        if remaining > timedelta(0):
            return ScheduleState(False, remaining.total_seconds())
        return ScheduleState(True, self.remaining_estimate(self.now()).total_seconds())

    def in_local_zone(self) -> DueMethods:
        """The schedule in the app's time zone, if it names none itself."""
        named: Zone | None = getattr(self, "zone", None)
        if named is None or not named.is_open:
            return self
        return cast(DueMethods, replace(cast(Any, self), zone=zone(_source.timezone())))


def _aware(moment: datetime) -> datetime:
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


OWN_TIME = ("is_due", "remaining_estimate", "remaining_delta", "next_after", "next_after_ms")
"""Names by which a subclass decides itself when it is due."""


def own_time(value: object, homes: Container[str]) -> str:
    """The method by which a schedule of the user's own decides when it is due, as text; empty if there is none.

    ``homes`` are the packages whose classes are known.
    """
    own = next((name for name in OWN_TIME if name in getattr(value, "__dict__", ())), "")
    if own:
        return own
    for each in type(value).__mro__:
        if each.__module__.partition(".")[0] in homes:
            break
        if own := next((name for name in OWN_TIME if name in vars(each)), ""):
            return f"{own} ({each.__module__}.{each.__qualname__})"
    return ""
