"""Advice on herds: entries move to where few others leave, and no further than their schedule allows."""

from collections import Counter

import pytest

from beatd.config import entry
from beatd.planning.advice import DAY_MS, advise, moved_entries
from beatd.planning.simulation import simulate

NOW = 1_790_035_200_000 // DAY_MS * DAY_MS


def made(count, schedule, **fields):
    return [entry(f"e{n:03}", {"task": "t", "schedule": schedule, **fields}) for n in range(count)]


def peak(entries):
    return simulate(entries, NOW, NOW + DAY_MS, limit=10_000_000, busiest=1).busiest[0].runs


@pytest.mark.parametrize(
    ("schedule", "options", "expected"),
    [
        ("0 3 * * *", {}, 10),
        ("0 3 * * *", {"within_s": 600}, 10),
        ("0 * * * *", {}, 10),
        ("*/10 * * * *", {}, 20),
        ("0 3 * * *", {"unit": "second"}, 10),
        ({"minute": "0", "hour": "3"}, {}, 10),
        ("* * * * *", {}, None),
        ("* * * * *", {"unit": "second"}, 10),
        ("H 3 * * *", {}, None),
        ({"every": "1h", "anchor": "2026-01-01T00:00:00Z"}, {}, None),
    ],
)
def test_a_herd_is_spread(schedule, options, expected):
    entries = made(200, schedule)
    moves = advise(entries, NOW, **options)
    assert bool(moves) == (expected is not None)
    if expected:
        assert peak(list(moved_entries(entries, moves))) <= max(expected, 200 // (options.get("within_s", 3600) // 60))
        assert {move.entry.timezone for move in moves} == {"UTC"}


def test_an_entry_stays_in_its_hour_and_its_zone():
    entries = made(100, "50 3 * * *", timezone="Europe/Berlin", dst="skip")
    moves = advise(entries, NOW)
    minutes = Counter(int(move.new.split()[0]) for move in moves)
    assert min(minutes) > 50
    assert max(minutes) <= 59
    assert all(move.moved.schedule.skip for move in moves)


def test_few_runs_entries_with_jitter_and_disabled_ones_are_left_alone():
    assert advise(made(10, "0 3 * * *"), NOW) == []
    assert advise(made(100, "0 3 * * *", jitter="30s"), NOW) == []
    assert advise(made(100, "0 3 * * *", enabled=False), NOW) == []
    assert len(advise(made(10, "0 3 * * *"), NOW, above=5)) == 5


def test_entries_with_h_are_left_alone_however_many_there_are():
    assert advise(made(1_000, "H 3 * * *"), NOW) == []


def test_an_entry_that_would_run_otherwise_at_clock_changes_stays():
    assert advise(made(100, "*/15 2-4 * * *", timezone="Europe/Berlin"), NOW) == []
    assert advise(made(100, "*/15 * * * *", timezone="Europe/Berlin"), NOW) != []
    assert advise(made(100, "*/15 2-4 * * *"), NOW) != []
