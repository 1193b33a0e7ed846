"""Back-off: pauses grow, are bounded, and begin again after a success."""

import itertools
import logging

import pytest

from beatd.clock import LOGGED_AT_FIRST, LOGGED_EVERY_S, Backoff


def test_pauses_grow_to_a_bound_and_begin_again():
    backoff = Backoff(0.1, 1.0)
    pauses = [backoff.failed() for _ in range(6)]
    assert pauses == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.0, 1.0])
    assert backoff.attempts == 6
    backoff.succeeded()
    assert backoff.attempts == 0
    assert backoff.failed() == pytest.approx(0.1)


def test_a_million_failures_stay_in_bounds():
    backoff = Backoff(0.2, 30.0, factor=10)
    assert max(backoff.failed() for _ in range(1_000_000)) == 30.0


def test_a_long_outage_is_logged_once_a_minute():
    backoff = Backoff(0.1, 2.0)
    night_s, pauses = 8 * 3600, []
    logged = []
    while sum(pauses) < night_s:
        pauses.append(backoff.failed())
        if backoff.level == logging.WARNING:
            logged.append(sum(pauses))
    assert len(logged[:LOGGED_AT_FIRST]) == LOGGED_AT_FIRST == len([one for one in logged if one < LOGGED_EVERY_S])
    assert len(logged) <= LOGGED_AT_FIRST + night_s / LOGGED_EVERY_S
    gaps = [round(after - before, 6) for before, after in itertools.pairwise(logged[LOGGED_AT_FIRST - 1 :])]
    assert all(LOGGED_EVERY_S <= gap <= LOGGED_EVERY_S + 2.0 for gap in gaps)
    backoff.succeeded()
    backoff.failed()
    assert backoff.level == logging.WARNING, "the next outage is logged at once"
