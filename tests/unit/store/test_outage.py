"""Outages of the state store: since when, and logged at bounded intervals."""

import pytest

from beatd.exceptions import StoreUnavailable, StoreUnwritable
from beatd.store.outage import OutageWatch
from tests.fakes import FakeClock

REASON = "state store h:1/0: Connection refused"
SINCE = "2026-09-21 14:13:20 UTC"


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def watch(clock):
    return OutageWatch(clock)


def test_an_error_says_since_when(clock, watch):
    watch.answered()
    clock.advance(20)
    since_ms = clock.now_ms()
    first = watch.failed(StoreUnavailable(REASON))
    clock.advance(300)
    later = watch.failed(StoreUnavailable(REASON))
    assert str(first) == str(later)
    assert str(later).startswith(f"{REASON}, since 2026-")
    assert str(later).endswith(" UTC")
    assert (later.since_ms, watch.away_s) == (since_ms, 300.0)
    assert watch.failed(later) is later
    watch.answered()
    assert watch.away_s == 0


def test_a_store_that_takes_no_writes_is_logged_and_told_as_one_that_refuses(watch, caplog):
    told = watch.failed(StoreUnwritable("state store h:1/0: it is a read-only replica"))
    assert (type(told), told.word, caplog.records[-1].event) == (StoreUnwritable, "store_refused", "store_refused")


@pytest.mark.parametrize("looked", [False, True])
def test_a_store_that_nobody_has_asked_for_a_while_may_be_away_for_longer(clock, watch, looked):
    if looked:
        watch.answered()
        clock.advance(61)
    assert str(watch.failed(StoreUnavailable(REASON))).endswith(" UTC or longer")


def test_an_outage_is_logged_once_a_minute_and_its_end(clock, watch, caplog):
    caplog.set_level("INFO", "beatd.store")
    for _ in range(600):
        watch.failed(StoreUnavailable(REASON))
        clock.advance(0.5)
    watch.answered()
    watch.answered()
    said = [record.getMessage() for record in caplog.records]
    assert said[0] == REASON
    assert len(said) == 1 + 4 + 1
    assert all(", since 2026-" in line for line in said[1:-1])
    assert said[-1] == "The state store answers again, after 5 min"
