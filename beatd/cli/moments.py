"""Moments on the command line: ``now``, ``2026-03-29``, ``"2026-03-29 18:00"``, ``+1d``, ``-2h30m``."""

from __future__ import annotations

import click

from beatd.config.values import Wrong, moment
from beatd.epoch import in_range, to_ms
from beatd.exceptions import ScheduleError
from beatd.schedules import duration_ms
from beatd.schedules.literals import quoted

FORMS = 'expected a time such as 2026-12-31T23:59:00, a date, "now", or a distance such as +1d or -2h'


def read_moment(text: str, *, option: str, timezone: str, base_ms: int, now_ms: int) -> int:
    """The moment that ``text`` means, in ms since the epoch.

    A time without an offset is one of ``timezone``, a distance counts from ``base_ms``. Raises click.BadParameter.
    """
    written = text.strip()
    try:
        if written == "now":
            return now_ms
        if written[:1] in {"+", "-"}:
            distance_ms = duration_ms(written[1:])
            moment_ms = base_ms + (distance_ms if written[0] == "+" else -distance_ms)
        else:
            moment_ms = to_ms(moment(written, timezone))
    except (Wrong, ScheduleError) as error:
        said = str(error) if written[:1] in {"+", "-"} or "out of range" in str(error) else f"{quoted(text)}: {FORMS}"
        raise click.BadParameter(said, param_hint=option) from None
    if not in_range(moment_ms):
        said = f"{quoted(text)} is out of range: expected a moment in the years 1970 to 9998"
        raise click.BadParameter(said, param_hint=option)
    return moment_ms
