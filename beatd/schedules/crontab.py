"""Celery's crontab: the same five fields and the same order of arguments; all of them must match."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import reduce
from operator import or_
from typing import Any

from beatd.exceptions import ScheduleError
from beatd.schedules.cron import DAY_OF_MONTH, DAY_OF_WEEK, HOUR, MINUTE, MONTH, Cron, CronField, Dst, cron, days
from beatd.schedules.cron_parser import mask_of, read_field
from beatd.schedules.due import NowFunction
from beatd.schedules.literals import toml
from beatd.schedules.timezone import zone

Spec = int | str | Iterable[int | str]

FIELDS = (MINUTE, HOUR, DAY_OF_WEEK, DAY_OF_MONTH, MONTH)
NAMES = tuple(field.name for field in FIELDS)


def crontab(
    minute: Spec = "*",
    hour: Spec = "*",
    day_of_week: Spec = "*",
    day_of_month: Spec = "*",
    month_of_year: Spec = "*",
    *,
    timezone: str | None = None,
    dst: Dst = "cron",
    nowfun: NowFunction | None = None,
    app: object = None,  # noqa: ARG001
) -> Cron:
    """A schedule by fields, with Celery's arguments in Celery's order.

    Each field is a number, a text (``"*/15"``, ``"mon-fri"``, ``"1,15"``) or a list of numbers. Unlike in a cron
    string, day of week *and* day of month must match. Sunday is 0 (7 is accepted). Without a ``timezone`` it is in
    that of the app or file that it is registered in. ``nowfun`` is the clock of ``is_due`` only; ``app`` has no effect.
    Raises ScheduleError.
    """
    given = {
        name: list(value) if not isinstance(value, str) and isinstance(value, Iterable) else value
        for name, value in zip(NAMES, (minute, hour, day_of_week, day_of_month, month_of_year), strict=True)
    }
    masks = [_mask(value, field) for value, field in zip(given.values(), FIELDS, strict=True)]
    wild = any(isinstance(value, str) and value.strip().startswith("*") for value in (minute, hour))
    return cron(
        {name: value for name, value in given.items() if value != "*"} or {"minute": "*"},
        days(masks[3], masks[4], masks[2]),
        minutes=masks[0],
        hours=masks[1],
        fixed=not wild,
        zone=zone(timezone),
        dst=dst,
    ).asking(nowfun)


def from_string(text: str, **options: Any) -> Cron:
    """Make a schedule of a text with Celery's fields, all of which must match: minute, hour, day of month, month, day
    of week. ``options`` are those of :func:`crontab`. Raises ScheduleError.
    """
    fields = text.split()
    if len(fields) != len(FIELDS):
        raise ScheduleError(f'"{text}" has {len(fields)} fields; expected minute, hour, day of month, month, weekday')
    minute, hour, day_of_month, month_of_year, day_of_week = fields
    return crontab(minute, hour, day_of_week, day_of_month, month_of_year, **options)


crontab.from_string = from_string  # type: ignore[attr-defined]  # Celery's crontab is a class with this method


def read_table(table: Mapping[str, object], timezone: str, dst: Dst) -> Cron:
    """The crontab of a table such as ``{ minute = "30", hour = "7", day_of_week = "1" }``, its keys among NAMES."""
    return crontab(**table, timezone=timezone, dst=dst)  # type: ignore[arg-type]


def _mask(value: object, field: CronField) -> int:
    if isinstance(value, str):
        return read_field(value, field, celery=True)
    if isinstance(value, int) and not isinstance(value, bool):
        return mask_of((value,), field)
    if isinstance(value, list) and value and all(isinstance(part, int | str) for part in value):
        return reduce(or_, (_mask(part, field) for part in value))
    raise ScheduleError(f'{field.name} = {toml(value)}: expected a number, a text such as "*/5" or a list of numbers')
