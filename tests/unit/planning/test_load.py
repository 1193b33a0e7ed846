"""Load: blackouts of a window are those of the entries that have them, on the clocks of their zones."""

from __future__ import annotations

from datetime import UTC, datetime

from beatd import config
from beatd.model import Entry
from beatd.planning.load import closed_times
from beatd.timestamps import to_ms

START = to_ms(datetime(2026, 6, 1, tzinfo=UTC))
HOUR, DAY = 3_600_000, 86_400_000


def entry(name: str, timezone: str, **fields: object) -> Entry:
    table = {"task": "t", "schedule": "@hourly", "timezone": timezone, "blackout": "10:00-11:00", **fields}
    return config.entry(name, table)


def test_blackouts_that_are_written_alike_in_two_zones_are_two() -> None:
    entries = [entry(name, zone) for name, zone in (("a", "Europe/Berlin"), ("b", "UTC"), ("c", "Europe/Berlin"))]
    entries.append(entry("d", "UTC", enabled=False))
    spans = {tuple(one.entries): one.spans for one in closed_times(entries, START, START + DAY)}
    assert spans == {
        ("a", "c"): [(START + 8 * HOUR, START + 9 * HOUR)],
        ("b",): [(START + 10 * HOUR, START + 11 * HOUR)],
    }
