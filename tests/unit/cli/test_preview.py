"""Runs to come, from the file alone."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import islice

from beatd import config
from beatd.cli.preview import all_upcoming, upcoming
from beatd.clock import to_ms
from beatd.model import Entry


def at(year: int, month: int, day: int, hour: int = 0) -> int:
    return to_ms(datetime(year, month, day, hour, tzinfo=UTC))


def entry(name: str = "a", **fields: object) -> Entry:
    return config.entry(name, {"task": "t", **fields})


def dues(of: Entry, after_ms: int, count: int) -> list[str]:
    return [f"{run.due_at:%m-%dT%H:%M}" for run in islice(upcoming(of, after_ms), count)]


def test_an_interval_counts_from_the_start() -> None:
    assert dues(entry(schedule="10m"), at(2026, 1, 1), 2) == ["01-01T00:10", "01-01T00:20"]


def test_start_is_the_first_moment_and_end_the_last() -> None:
    hourly = entry(
        schedule="@hourly", start=datetime(2026, 1, 1, 5, tzinfo=UTC), end=datetime(2026, 1, 1, 7, tzinfo=UTC)
    )
    assert dues(hourly, at(2026, 1, 1), 9) == ["01-01T05:00", "01-01T06:00", "01-01T07:00"]


def test_blackouts_are_left_out() -> None:
    assert dues(entry(schedule="0 */6 * * *", blackout="05:00-13:00"), at(2026, 1, 1), 3) == [
        "01-01T18:00",
        "01-02T00:00",
        "01-02T18:00",
    ]


def test_an_entry_that_is_not_enabled_has_no_runs() -> None:
    assert dues(entry(schedule=1, enabled=False), at(2026, 1, 1), 3) == []


def test_a_schedule_that_ends() -> None:
    once = entry(schedule={"at": datetime(2026, 1, 2, tzinfo=UTC)})
    assert dues(once, at(2026, 1, 1), 3) == ["01-02T00:00"]
    assert dues(once, at(2026, 1, 3), 3) == []


def test_jitter_moves_what_leaves_and_not_what_is_due() -> None:
    runs = list(islice(upcoming(entry(schedule="@hourly", jitter="30m"), at(2026, 1, 1)), 50))
    delays = {run.fire_ms - run.due_ms for run in runs}
    assert len(delays) > 10
    assert all(0 <= delay <= 1_800_000 for delay in delays)
    assert all(run.due_ms % 3_600_000 == 0 for run in runs)


def test_all_entries_are_merged_by_the_time_at_which_they_leave() -> None:
    entries = [entry("b", schedule="*/20 * * * *"), entry("a", schedule="*/30 * * * *")]
    merged = [(run.entry.name, f"{run.due_at:%H:%M}") for run in islice(all_upcoming(entries, at(2026, 1, 1)), 5)]
    assert merged == [("b", "00:20"), ("a", "00:30"), ("b", "00:40"), ("a", "01:00"), ("b", "01:00")]


def test_local_time_and_what_the_clock_does() -> None:
    berlin = entry(schedule="30 2 * * *", timezone="Europe/Berlin")
    spring = list(islice(upcoming(berlin, at(2026, 3, 28)), 3))
    assert [(f"{run.local:%d %H:%M %Z}", run.note) for run in spring] == [
        ("28 02:30 CET", ""),
        ("29 03:00 CEST", "moved out of the skipped hour"),
        ("30 02:30 CEST", ""),
    ]
    (autumn,) = islice(upcoming(berlin, at(2026, 10, 24, 12)), 1)
    assert (f"{autumn.local:%d %H:%M %Z}", autumn.note) == ("25 02:30 CEST", "in the repeated hour")
