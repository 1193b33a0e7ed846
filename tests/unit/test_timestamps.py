"""Instants and durations: how they are written."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beatd.timestamps import EARLIEST_MS, LAST_MS, from_ms, iso_ms, span_text, utc_text


@given(st.integers(EARLIEST_MS - 10**12, LAST_MS + 10**12))
def test_an_instant_is_written_as_datetime_writes_it(ms):
    assert iso_ms(ms) == from_ms(ms).isoformat(timespec="milliseconds")


def test_an_instant_in_a_text_names_its_zone():
    assert utc_text(1_790_000_000_999) == "2026-09-21 14:13:20 UTC"


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (-5, "0 ms"),
        (999, "999 ms"),
        (1_000, "1 s"),
        (1_299, "1.2 s"),
        (59_999, "59 s"),
        (60_000, "1 min"),
        (77_000, "1 min 17 s"),
        (3_599_999, "59 min 59 s"),
        (11_400_000, "3 h 10 min"),
        (2 * 86_400_000 - 1, "47 h 59 min"),
        (2 * 86_400_000, "2 days"),
        (1_234 * 86_400_000 + 3_600_000, "1,234 days 1 h"),
    ],
)
def test_a_duration_for_people_has_two_units_at_most(ms, text):
    assert span_text(ms) == text
