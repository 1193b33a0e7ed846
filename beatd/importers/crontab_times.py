"""Times of a crontab that beatd writes in another way: steps that leave one value, random values, ``N/step``."""

from __future__ import annotations

import re

from beatd.schedules.cron import DAY_OF_MONTH, DAY_OF_WEEK, HOUR, MINUTE, MONTH, CronField

_FIELDS = (MINUTE, HOUR, DAY_OF_MONTH, MONTH, DAY_OF_WEEK)
_DAY_FIELDS = (2, 4)
_STEP = re.compile(r"(?:(\*)|(\d{1,2})(?:-(\d{1,2}))?)/(\d{1,6})")
_RANDOM = re.compile(r"(\d{1,2})?~(\d{1,2})?")


def plain_times(times: str) -> tuple[str, list[str]]:
    """The five times in beatd's notation, and what was changed in them. What is not known stays as it is."""
    parts = times.split(" ")
    if len(parts) != len(_FIELDS):
        return times, []
    changes: list[str] = []
    for place, field in enumerate(_FIELDS):
        other_day = parts[sum(_DAY_FIELDS) - place] if place in _DAY_FIELDS else "*"
        written = parts[place]
        if other_day != "*" and written.startswith("*"):
            continue  # a star in one of the two days changes what the other means
        parts[place] = ",".join(_plain(part, field) for part in written.split(","))
        if parts[place] != written:
            changes.append(f'"{written}" is written as "{parts[place]}"{_remark(written, parts[place])}')
    return " ".join(parts), changes


def _plain(part: str, field: CronField) -> str:
    if found := _STEP.fullmatch(part):
        return _without_long_step(part, found, field)
    if found := _RANDOM.fullmatch(part):
        low, high = found[1] or str(field.low), found[2] or str(field.high)
        return f"H({low}-{high})" if field is not DAY_OF_WEEK else f"H({low}-{min(int(high), field.high)})"
    return part


def _without_long_step(part: str, found: re.Match[str], field: CronField) -> str:
    first = field.low if found[1] else int(found[2])
    last = field.high if found[1] or not found[3] else int(found[3])
    step = int(found[4])
    if not field.low <= first <= last <= max(field.high, 7 if field is DAY_OF_WEEK else 0) or step == 0:
        return part
    if step > last - first:
        return str(first)
    return part if found[1] or found[3] else f"{first}-{last}/{step}"


def _remark(written: str, now: str) -> str:
    if "~" in written:
        return ": a value that depends on the entry's name and stays the same"
    return ": some crons run at the first value only" if "/" in now and "*" not in now else ""
