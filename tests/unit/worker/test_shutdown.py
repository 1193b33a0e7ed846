"""How a worker ends, with a clock that is set by hand."""

from __future__ import annotations

import logging
import math
import signal

import pytest

from beatd.worker.bootstrap import signal_handlers
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


def test_a_signal_that_cannot_be_logged_stops_the_worker_all_the_same(bench):
    """A signal may interrupt the writing of a log line; the stream then refuses another one."""

    class Busy(logging.Handler):
        def emit(self, record):
            raise RuntimeError("reentrant call inside a buffered writer")

    logger, handler = logging.getLogger("celery.worker"), Busy()
    logger.addHandler(handler)
    try:
        with signal_handlers(bench.worker), pytest.raises(RuntimeError, match="reentrant"):
            signal.raise_signal(signal.SIGTERM)
    finally:
        logger.removeHandler(handler)
    assert bench.worker.shutdown.phase is Phase.WARM


@pytest.mark.parametrize(("numbers", "again"), [((signal.SIGHUP,), True), ((signal.SIGTERM, signal.SIGHUP), False)])
def test_a_hangup_after_the_signal_to_stop_starts_nothing_again(bench, monkeypatch, numbers, again):
    """``SendSIGHUP=`` of systemd sends both."""
    monkeypatch.setattr("beatd.worker.bootstrap._has_terminal", lambda: False)
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        with signal_handlers(bench.worker) as restarts:
            for number in numbers:
                signal.raise_signal(number)
            assert restarts() is again
            assert bench.worker.shutdown.phase is Phase.WARM
    finally:
        signal.signal(signal.SIGHUP, before)
