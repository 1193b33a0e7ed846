"""The offsets that are read once and kept are those of ``zoneinfo``, in every zone and at every time."""

from __future__ import annotations

import pickle
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, available_timezones

from hypothesis import given
from hypothesis import strategies as st

from beatd.schedules.timezone import SAMPLE, zone

ZONES = sorted(available_timezones() - {"localtime", "Factory"})
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
SECONDS = st.integers(-5_000_000_000, 5_000_000_000)


def offset(name: str, t: int) -> int:
    return (EPOCH + timedelta(seconds=t)).astimezone(ZoneInfo(name)).utcoffset() // timedelta(seconds=1)


@given(st.sampled_from(ZONES), SECONDS)
def test_a_span_has_one_offset_from_its_first_second_to_its_last(name, t):
    start, end, found, _ = zone(name).span(t)
    assert start <= t < end
    if end < 1 << 50:
        assert zone(name).span(end).start == end
        for at in (start, t, (start + end) // 2, end - 1):
            assert offset(name, at) == found == offset(name, t)


@given(st.sampled_from(ZONES), SECONDS, st.integers(0, 86_400))
def test_wall_times_become_the_instants_of_zoneinfo(name, t, second):
    wall = datetime(1970, 1, 1) + timedelta(seconds=t - t % 86_400 + second)
    due, jumped = zone(name).instant((wall - datetime(1970, 1, 1)) // timedelta(seconds=1))
    expected = wall.replace(tzinfo=ZoneInfo(name)).astimezone(UTC)
    is_shown = expected.astimezone(ZoneInfo(name)).replace(tzinfo=None) == wall
    assert jumped is not is_shown
    if is_shown:
        assert EPOCH + timedelta(seconds=due) == expected
        again = wall.replace(tzinfo=ZoneInfo(name), fold=1).astimezone(UTC)
        assert zone(name).is_repeated(due) is (again != expected)
        assert zone(name).is_repeated((again - EPOCH) // timedelta(seconds=1)) is (again != expected)
    else:
        assert offset(name, due - 1) < offset(name, due)


def test_no_two_changes_hide_between_two_samples():
    """The zones with the closest changes, each 12 hours, 1935 to 2045."""
    for name in ("America/Recife", "Asia/Gaza", "Africa/Tunis"):
        changed, before = None, None
        for t in range(-1_104_537_600, 2_366_841_600, 43_200):
            now = offset(name, t)
            if before is not None and now != before:
                assert changed is None or t - changed > SAMPLE, name
                changed = t
            before = now


def test_a_block_that_begins_in_a_repeated_hour_knows_of_it():
    """No block does in today's tzdata, so this one is cut out by hand."""
    set_back = int(datetime(2026, 10, 25, 1, tzinfo=UTC).timestamp())
    second_pass = set_back + 900
    first = next(zone("Europe/Berlin")._spans(second_pass, second_pass + 86_400))
    assert first == (second_pass, second_pass + 86_400, 3600, set_back + 7200)


def test_a_zone_is_one_object():
    assert zone("Europe/Berlin") is zone("Europe/Berlin")
    assert pickle.loads(pickle.dumps(zone("Europe/Berlin"))) is zone("Europe/Berlin")
    assert zone("Etc/UTC").is_utc
    assert not zone("Europe/London").is_utc
