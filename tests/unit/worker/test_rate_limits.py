"""Rate limits, with times as arguments."""

from __future__ import annotations

import itertools
import math

import pytest

from beatd import App
from beatd.worker.admission.rate_limits import HOLD_S, RateLimits, per_second
from beatd.worker.messages import Delivery, Headers
from beatd.worker.request import Request


@pytest.fixture
def requests():
    app = App("x")

    @app.task(name="t")
    def task(): ...

    app.finalize()

    def make(count, name="t"):
        return [Request(Delivery(n, "q", b""), Headers(f"id-{n}", name), app.tasks["t"]) for n in range(count)]

    return make


@pytest.mark.parametrize(
    ("limit", "rate"),
    [("10/s", 10), ("90/m", 1.5), ("36/h", 0.01), (3, 3), ("2.5", 2.5), (0, 0), (None, 0), ("0/m", 0)],
)
def test_limits_are_read(limit, rate):
    assert per_second(limit) == pytest.approx(rate)


@pytest.mark.parametrize("limit", ["ten", "10/d", "-1/s", "nan", "inf/s", "/s", "1//s"])
def test_what_is_no_limit_is_said(limit):
    with pytest.raises(ValueError, match="is no rate limit, expected one like '10/s'"):
        per_second(limit)


def test_without_limits_nothing_waits(requests):
    rates, some = RateLimits({}, 0.0), requests(3)
    assert rates.admit(some, 0.0) == (some, [])
    assert (rates.due(0.0), rates.next_in(0.0)) == ([], math.inf)


def test_a_limit_is_for_its_task_alone(requests):
    rates = RateLimits({"other": "1/h"}, 0.0)
    some = requests(3)
    assert rates.admit(some, 0.0)[0] == some


def test_the_first_runs_the_next_are_held_the_rest_waits_elsewhere(requests):
    rates, some = RateLimits({"t": "10/s"}, 0.0), requests(50)
    run, wait = rates.admit(some, 0.0)
    held = rates.held()
    assert [*run, *held, *(request for request, _ in wait)] == some
    assert len(run) == 1
    assert len(held) == 10 * HOLD_S
    pauses = [seconds for _, seconds in wait]
    assert pauses[0] > HOLD_S
    assert [b - a for a, b in itertools.pairwise(pauses)] == pytest.approx([0.1] * (len(pauses) - 1))
    assert rates.next_in(0.0) == pytest.approx(0.1)
    assert rates.due(0.05) == []
    assert rates.due(0.1) == held[:1]


def test_over_time_the_rate_is_kept_and_the_order_too(requests):
    rates, some = RateLimits({"t": "10/s"}, 0.0), requests(200)
    ran, parked = rates.admit(some, 0.0)
    later = sorted((seconds, n) for n, (_, seconds) in enumerate(parked))
    for tick in range(1, 30_000):
        now = tick / 1000
        ran += rates.due(now)
        while later and later[0][0] <= now:
            _, n = later.pop(0)
            run, again = rates.admit([parked[n][0]], now)
            ran += run
            assert not again, "it comes back when there is a place for it"
        assert len(ran) <= 10 * now + 2
    assert ran == some


def test_a_long_queue_is_worked_off_at_the_rate(requests):
    rates, some = RateLimits({"t": "2/s"}, 0.0), requests(1_500)
    ran, parked = rates.admit(some, 0.0)
    later = [(seconds, request) for request, seconds in parked]
    for tick in range(1, 7_700):
        now = tick / 10
        ran += rates.due(now)
        due = [request for moment, request in later if moment <= now]
        later = [item for item in later if item[0] > now]
        run, again = rates.admit(due, now)
        ran += run
        later += [(now + seconds, request) for request, seconds in again]
        assert 2 * now - 12 <= len(ran) <= 2 * now + 2 or len(ran) == len(some)
    assert len(ran) == len(some)


def test_a_long_wait_is_spent_elsewhere(requests):
    rates = RateLimits({"t": "5/h"}, 0.0)
    run, wait = rates.admit(requests(3), 0.0)
    assert len(run) == 1
    assert [seconds for _, seconds in wait] == [300.0, 300.0], "no longer than five minutes, then it is looked at again"


def test_a_limit_that_is_taken_away_frees_who_waits(requests):
    rates = RateLimits({"t": "1/s"}, 0.0)
    rates.admit(requests(3), 0.0)
    held = rates.held()
    assert held
    rates.set("t", 0)
    assert rates.next_in(0.0) == 0.0
    assert rates.due(0.0) == held
    assert rates.held() == []


def test_a_limit_may_be_raised(requests):
    rates = RateLimits({"t": "1/m"}, 0.0)
    rates.admit(requests(1), 0.0)
    rates.set("t", "100/s")
    run, wait = rates.admit(requests(5), 1.0)
    assert (len(run), wait) == (5, [])


def test_a_wrong_limit_names_the_task():
    with pytest.raises(ValueError, match="task t: rate_limit 'x' is no rate limit"):
        RateLimits({"t": "x"}, 0.0)
