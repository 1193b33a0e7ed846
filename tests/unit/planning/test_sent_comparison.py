"""Runs of two lists are matched in their order, one with one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from beatd.planning.sent_comparison import match

RUNS = st.lists(st.integers(0, 1_000), max_size=30)


def test_examples():
    assert match([1, 10, 20], [2, 11, 30], 2) == ((20,), (30,), 2)
    assert match([], [1], 5) == ((), (1,), 0)
    assert match([1, 2], [1], 5) == ((2,), (), 1)


def test_at_the_ends_of_a_span_a_partner_may_be_unknown():
    assert match([1, 10, 20], [5, 10], 2).between(3, 18) == ((), (5,), 1)


@given(RUNS, RUNS, st.integers(0, 50))
def test_every_run_is_somewhere(first, second, within):
    found = match(first, second, within)
    assert found.both + len(found.only_first) == len(first)
    assert found.both + len(found.only_second) == len(second)
    assert match(second, first, within) == (found.only_second, found.only_first, found.both)
    assert match(first, first, within) == ((), (), len(first))
