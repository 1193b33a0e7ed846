"""Celery's crontab: the same five fields and the same order of arguments; all of them must match."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import tzinfo
from functools import reduce
from operator import or_
from typing import Any, Self

from beatd.exceptions import ScheduleError
from beatd.schedules.cron import (
    DAY_OF_MONTH,
    DAY_OF_WEEK,
    HOUR,
    MINUTE,
    MONTH,
    Cron,
    CronField,
    Dst,
    cron,
    days,
    values_of,
)
from beatd.schedules.cron_parser import mask_of, read_field
from beatd.schedules.due import NowFunction
from beatd.schedules.literals import toml
from beatd.schedules.schedule import StandIn
from beatd.schedules.timezone import zone

Spec = int | str | Iterable[int | str]

FIELDS = (MINUTE, HOUR, DAY_OF_WEEK, DAY_OF_MONTH, MONTH)
NAMES = tuple(field.name for field in FIELDS)


class crontab(StandIn):  # noqa: N801 - Celery's name
    """A schedule by fields, with Celery's arguments in Celery's order.

    Each field is a number, a text (``"*/15"``, ``"mon-fri"``, ``"1,15"``) or a list of numbers. Unlike in a cron
    string, day of week *and* day of month must match. Sunday is 0 (7 is accepted). Without a ``timezone`` it is in
    that of the app or file that it is registered in. ``nowfun`` is the clock of ``is_due`` only; ``app`` has no effect.
    Raises ScheduleError.
    """

    def __init__(
        self,
        minute: Spec = "*",
        hour: Spec = "*",
        day_of_week: Spec = "*",
        day_of_month: Spec = "*",
        month_of_year: Spec = "*",
        *,
        timezone: str | tzinfo | None = None,
        dst: Dst = "cron",
        nowfun: NowFunction | None = None,
        app: Any = None,
    ) -> None:
        fields = dict(zip(NAMES, (minute, hour, day_of_week, day_of_month, month_of_year), strict=True))
        self._value = read_table(fields, timezone, dst)
        super().__init__(nowfun, app)

    @classmethod
    def from_string(cls, text: str, **options: Any) -> Self:
        """Make a schedule of a text with Celery's fields, all of which must match: minute, hour, day of month, month,
        day of week. ``options`` are those of the class. Raises ScheduleError.
        """
        fields = text.split()
        if len(fields) != len(FIELDS):
            found = f'"{text}" has {len(fields)} fields'
            raise ScheduleError(f"{found}; expected minute, hour, day of month, month, weekday")
        minute, hour, day_of_month, month_of_year, day_of_week = fields
        return cls(minute, hour, day_of_week, day_of_month, month_of_year, **options)

    @property
    def value(self) -> Cron:
        return self._value

    @property
    def minute(self) -> set[int]:
        """The minutes of the hour."""
        return {value for value, found in enumerate(self._value.minutes) if value == found}

    @property
    def hour(self) -> set[int]:
        """The hours of the day."""
        return {value for value, found in enumerate(self._value.hours) if value == found}

    @property
    def day_of_week(self) -> set[int]:
        """The weekdays; Sunday is 0."""
        return set(values_of(self._value.days.dow))

    @property
    def day_of_month(self) -> set[int]:
        """The days of the month."""
        return set(values_of(self._value.days.dom))

    @property
    def month_of_year(self) -> set[int]:
        """The months of the year."""
        return set(values_of(self._value.days.months))


class crontab_parser:  # noqa: N801 - Celery's name
    """Parser of one field of a crontab: ``crontab_parser(24).parse("*/6")`` is the set 0, 6, 12 and 18.

    The field has ``max_`` values, from ``min_`` on. Names of months and weekdays are read in any field.
    """

    ParseException = ScheduleError

    def __init__(self, max_: int = 60, min_: int = 0) -> None:
        self.max_ = max_
        self.min_ = min_
        high = min_ + max_ - 1
        names = {**DAY_OF_WEEK.names, **MONTH.names}
        self._field = CronField("field", min_, high, {name: n for name, n in names.items() if min_ <= n <= high})

    def parse(self, spec: str) -> set[int]:
        """Return the values of a text such as ``1,5-9,*/15``; raises ScheduleError, which is a ValueError."""
        return set(values_of(read_field(spec, self._field, celery=True)))


def read_table(table: Mapping[str, object], timezone: str | tzinfo | None, dst: Dst) -> Cron:
    """The crontab of a table such as ``{ minute = "30", hour = "7", day_of_week = "1" }``, its keys among NAMES.

    A field that is missing is ``*``. Raises ScheduleError.
    """
    given = {
        name: list(value) if not isinstance(value, str) and isinstance(value, Iterable) else value
        for name, value in ((name, table.get(name, "*")) for name in NAMES)
    }
    masks = [_mask(value, field) for value, field in zip(given.values(), FIELDS, strict=True)]
    wild = any(map(_begins_with_star, (given["minute"], given["hour"])))
    return cron(
        {name: value for name, value in given.items() if value != "*"} or {"minute": "*"},
        days(masks[3], masks[4], masks[2]),
        minutes=masks[0],
        hours=masks[1],
        fixed=not wild,
        zone=zone(timezone),
        dst=dst,
    )


def _begins_with_star(value: object) -> bool:
    first = value[0] if isinstance(value, list) and value else value
    return isinstance(first, str) and first.strip().startswith("*")


def _mask(value: object, field: CronField) -> int:
    if isinstance(value, str):
        return read_field(value, field, celery=True)
    if isinstance(value, int) and not isinstance(value, bool):
        return mask_of((value,), field)
    if isinstance(value, list) and value and all(isinstance(part, int | str) for part in value):
        return reduce(or_, (_mask(part, field) for part in value))
    raise ScheduleError(f'{field.name} = {toml(value)}: expected a number, a text such as "*/5" or a list of numbers')
