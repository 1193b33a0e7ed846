"""Schedules and moments as people read them."""

from datetime import UTC, datetime

import pytest

from beatd.schedules import parse
from beatd.timestamps import to_ms
from beatd.web import pages

NOW = to_ms(datetime(2026, 10, 24, 22, 30, tzinfo=UTC))


@pytest.mark.parametrize(
    ("written", "text", "is_code"),
    [
        (30.0, "every 30s", False),
        ("1h30m", "every 1h30m", False),
        ({"every": "1d", "anchor": "2026-01-01T00:00:00Z"}, "every 1d", False),
        ({"every": "1d", "relative": True}, "every 1d, relative", False),
        ("*/5 * * * *", "*/5 * * * *", True),
        ("@daily", "@daily", True),
        ({"minute": "30", "hour": [7, 8]}, "minute 30, hour 7,8", True),
        ({"at": "2030-01-01T00:00:00Z"}, "once, 2030-01-01 00:00:00 UTC", False),
        ({"solar": "dawn_civil", "lat": 1, "lon": 2.5}, "dawn civil at 1.0, 2.5", False),
        (["0 1 * * *", "0 2 * * *"], "0 1 * * * or 0 2 * * *", False),
    ],
)
def test_schedules(written, text, is_code):
    assert pages.schedule_phrase(parse(written)) == (text, is_code)


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (0, "now"),
        (-999, "now"),
        (1_000, "in 1 s"),
        (-59_999, "59 s ago"),
        (60_000, "in 1 min"),
        (3_600_000, "in 1 h"),
        (-11_400_000, "3 h 10 min ago"),
        (2 * 86_400_000, "in 2 days"),
    ],
)
def test_how_long_from_now(ms, text):
    assert pages.relative(ms) == text


@pytest.mark.parametrize(
    ("at", "timezone", "local", "utc"),
    [
        (datetime(2026, 10, 24, 23, 0, tzinfo=UTC), "UTC", "23:00:00 UTC", ""),
        (datetime(2026, 10, 24, 23, 0, 0, 250_000, tzinfo=UTC), "UTC", "23:00:00.250 UTC", ""),
        (datetime(2027, 1, 2, tzinfo=UTC), "UTC", "02 Jan 2027 00:00:00 UTC", ""),
        (datetime(2026, 10, 25, 0, 30, tzinfo=UTC), "Europe/Berlin", "02:30:00 CEST", "00:30:00 UTC"),
        (datetime(2026, 10, 25, 1, 30, tzinfo=UTC), "Europe/Berlin", "02:30:00 CET", "01:30:00 UTC"),
        (datetime(2026, 10, 24, 21, 0, tzinfo=UTC), "Europe/Berlin", "24 Oct 23:00:00 CEST", "21:00:00 UTC"),
        (datetime(2026, 10, 24, 23, 0, tzinfo=UTC), "Europe/Berlin", "01:00:00 CEST", "24 Oct 23:00:00 UTC"),
        (datetime(2026, 12, 1, 23, 0, tzinfo=UTC), "Europe/London", "01 Dec 23:00:00 GMT", ""),
    ],
)
def test_moments(at, timezone, local, utc):
    found = pages.moment(to_ms(at), timezone, NOW)
    assert (found.local, found.utc) == (local, utc)
    assert datetime.fromisoformat(found.iso) == at


@pytest.mark.parametrize(("ms", "text"), [(0, "0 ms"), (12, "+12 ms"), (-999, "−999 ms"), (3_400, "+3.4 s")])
def test_differences_of_clocks(ms, text):
    assert pages.milliseconds(ms) == text


@pytest.mark.parametrize(
    "text", ["see 2026-13-45 10:00:00 UTC", "since 0000-01-01 00:00:00 UTC", "2026-01-01 99:00:00 UTC"]
)
def test_what_looks_like_a_moment_and_is_none_stays_as_it_is(text):
    assert pages.moments_in(text, "Europe/Berlin", 1_790_000_000_000) == text
