"""Every state that lease and claim can get into, for small sizes: no run is lost, none is enqueued twice."""

import pytest

from tests.model.checker import explore
from tests.model.protocol import Rules, Size, done, initial, steps, wrong

SIZES = [
    Size(daemons=2, runs=2, crashes=1, lost=1, expiries=1),
    Size(daemons=2, runs=3, crashes=1, lost=0, expiries=1, releases=1),
    Size(daemons=2, runs=2, crashes=2, lost=0, expiries=1),
    Size(daemons=2, runs=2, crashes=0, lost=2, expiries=1),
    Size(daemons=3, runs=2, crashes=1, lost=0, expiries=2),
]
SEIZED = Size(daemons=2, runs=2, crashes=1, lost=1, expiries=0, seizures=2)
ALONE_AND_POWERLESS = Size(daemons=1, runs=3, crashes=0, lost=2, expiries=0, power_losses=1)
POWERLESS = Size(daemons=2, runs=2, crashes=0, lost=1, expiries=1, power_losses=1)


def check(size, rules):
    return explore(initial(size), lambda world: steps(world, rules, size), wrong, done)


@pytest.mark.parametrize(
    "size", [*SIZES, pytest.param(SEIZED, marks=pytest.mark.slow), ALONE_AND_POWERLESS, POWERLESS], ids=str
)
def test_nothing_is_lost_or_doubled(size):
    explored = check(size, Rules())
    assert explored.fault is None, f"\n{explored.fault}"
    assert explored.states > 1_000, "a model in which nothing happens proves nothing"


@pytest.mark.parametrize(
    ("rule", "size", "harm"),
    [
        ("fenced", SIZES[3], "claimed without a term"),
        ("fenced", SEIZED._replace(crashes=0, lost=0), "claimed without a term"),
        ("once", SIZES[3], "double enqueue"),
        ("advance_after", SIZES[3], "lost run"),
        ("looks_back", ALONE_AND_POWERLESS, "lost run"),
        ("counts_reads", POWERLESS, "lost run"),
        ("own_lease", SIZES[3], "it cannot be done"),
    ],
)
def test_every_rule_is_needed(rule, size, harm):
    """Broken on purpose: a checker that finds nothing wrong now would find nothing at all."""
    fault = check(size, Rules()._replace(**{rule: False})).fault
    assert fault is not None, f"nobody misses {rule}"
    assert fault.what.startswith(harm), f"\n{fault}"
