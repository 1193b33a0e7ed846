"""When: pure time, no clock, no I/O.

The promise: a schedule is a frozen value, and ``next_after(t)`` depends on nothing but the schedule and ``t``. The
answer is strictly later than ``t``, no run between the two is left out, and equal schedules give equal answers on every
host. Instants are UTC; a zone's wall clock is consulted only inside, by IANA name. Only ``is_due`` and its like, which
Celery's schedules have, ask a clock.
"""

from beatd.exceptions import ScheduleError
from beatd.schedules.blackout import Blackout, joined_blackout, parse_blackout
from beatd.schedules.crontab import crontab, crontab_parser
from beatd.schedules.duration import duration_ms, duration_text
from beatd.schedules.interval import bind, every, maybe_schedule, schedule
from beatd.schedules.parse import parse
from beatd.schedules.schedule import BaseSchedule, Schedule, once
from beatd.schedules.search import dst_note, is_chain, jittered_ms, latest, latest_ms, period_ms
from beatd.schedules.solar import solar
from beatd.schedules.timezone import zone

ParseException = ScheduleError
"""Celery's name."""

__all__ = [
    "BaseSchedule",
    "Blackout",
    "ParseException",
    "Schedule",
    "bind",
    "crontab",
    "crontab_parser",
    "dst_note",
    "duration_ms",
    "duration_text",
    "every",
    "is_chain",
    "jittered_ms",
    "joined_blackout",
    "latest",
    "latest_ms",
    "maybe_schedule",
    "once",
    "parse",
    "parse_blackout",
    "period_ms",
    "schedule",
    "solar",
    "zone",
]
