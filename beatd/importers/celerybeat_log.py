"""The log of celery beat: when it sent which entry."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime

from beatd.schedules import zone
from beatd.timestamps import to_ms

_SENT = re.compile(
    r"(\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d)(?:[,.](\d{3}))?"
    r"[^\n]{0,200}?Scheduler: Sending due task (.+) \(([^()\s]+)\)\s*$"
)
_LONGEST = 4_000


def sent_by_celery_beat(lines: Iterable[str], timezone: str) -> dict[str, list[int]]:
    """When each entry was sent (ms). Times of the log are on the clocks of ``timezone``."""
    where = zone(timezone).info
    found: dict[str, list[int]] = {}
    for line in lines:
        if len(line) > _LONGEST or (match := _SENT.search(line)) is None:
            continue
        try:
            moment = datetime.fromisoformat(match[1]).replace(tzinfo=where)
        except ValueError:
            continue
        found.setdefault(match[3], []).append(to_ms(moment) + int(match[2] or 0))
    return found
