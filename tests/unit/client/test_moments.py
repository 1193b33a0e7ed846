"""Moments that people write."""

from datetime import datetime

import pytest

from beatd.client.moments import read_moment
from beatd.timestamps import to_ms

NOW_MS = to_ms(datetime.fromisoformat("2026-11-27T01:40:00+00:00"))


@pytest.mark.parametrize("written", ["07:30", "7:30", "07:30:00", "7:30:00"])
def test_a_time_of_today_may_have_one_digit_and_seconds(written):
    found = read_moment(written, timezone="Europe/Berlin", base_ms=0, now_ms=NOW_MS)
    assert found == to_ms(datetime.fromisoformat("2026-11-27T07:30:00+01:00"))
