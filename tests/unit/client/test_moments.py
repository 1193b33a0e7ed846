"""Moments that people write and read."""

from datetime import datetime

import pytest

from beatd.client.moments import local_text, moment_text, read_moment
from beatd.timestamps import to_ms

NOW_MS = to_ms(datetime.fromisoformat("2026-11-27T01:40:00+00:00"))


@pytest.mark.parametrize("written", ["07:30", "7:30", "07:30:00", "7:30:00"])
def test_a_time_of_today_may_have_one_digit_and_seconds(written):
    found = read_moment(written, timezone="Europe/Berlin", base_ms=0, now_ms=NOW_MS)
    assert found == to_ms(datetime.fromisoformat("2026-11-27T07:30:00+01:00"))


@pytest.mark.parametrize(
    ("timezone", "text"),
    [
        ("UTC", "2026-11-27 01:40:00 UTC"),
        ("Europe/Berlin", "2026-11-27 02:40:00 CET"),
        ("America/Sao_Paulo", "2026-11-26 22:40:00 -03"),
    ],
)
def test_a_moment_is_shown_with_its_zone(timezone, text):
    assert moment_text(NOW_MS, timezone) == text


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("failed since 2026-11-27 01:40:00 UTC: why", "failed since 2026-11-27 02:40:00 CET: why"),
        ("until: None -> 2026-06-27T01:40:00.250+00:00", "until: None -> 2026-06-27 03:40:00 CEST"),
        ("at 2026-11-27 01:40:00, a time without a zone", "at 2026-11-27 01:40:00, a time without a zone"),
        ("2026-13-45 01:40:00 UTC is no moment", "2026-13-45 01:40:00 UTC is no moment"),
    ],
)
def test_a_text_with_moments_in_utc_is_shown_on_the_clocks_of_a_zone(written, shown):
    assert local_text(written, "Europe/Berlin") == shown


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("2027-03-28 02:30", "2027-03-28T01:00:00Z"),  # in the gap: its end, when runs of that time are made
        ("2027-03-28 03:30", "2027-03-28T01:30:00Z"),
        ("2027-03-28 01:59:59", "2027-03-28T00:59:59Z"),
        ("2027-10-31 02:30", "2027-10-31T00:30:00Z"),  # shown twice: the first time
        ("2027-10-31 02:30+01:00", "2027-10-31T01:30:00Z"),
    ],
)
def test_a_time_near_a_change_of_the_clock(written, meant):
    found = read_moment(written, timezone="Europe/Berlin", base_ms=0, now_ms=NOW_MS)
    assert found == to_ms(datetime.fromisoformat(meant))
