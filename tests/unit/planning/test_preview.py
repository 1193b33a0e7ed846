"""Runs to come, from the file alone."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice

from beatd import config
from beatd.model import Entry, EntryState
from beatd.planning.catchup import ResumePoints
from beatd.planning.policies import Skip
from beatd.planning.preview import Upcoming, all_upcoming, caveats, new_state
from beatd.planning.preview import upcoming as upcoming_of
from beatd.timestamps import to_ms


def at(year: int, month: int, day: int, hour: int = 0) -> int:
    return to_ms(datetime(year, month, day, hour, tzinfo=UTC))


def entry(name: str = "a", **fields: object) -> Entry:
    return config.entry(name, {"task": "t", **fields})


def upcoming(of: Entry, after_ms: int) -> Iterator[Upcoming]:
    return upcoming_of(of, new_state(after_ms), ResumePoints(after_ms))


def dues(of: Entry, after_ms: int, count: int) -> list[str]:
    return [f"{run.due_at:%m-%dT%H:%M}" for run in islice(upcoming(of, after_ms), count)]


def test_an_interval_counts_from_the_start() -> None:
    assert dues(entry(schedule="10m"), at(2026, 1, 1), 2) == ["01-01T00:10", "01-01T00:20"]


def test_start_is_the_first_moment_and_end_the_last() -> None:
    hourly = entry(
        schedule="@hourly", start=datetime(2026, 1, 1, 5, tzinfo=UTC), end=datetime(2026, 1, 1, 7, tzinfo=UTC)
    )
    assert dues(hourly, at(2026, 1, 1), 9) == ["01-01T05:00", "01-01T06:00", "01-01T07:00"]


def test_blacked_out_runs_are_shown_and_marked() -> None:
    shadowed = entry(schedule="0 */6 * * *", blackout="05:00-13:00")
    runs = list(islice(upcoming(shadowed, at(2026, 1, 1)), 4))
    assert [(f"{run.due_at:%m-%dT%H}", run.skip, run.note) for run in runs] == [
        ("01-01T06", Skip.BLACKOUT, "not sent: blackout"),
        ("01-01T12", Skip.BLACKOUT, "not sent: blackout"),
        ("01-01T18", None, ""),
        ("01-02T00", None, ""),
    ]


def test_runs_after_the_moment_up_to_which_messages_are_worth_sending_are_marked() -> None:
    expiring = entry(schedule="@daily", options={"expires": datetime(2026, 1, 2, 12, tzinfo=UTC)})
    assert [run.skip for run in islice(upcoming(expiring, at(2026, 1, 1)), 3)] == [None, Skip.EXPIRED, Skip.EXPIRED]


def test_max_runs_counts_what_is_sent_only() -> None:
    twice = entry(schedule="0 */6 * * *", blackout="05:00-07:00", max_runs=2)
    assert dues(twice, at(2026, 1, 1), 9) == ["01-01T06:00", "01-01T12:00", "01-01T18:00"]


def test_an_interval_counts_from_its_start_or_from_when_it_was_first_seen() -> None:
    began = entry(schedule="10m", start=datetime(2026, 1, 1, 0, 5, tzinfo=UTC))
    assert dues(began, at(2026, 1, 1), 2) == ["01-01T00:05", "01-01T00:15"]
    seen = EntryState(at(2026, 1, 1) + 900_000, at(2026, 1, 1), 0)
    runs = islice(upcoming_of(entry(schedule="10m"), seen, ResumePoints(at(2026, 1, 1) + 900_000)), 2)
    assert [f"{run.due_at:%H:%M}" for run in runs] == ["00:20", "00:30"]


def test_what_the_file_does_not_know_is_said_once() -> None:
    several = [entry("a", schedule=10), entry("b", schedule=20), entry("c", schedule="@daily", max_runs=3)]
    first, second = caveats(several, "now")
    assert first.startswith("note: intervals without an anchor count from now here")
    assert second.startswith("note: max_runs counts from now here")
    anchored = entry(schedule={"every": 10, "anchor": datetime(2026, 1, 1, tzinfo=UTC)})
    started = entry(schedule=10, start=datetime(2026, 1, 1, tzinfo=UTC))
    assert caveats([anchored, started, entry(schedule="@daily"), entry(schedule=1, enabled=False)], "now") == []


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


def test_a_relative_interval_is_caught_up_as_it_would_have_run() -> None:
    relative = entry(schedule={"every": "3h", "relative": True})
    state, now_ms = EntryState(at(2026, 1, 1, 9), at(2026, 1, 1), 3), at(2026, 1, 1, 16) + 600_000
    assert ResumePoints(now_ms).of(relative, state).due_ms == at(2026, 1, 1, 15)
    every_one = entry(schedule={"every": "3h", "relative": True}, catch_up="all", catch_up_window="5h")
    assert ResumePoints(now_ms).of(every_one, state).due_ms == at(2026, 1, 1, 12)
    runs = islice(upcoming_of(every_one, state, ResumePoints(now_ms)), 3)
    assert [run.due_ms for run in runs] == [at(2026, 1, 1, hour) for hour in (12, 15, 18)]


def test_what_a_file_cannot_know_of_relative_intervals_is_noted() -> None:
    [note] = caveats([entry(schedule=["0 3 * * *", {"every": "3h", "relative": True}])], "now")
    assert note == "note: relative intervals count from now here, in a daemon from the last run"
