"""Every state that the outbox can get into, for small sizes: nothing is lost, and repeats carry the same id."""

import pytest

from tests.model.checker import explore
from tests.model.outbox import Rules, Size, done, initial, steps, wrong

pytestmark = pytest.mark.slow

PLAIN = Size(daemons=2, runs=2, crashes=1, lost=1, expiries=1)
LONGER = Size(daemons=2, runs=3, crashes=1, lost=0, expiries=1)
DEADLY = Size(daemons=2, runs=2, crashes=2, lost=0, expiries=1)
PATIENT = Size(daemons=1, runs=3, crashes=0, lost=2, expiries=0)
FORMER = Size(daemons=2, runs=2, former=1, crashes=1, lost=1, expiries=1)
POWERLESS = Size(daemons=1, runs=2, crashes=0, lost=1, expiries=1, power_losses=1)


def check(size, rules):
    return explore(initial(size), lambda world: steps(world, rules, size), wrong, done)


LARGEST = [pytest.param(PLAIN, marks=pytest.mark.soak), pytest.param(DEADLY, marks=pytest.mark.soak)]


@pytest.mark.parametrize("size", [*LARGEST, LONGER, PATIENT, FORMER, POWERLESS], ids=str)
def test_nothing_is_lost_and_repeats_carry_the_same_id(size):
    explored = check(size, Rules())
    assert explored.fault is None, f"\n{explored.fault}"
    assert explored.states > 300, "a model in which nothing happens proves nothing"


@pytest.mark.parametrize(
    ("rule", "size", "harm"),
    [
        ("with_the_claim", PLAIN, "lost run"),
        ("confirmed_first", PLAIN, "lost run"),
        ("all_confirmed", LONGER, "lost run"),
        ("matched", PATIENT, "lost run"),
        ("leftovers", DEADLY, "it cannot be done"),
        ("inherits", FORMER, "it cannot be done"),
        ("same_id", DEADLY, "a run came under two ids"),
        ("looks_back", POWERLESS, "lost run"),
        ("looks_again", POWERLESS, "it cannot be done"),
        ("counts_runs", POWERLESS, "it cannot be done"),
    ],
)
def test_every_rule_is_needed(rule, size, harm):
    """Broken on purpose: a checker that finds nothing wrong now would find nothing at all."""
    fault = check(size, Rules()._replace(**{rule: False})).fault
    assert fault is not None, f"nobody misses {rule}"
    assert fault.what.startswith(harm), f"\n{fault}"
