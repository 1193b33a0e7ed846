"""Overdue runs: not started, or not finished, as long after their due time as the entry allows."""

import pytest

from beatd.config import entry
from beatd.model import EntryState
from beatd.planning.overdue import PastRun, overdue_since_ms
from tests.fakes import NOW

MINUTE = 60_000
START = NOW - NOW % (60 * MINUTE)


def since(runs=(), *, after=30 * MINUTE, last=0, **fields):
    """Minutes after START since which an entry of every ten minutes is overdue, ``after`` START."""
    made = entry("a", {"task": "t", "schedule": "*/10 * * * *", **fields})
    state = EntryState(START + last * MINUTE, START, len(runs))
    past = [PastRun(START + due * MINUTE, START + due * MINUTE, *flags) for due, *flags in runs]
    found = overdue_since_ms(made, state, past, START + after)
    return None if found is None else (found - START) / MINUTE


DONE, STARTED, WAITS = (True, True), (True, False), (False, False)


@pytest.mark.parametrize(
    ("runs", "fields", "expected"),
    [
        ([(10, *WAITS)], {}, None),
        ([(10, *WAITS)], {"overdue_after": "5m"}, 15),
        ([(10, *WAITS)], {"overdue_after": "1h"}, None),
        ([(10, *WAITS), (20, *WAITS)], {"overdue_after": "5m"}, 15),
        ([(10, *WAITS), (20, *STARTED)], {"overdue_after": "9m"}, None),
        ([(10, *STARTED)], {"expect_within": "15m"}, 25),
        ([(10, *STARTED), (20, *DONE)], {"expect_within": "9m"}, None),
        ([(10, *STARTED)], {"overdue_after": "5m", "expect_within": "15m"}, 25),
        ([(10, *WAITS)], {"overdue_after": "5m", "expect_within": "1m"}, 11),
        ([(10, *WAITS)], {"overdue_after": "5m", "enabled": False}, None),
    ],
)
def test_the_first_run_that_waits_counts(runs, fields, expected):
    assert since(runs, last=max((due for due, *_ in runs), default=0), **fields) == expected


def test_a_run_that_was_never_sent_is_overdue_too():
    assert since(overdue_after="5m") == 15
    assert since([(10, *DONE)], last=10, overdue_after="5m") == 25


def test_an_entry_that_is_over_or_unknown_is_not_overdue():
    assert since([(10, *DONE)], last=10, overdue_after="5m", max_runs=1) is None
    made = entry("a", {"task": "t", "schedule": "*/10 * * * *", "overdue_after": "5m"})
    assert overdue_since_ms(made, None, [], NOW) is None


def test_blackouts_and_jitter_count():
    assert since(overdue_after="5m", blackout=["2026-01-01/2026-12-31"]) is None
    jittered = since(overdue_after="5m", jitter="3m")
    assert jittered is not None
    assert 15 <= jittered <= 18
