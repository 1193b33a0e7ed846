"""Counters of the daemon: exact sums, bounded names, buckets as Prometheus defines them."""

import pytest

from beatd.metrics.counters import MISSED, SENT, DaemonCounters, EntryLimit, Histogram


def test_buckets_are_cumulative_and_include_their_bound():
    histogram = Histogram((0.1, 1.0))
    for value in (0.05, 0.1, 0.5, 2.0):
        histogram.observe(value)
    histogram.observe(3.0, 2)
    assert histogram.cumulative() == ([("0.1", 2), ("1.0", 3), ("+Inf", 6)], pytest.approx(8.65))


def test_histograms_share_nothing():
    first, second = Histogram(), Histogram()
    first.observe(1)
    assert second.cumulative()[0][-1] == ("+Inf", 0)


@pytest.mark.parametrize(("text", "shown"), [("all", {"a", "b", "c"}), ("top:1", {"b"}), ("none", set())])
def test_entries_with_the_most_runs_are_shown_and_totals_are_of_all(text, shown):
    found = DaemonCounters()
    found.sent(["a", "b", "c"], [0, 1, 700])
    found.sent(["b"], [-5])
    found.count(MISSED, ["b"])
    assert {name for name, _, _ in found.by_entry(EntryLimit.parse(text))} == shown
    assert found.totals == {SENT: 4, MISSED: 1}
    assert found.lateness.cumulative()[0][-1] == ("+Inf", 4)
    if text == "all":
        assert ("b", SENT, 2) in found.by_entry(EntryLimit(None))


def test_names_are_bounded():
    found = DaemonCounters(entries_max=10)
    found.sent(["often"] * 5, [0] * 5)
    for number in range(100):
        found.sent([f"e{number}"], [0])
        assert len(found.by_entry(EntryLimit(None))) <= 10
    assert ("often", SENT, 5) in found.by_entry(EntryLimit(None))
    assert found.totals[SENT] == 105


def test_entries_with_the_most_runs_come_first_and_any_others_fill_up():
    counters = DaemonCounters()
    counters.count(SENT, ["b", "c", "c", "gone"])
    names = ["a", "b", "c", "d"]
    assert counters.most_runs(EntryLimit(None), names) == names
    assert counters.most_runs(EntryLimit(0), names) == []
    assert counters.most_runs(EntryLimit(3), names) == ["c", "b", "a"]
