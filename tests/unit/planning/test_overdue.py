"""Overdue runs: not started, or not finished, as long after their due time as the entry allows."""

import pytest

from beatd.config import entry
from beatd.model import EntryState
from beatd.planning.overdue import Bounds, EndedAttempt, PastRun, bounds_of, delay_of, learned_bounds
from tests.fakes import NOW

MINUTE = 60_000
START = NOW - NOW % (60 * MINUTE)


def since(runs=(), *, after=30 * MINUTE, last=0, kind="overdue", learned=None, **fields):
    """Minutes after START since which an entry of every ten minutes is late, ``after`` START."""
    made = entry("a", {"task": "t", "schedule": "*/10 * * * *", **fields})
    state = EntryState(START + last * MINUTE, START, len(runs))
    past = [
        PastRun(at, at, is_started, is_over, at if is_started and not is_over else None)
        for at, is_started, is_over in ((START + due * MINUTE, *flags) for due, *flags in runs)
    ]
    found = delay_of(made, state, past, bounds_of(made.policies, learned or Bounds()), START + after)
    since = found.overdue_since_ms if kind == "overdue" else found.too_long_since_ms
    return None if since is None else (since - START) / MINUTE


DONE, STARTED, WAITS = (True, True), (True, False), (False, False)


@pytest.mark.parametrize(
    ("runs", "fields", "expected"),
    [
        ([(10, *WAITS)], {}, None),
        ([(10, *WAITS)], {"overdue_after": "5m"}, 15),
        ([(10, *WAITS)], {"overdue_after": "1h"}, None),
        ([(10, *WAITS), (20, *WAITS)], {"overdue_after": "5m"}, 15),
        ([(10, *WAITS), (20, *STARTED)], {"overdue_after": "9m"}, None),
        ([(10, *STARTED)], {"expect_within": "15m"}, None),
        ([(10, *WAITS)], {"expect_within": "15m"}, 25),
        ([(10, *STARTED), (20, *DONE)], {"expect_within": "9m"}, None),
        ([(10, *WAITS)], {"overdue_after": "5m", "expect_within": "15m"}, 15),
        ([(10, *WAITS)], {"overdue_after": "5m", "expect_within": "1m"}, 11),
        ([(10, *WAITS)], {"overdue_after": "5m", "enabled": False}, None),
    ],
)
def test_the_first_run_that_waits_counts(runs, fields, expected):
    assert since(runs, last=max((due for due, *_ in runs), default=0), **fields) == expected


def test_a_run_that_was_never_sent_is_overdue_too():
    assert since(overdue_after="5m") == 15
    assert since([(10, *DONE)], last=10, overdue_after="5m") == 25


@pytest.mark.parametrize("overlap", ["allow", "skip", "queue_one"])
@pytest.mark.parametrize("max_runtime", ["1h", "5m"])
def test_a_run_that_waits_for_the_one_before_is_not_overdue(overlap, max_runtime):
    fields = {"overdue_after": "5m", "overlap": overlap, "max_runtime": max_runtime}
    waits = overlap == "queue_one" and max_runtime == "1h"  # else the daemon does not wait for the run before any more
    assert since([(10, *STARTED)], last=10, **fields) == (None if waits else 25)
    assert since([(10, *DONE)], last=10, **fields) == 25
    assert since([(10, *STARTED), (20, *DONE)], last=20, after=40 * MINUTE, **fields) == 35
    assert since([(10, *STARTED), (20, *WAITS)], last=20, **fields) == 25


def test_a_run_that_waited_counts_from_the_end_of_the_one_before():
    made = entry("a", {"task": "t", "schedule": "*/10 * * * *", "overdue_after": "5m", "overlap": "queue_one"})
    before = PastRun(START, START, is_started=True, is_over=True, end_ms=START + 27 * MINUTE)
    found = delay_of(
        made, EntryState(START, START, 1), [before], bounds_of(made.policies, Bounds()), START + 30 * MINUTE
    )
    assert (found.overdue_since_ms, found.check_at_ms) == (None, START + 32 * MINUTE)


def test_an_entry_that_is_over_or_unknown_is_not_overdue():
    assert since([(10, *DONE)], last=10, overdue_after="5m", max_runs=1) is None
    made = entry("a", {"task": "t", "schedule": "*/10 * * * *", "overdue_after": "5m"})
    assert delay_of(made, None, [], Bounds(1, 1, 1), NOW) == (None, None, None)


def test_blackouts_and_jitter_count():
    assert since(overdue_after="5m", blackout=["2026-01-01/2026-12-31"]) is None
    jittered = since(overdue_after="5m", jitter="3m")
    assert jittered is not None
    assert 15 <= jittered <= 18


LEARNED = Bounds(2 * MINUTE, None, 5 * MINUTE, 20)


def test_a_run_that_has_started_and_does_not_finish_takes_too_long():
    assert since([(10, *STARTED)], last=10, kind="too_long", expect_within="15m") == 25
    assert since([(10, *STARTED)], last=10, kind="too_long", learned=LEARNED) == 15
    assert since([(10, *STARTED), (20, *DONE)], last=20, kind="too_long", learned=LEARNED) == 15
    assert since([(10, *DONE)], last=10, kind="too_long", learned=LEARNED) is None
    assert since([(10, *WAITS)], last=10, kind="too_long", learned=LEARNED) is None


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, LEARNED),
        ({"overdue_after": "10m"}, LEARNED._replace(start_ms=10 * MINUTE)),
        ({"expect_within": "1h"}, LEARNED._replace(finish_ms=60 * MINUTE, runtime_ms=None)),
        ({"overdue_after": "never", "expect_within": "never"}, Bounds()),
    ],
)
def test_fields_go_before_what_was_learned(fields, expected):
    assert bounds_of(entry("a", {"task": "t", "schedule": 60, **fields}).policies, LEARNED) == expected


def attempts(count, *, start=1_000, runtime=60_000, **fields):
    made = [
        EndedAttempt(f"r{n}", n + start, n + start + runtime, is_first=True, is_success=True)._replace(**fields)
        for n in range(count)
    ]
    return made, {f"r{n}": n for n in range(count)}


def test_bounds_are_learned_from_twenty_runs():
    assert learned_bounds(*attempts(19)) == Bounds()
    assert learned_bounds(*attempts(20)) == Bounds(62_000, None, 180_000, 20)
    made, dues = attempts(20)
    assert learned_bounds(made, dict(list(dues.items())[:9])) == Bounds(None, None, 180_000, 20)
    assert learned_bounds(*attempts(40, is_success=False)) == Bounds()


def test_without_start_times_the_time_to_the_end_is_learned():
    assert learned_bounds(*attempts(20, start_ms=None)) == Bounds(None, 2 * 61_000 + 60_000, None, 20)


def test_nothing_can_get_worse_before_the_check():
    made = entry("a", {"task": "t", "schedule": "*/10 * * * *"})
    state = EntryState(START, START, 0)
    assert delay_of(made, state, [], LEARNED, START).check_at_ms == START + 12 * MINUTE
    assert delay_of(made, state, [], Bounds(runtime_ms=MINUTE), START).check_at_ms == START + 11 * MINUTE
    assert delay_of(made, state, [], LEARNED, START + 13 * MINUTE) == (START + 12 * MINUTE, None, START + 13 * MINUTE)
    assert delay_of(made, state, [], Bounds(), START).check_at_ms is None
