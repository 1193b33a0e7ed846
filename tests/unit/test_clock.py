"""Back-off: pauses grow, are bounded, and begin again after a success."""

import pytest

from beatd.clock import Backoff


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
