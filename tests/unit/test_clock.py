"""Back-off: pauses grow, are bounded, and begin again after a success."""

import itertools
import logging
import re
from datetime import UTC, datetime

import pytest

from beatd.clock import LOGGED_AGAIN_S, LOGGED_EVERY_S, Backoff


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
    assert len(logged) <= 2 + night_s / LOGGED_EVERY_S
    second, *gaps = [round(after - before, 6) for before, after in itertools.pairwise(logged)]
    assert LOGGED_AGAIN_S <= second <= LOGGED_AGAIN_S + 2 * 2.0, "at most a pause late, and its own pause"
    assert all(LOGGED_EVERY_S <= gap <= LOGGED_EVERY_S + 2.0 for gap in gaps)
    backoff.succeeded()
    backoff.failed()
    assert backoff.level == logging.WARNING, "the next outage is logged at once"
    backoff.failed()
    assert backoff.level == logging.DEBUG


def test_attempts_that_take_long_count(monkeypatch):
    now = 0.0
    monkeypatch.setattr("beatd.clock.monotonic", lambda: now)
    backoff, logged = Backoff(0.1, 2.0), []
    for _ in range(20):
        backoff.failed()
        if backoff.level == logging.WARNING:
            logged.append(now)
        now += 6.0
    assert logged == [0.0, 12.0, 72.0]


def test_an_outage_has_a_beginning():
    backoff = Backoff(0.1, 2.0)
    assert (backoff.since, backoff.since_text, backoff.away_s) == ("", "", 0.0)
    before = datetime.now(UTC).replace(microsecond=0)
    backoff.failed()
    assert (backoff.since, backoff.since_text) == ("", ""), "the record of the first failure has its time"
    backoff.failed()
    since = backoff.since
    assert before <= datetime.fromisoformat(since) <= datetime.now(UTC)
    backoff.failed()
    assert (backoff.since, backoff.since_text) == (since, f" since {since}")
    assert 0 < backoff.away_s < 60
    assert re.fullmatch(r"[0-9.]+ m?s", backoff.away_text)
    backoff.succeeded()
    assert (backoff.since, backoff.away_s) == ("", 0.0)
