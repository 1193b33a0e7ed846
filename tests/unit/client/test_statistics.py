"""Statistics of an entry's runs, against those of the standard library."""

from statistics import median, quantiles

from hypothesis import given
from hypothesis import strategies as st

from beatd.client.outcomes import Statistics, statistics
from beatd.store.history import Record


def sent(number, late_ms=0, runtime_ms=None, kind="scheduled"):
    outcome = None if runtime_ms is None else "SUCCESS"
    return Record("x", kind, number, number, late_ms, str(number), outcome=outcome, runtime_ms=runtime_ms)


@given(st.lists(st.integers(0, 1 << 32), min_size=2, max_size=60))
def test_median_and_95th_percentile(values):
    found = statistics(sent(number, runtime_ms=value) for number, value in enumerate(values))
    assert found.runs == len(values)
    assert abs(found.duration_median_ms - median(values)) <= 0.5
    assert abs(found.duration_p95_ms - quantiles(values, n=20, method="inclusive")[-1]) <= 0.51


def test_runs_that_say_nothing_are_left_out():
    skipped = Record("x", "skipped", 1, 1, 500, reason="overlap")
    by_hand = sent(2, 900, 40, "triggered")
    assert statistics([skipped]) == Statistics(0, None, None, None, None)
    assert statistics([skipped, by_hand, sent(3, 7)]) == Statistics(2, 40, 40, 7, 7)
