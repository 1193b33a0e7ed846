"""One function reads every notation of a schedule."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import cast
from weakref import WeakValueDictionary

from beatd.exceptions import ScheduleError
from beatd.schedules.cron import Cron, Dst
from beatd.schedules.cron_parser import ALIASES, is_named, read_cron
from beatd.schedules.crontab import NAMES, read_table
from beatd.schedules.duration import duration_ms
from beatd.schedules.interval import Relative, every
from beatd.schedules.literals import or_list, quoted, toml
from beatd.schedules.schedule import BaseSchedule, Schedule, Union, once, union, value_of
from beatd.schedules.solar import solar_event
from beatd.schedules.timezone import zone

_EVERY = re.compile(r"@?every\s", re.IGNORECASE)
#: Which keys make which kind of table; the first key is the one that names the kind.
_TABLES = {"every": ("every", "anchor", "relative"), "solar": ("solar", "lat", "lon"), "at": ("at",), "cron": ("cron",)}
_EXPECTED = (
    'expected seconds (30), a duration ("1h30m"), a cron string ("30 7 * * mon"), or a table with every, cron, at, '
    "solar or Celery's crontab fields"
)
_NOTATIONS = (str, int, float, timedelta, Mapping)
_known: WeakValueDictionary[tuple[object, ...], BaseSchedule] = WeakValueDictionary()
_unions: WeakValueDictionary[tuple[int, ...], Union] = WeakValueDictionary()
"""Unions by the identities of their parts, which they keep alive."""


def parse(value: object, *, timezone: str = "UTC", name: str = "", dst: Dst = "cron") -> Schedule:
    """The schedule that ``value`` denotes; equal values in one zone give the same object.

    ``value`` is a number of seconds, a timedelta, a duration (``"30s"``, ``"1h30m"``, ``"PT30S"``, ``"every 30s"``), a
    cron string (5 fields, 6 with the seconds first, ``@daily``, ``H``), a table (Celery's crontab fields;
    ``{every=, anchor=, relative=}``; ``{solar=, lat=, lon=}``; ``{at=}``; ``{cron=}``), a list of all these (their
    union), or a schedule: its value, as it is if its zone is named. ``name`` is the entry's, for ``H``. ``dst``
    is what happens to a fixed time in the gap of a clock change: ``"cron"`` moves it to the end of the gap, ``"skip"``
    leaves it out.

    Raises ScheduleError, which names what is wrong and what would be right.
    """
    if isinstance(value, BaseSchedule):
        found = value_of(value)
        if not isinstance(found, Cron | Relative) or not found.zone.is_open:
            return found
        if isinstance(found, Cron) and found.skip:
            dst = "skip"
        value = found.notation
    if dst not in ("cron", "skip"):
        raise ScheduleError(f'dst = {toml(dst)}: expected "cron" or "skip"')
    if isinstance(value, list | tuple):
        return _read_list(value, timezone, name, dst)
    if not isinstance(value, _NOTATIONS) and isinstance(value, Schedule):
        zone(timezone)
        return value
    said = value if isinstance(value, str) else _as_key(value)
    key = (type(value), said, timezone, dst, name if is_named(value) else "")
    if (known := _known.get(key)) is None:
        known = _known[key] = cast(BaseSchedule, _read(value, timezone, name, dst))
    return known


def _as_key(value: object) -> str:
    try:
        return repr(value)
    except ValueError:  # Python writes out numbers of 4,300 digits, not more
        raise ScheduleError("a number with more than 4,300 digits is out of range") from None


def _read(value: object, timezone: str, name: str, dst: Dst) -> Schedule:
    zone(timezone)  # an unknown one is an error also where the schedule has no use for it
    if isinstance(value, str):
        return _read_text(value, timezone, name, dst)
    if isinstance(value, int | float | timedelta) and not isinstance(value, bool):
        return every(value)
    if isinstance(value, Mapping):
        return _read_table(value, timezone, name, dst)
    raise ScheduleError(f"{toml(value)} is not a schedule: {_EXPECTED}")


def _read_list(values: Sequence[object], timezone: str, name: str, dst: Dst) -> Schedule:
    """The union of a list; schedules of Python's in it may look alike and differ in zone or class."""
    if not values:
        raise ScheduleError("an empty list of schedules never runs; give at least one, or set enabled = false")
    made = union([parse(part, timezone=timezone, name=name, dst=dst) for part in values])
    return _unions.setdefault(tuple(map(id, made.parts)), made) if isinstance(made, Union) else made


def _read_text(text: str, timezone: str, name: str, dst: Dst) -> Schedule:
    stripped = text.strip()
    if not stripped:
        raise ScheduleError(f"an empty text is not a schedule: {_EXPECTED}")
    if interval := _EVERY.match(stripped):
        return every(stripped[interval.end() :], timezone=timezone)
    if stripped.startswith("@") or "*" in stripped or (len(stripped.split()) > 2 and not _is_duration(stripped)):
        return read_cron(stripped, timezone, name, dst)
    if near := difflib.get_close_matches(f"@{stripped.lower()}", ALIASES, n=1, cutoff=0.9):
        raise ScheduleError(f'{quoted(text)} is not a schedule; did you mean "{near[0]}"?')
    return every(text, timezone=timezone)


def _is_duration(text: str) -> bool:
    """True for a duration with spaces, such as ``1h 30m 10s``: no cron string is one."""
    try:
        duration_ms(text)
    except ScheduleError:
        return False
    return True


def _read_table(table: Mapping[object, object], timezone: str, name: str, dst: Dst) -> Schedule:
    named = {str(key): value for key, value in table.items()}
    kinds = [kind for kind in _TABLES if kind in named]
    if not kinds:
        if not named:
            raise ScheduleError(f"an empty table is not a schedule: {_EXPECTED}")
        return read_table(_checked(named, NAMES, "a crontab table", also=_TABLES), timezone, dst)
    kind = kinds[0]
    _checked(named, _TABLES[kind], f'a table with "{kind}"')
    if kind == "every":
        relative = named.get("relative", False)
        if not isinstance(relative, bool):
            raise ScheduleError(f"relative = {toml(relative)}: expected true or false")
        return every(named["every"], anchor=named.get("anchor"), relative=relative, timezone=timezone)
    if kind == "solar":
        return solar_event(named["solar"], named.get("lat"), named.get("lon"))
    if kind == "at":
        return once(named["at"], timezone=timezone)
    if not isinstance(named["cron"], str):
        raise ScheduleError(f'cron = {toml(named["cron"])}: expected a cron string such as "30 7 * * mon"')
    return read_cron(named["cron"], timezone, name, dst)


def _checked(
    table: dict[str, object], names: tuple[str, ...], what: str, also: Mapping[str, object] = {}
) -> dict[str, object]:
    for key in table:
        if key not in names:
            near = difflib.get_close_matches(key, [*names, *also], n=1)
            hint = f'did you mean "{near[0]}"?' if near else f"expected {or_list(names)}"
            raise ScheduleError(f"unknown key {quoted(key)} in {what}; {hint}")
    return table
