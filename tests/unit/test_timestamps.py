"""Instants: how they are written."""

from hypothesis import given
from hypothesis import strategies as st

from beatd.timestamps import EARLIEST_MS, LAST_MS, from_ms, iso_ms


@given(st.integers(EARLIEST_MS - 10**12, LAST_MS + 10**12))
def test_an_instant_is_written_as_datetime_writes_it(ms):
    assert iso_ms(ms) == from_ms(ms).isoformat(timespec="milliseconds")
