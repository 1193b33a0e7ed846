"""Every state that ended runs can get into, for small sizes: no message is dropped whose run has not ended, none runs
again whose run has."""

import pytest

from tests.model.checker import explore
from tests.model.ended import Rules, Size, done, initial, steps, wrong

SIZES = [
    Size(),
    Size(runs=3, lost=1, skips=2, missed=0, leaders=0, deaths=1, repeats=1),
    Size(runs=4, lost=0, skips=1, missed=1, leaders=1, deaths=0, repeats=1),
]
SMALL = Size(runs=2, lost=1, skips=1, missed=1, leaders=1, deaths=1, repeats=1)


def check(size, rules):
    return explore(initial(size), lambda world: steps(world, rules), wrong, done)


@pytest.mark.parametrize(
    "size", [SIZES[0], *(pytest.param(size, marks=pytest.mark.slow) for size in SIZES[1:])], ids=str
)
def test_what_is_dropped_has_ended_and_what_has_ended_is_dropped(size):
    explored = check(size, Rules())
    assert explored.fault is None, f"\n{explored.fault}"
    assert explored.states > 1_000, "a model in which nothing happens proves nothing"


@pytest.mark.parametrize(
    ("rule", "harm"),
    [
        ("moves_when_left_out", "lost run"),
        ("gaps_are_apart", "lost run"),
        ("resumes_at_last_due", "lost run"),
        ("notes_before_ack", "double run"),
        ("knows_what_runs", "double run"),
    ],
)
def test_every_rule_is_needed(rule, harm):
    fault = check(SMALL, Rules()._replace(**{rule: False})).fault
    assert fault is not None, f"nobody misses {rule}"
    assert fault.what.startswith(harm), f"\n{fault}"
