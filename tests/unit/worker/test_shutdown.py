"""How a worker ends, with a clock that is set by hand."""

from __future__ import annotations

import math

import pytest

from beatd.worker.shutdown import Phase, Shutdown


class Time:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def time():
    return Time()


def test_warm_waits_for_what_runs(time):
    ending = Shutdown(time)
    assert not ending.is_over(busy=False)
    assert ending.request() is Phase.WARM
    assert ending.begun
    time.now = 1e6
    assert not ending.is_over(busy=True)
    assert ending.is_over(busy=False)
    assert (ending.phase, ending.due_in()) == (Phase.WARM, math.inf)


def test_grace_ends(time):
    ending = Shutdown(time, grace_s=25)
    ending.request()
    time.now = 24.0
    assert not ending.is_over(busy=True)
    assert ending.due_in() == 1.0
    time.now = 25.0
    assert ending.is_over(busy=True)
    assert ending.phase is Phase.COLD


@pytest.mark.parametrize("wishes", [[False, False], [True], [False, True]])
def test_cold_is_at_once(time, wishes):
    ending = Shutdown(time)
    for cold in wishes:
        ending.request(cold=cold)
    assert ending.is_over(busy=True)
    assert ending.phase is Phase.COLD


def test_soft_comes_before_cold(time):
    ending = Shutdown(time, soft_s=10)
    assert ending.request(cold=True) is Phase.SOFT
    assert not ending.is_over(busy=True)
    assert ending.is_over(busy=False)
    time.now = 10.0
    assert ending.is_over(busy=True)


def test_a_second_wish_during_a_soft_end_is_cold(time):
    ending = Shutdown(time, soft_s=10)
    assert [ending.request(), ending.request(), ending.request()] == [Phase.WARM, Phase.SOFT, Phase.COLD]


def test_soft_on_idle_waits_all_the_same(time):
    ending = Shutdown(time, soft_s=10, soft_on_idle=True)
    ending.request(cold=True)
    assert not ending.is_over(busy=False)
    time.now = 10.0
    assert ending.is_over(busy=False)
