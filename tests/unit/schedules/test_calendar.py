"""Jitter and blackouts: when a run that is due is sent later, or not at all."""

# ruff: noqa: E501 - a table's row is one line

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beatd.schedules import jittered_ms, parse_blackout
from beatd.timestamps import from_ms, to_ms

T = datetime(2026, 3, 1, 10, tzinfo=UTC)
BERLIN = ZoneInfo("Europe/Berlin")
INSTANTS = st.datetimes(datetime(1970, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))


def jittered(name, due_at, jitter_ms, next_due):
    return from_ms(jittered_ms(name, to_ms(due_at), jitter_ms, None if next_due is None else to_ms(next_due)))


@given(st.text(max_size=30), INSTANTS, st.integers(0, 10**8), st.one_of(st.none(), st.integers(1, 10**8)))
def test_jitter_stays_within_its_bounds(name, due_at, jitter_ms, gap_ms):
    next_due = None if gap_ms is None else due_at + timedelta(milliseconds=gap_ms)
    sent = jittered(name, due_at, jitter_ms, next_due)
    due_ms = due_at.replace(microsecond=due_at.microsecond // 1000 * 1000)
    assert due_ms <= sent <= due_ms + timedelta(milliseconds=jitter_ms)
    assert next_due is None or sent < next_due
    assert sent == jittered(name, due_at, jitter_ms, next_due)


def test_jitter_is_spread_evenly_and_differs_by_entry_and_by_run():
    minute = 60_000
    sent = [(jittered(f"entry-{i}", T, minute, None) - T).total_seconds() for i in range(6000)]
    tenths = [sum(1 for s in sent if i * 6 <= s < i * 6 + 6) for i in range(10)]
    assert min(tenths) > 500
    assert max(tenths) < 700
    by_run = {jittered("entry", T + timedelta(hours=i), minute, None) - T - timedelta(hours=i) for i in range(100)}
    assert len(by_run) > 95


def test_jitter_lasts():
    """The hash must not change between releases or hosts: a failover in between would send at two times."""
    assert (jittered("monday-report", T, 300_000, None) - T) // timedelta(milliseconds=1) == 189926


def test_no_jitter_is_no_change():
    assert jittered("x", T, 0, None) == T
    assert jittered("x", T, 5000, T + timedelta(milliseconds=1)) == T


@pytest.mark.parametrize(
    ("blackout", "inside", "outside"),
    [
        ("22:00-06:00", ["2026-03-01 22:00", "2026-03-02 05:59:59.999"], ["2026-03-01 21:59:59.999", "2026-03-01 06:00"]),
        ("09:00-17:30", ["2026-03-01 09:00", "2026-03-01 17:29"], ["2026-03-01 17:30", "2026-03-01 08:59"]),
        ("18:00-24:00", ["2026-03-01 23:59:59"], ["2026-03-02 00:00"]),
        ("00:00:30-00:01", ["2026-03-01 00:00:30"], ["2026-03-01 00:00:29"]),
        ("2026-12-24", ["2026-12-24 00:00", "2026-12-24 23:59:59.999"], ["2026-12-23 23:59:59.999", "2026-12-25 00:00"]),
        ("2026-12-24/2026-12-26", ["2026-12-24 00:00", "2026-12-26 23:59"], ["2026-12-27 00:00"]),
        ("2026-12-24T10:00/2026-12-24", ["2026-12-24 10:00", "2026-12-24 23:59:59"], ["2026-12-24 09:59", "2026-12-25 00:00"]),
        (date(2026, 12, 24), ["2026-12-24 12:00"], ["2026-12-25 12:00"]),
        ("2026-12-24T18:00/2026-12-26T06:00", ["2026-12-24 18:00", "2026-12-26 05:59"], ["2026-12-26 06:00"]),
        ("2026-12-24T18:00/2026-12-26", ["2026-12-24 18:00", "2026-12-26 23:59"], ["2026-12-24 17:59", "2026-12-27 00:00"]),
        # Friday from 22:00 to 06:00 on Saturday
        ({"cron": "0 22 * * fri", "duration": "8h"}, ["2026-03-06 22:00", "2026-03-07 05:59"], ["2026-03-06 21:59", "2026-03-07 06:00"]),
        (["22:00-06:00", "2026-12-24"], ["2026-12-24 12:00", "2026-01-01 23:00"], ["2026-12-23 12:00"]),
        # the day on which the clock is set: by the wall clock, and a window's length in real time
        ("02:00-03:00", ["2026-10-25 02:30"], ["2026-03-29 03:00", "2026-03-29 01:59"]),
        ({"cron": "0 1 * * *", "duration": "2h"}, ["2026-03-29 03:59"], ["2026-03-29 04:00"]),
    ],
)  # fmt: skip
def test_what_a_blackout_covers(blackout, inside, outside):
    read = parse_blackout(blackout, timezone="Europe/Berlin")
    for text in inside:
        assert read.covers(datetime.fromisoformat(text).replace(tzinfo=BERLIN)), text
    for text in outside:
        assert not read.covers(datetime.fromisoformat(text).replace(tzinfo=BERLIN)), text
    again = parse_blackout(read.notation, timezone="Europe/Berlin")
    assert again == read
    assert hash(again) == hash(read)


def test_nearly_everything_is_not_everything():
    assert not parse_blackout(["00:00-12:00", "12:00-23:59"]).covers(datetime(2026, 1, 1, 23, 59, tzinfo=UTC))
    assert not parse_blackout({"cron": "* * * * *", "duration": "59s"}).covers(T - timedelta(seconds=1))
    assert not parse_blackout("2020-01-01/2026-12-31").covers(datetime(2027, 1, 1, tzinfo=UTC))
