"""Calendars as parts of a blackout: holidays, business days, events; which days they cover, and what is refused."""

from datetime import UTC, datetime

import pytest

from beatd.exceptions import ScheduleError
from beatd.schedules import parse_blackout
from beatd.schedules.calendars import event_window, merged
from beatd.schedules.timezone import zone
from beatd.sources.calendars import expander
from beatd.timestamps import to_ms

ZONE = "Europe/Berlin"


def at(text):
    return datetime.fromisoformat(text)


@pytest.mark.parametrize(
    ("blackout", "inside", "outside"),
    [
        ({"holidays": "DE-BY"}, ["2026-01-06T00:00+01:00", "2026-12-25T23:59+01:00"], ["2026-01-07T00:00+01:00"]),
        ({"holidays": "DE"}, ["2026-10-03T12:00+02:00"], ["2026-01-06T12:00+01:00"]),
        (
            {"only_on": "business-days"},
            ["2026-11-28T00:00+01:00"],
            ["2026-11-27T23:59+01:00", "2026-12-25T12:00+01:00"],
        ),
        (
            {"only_on": {"business-days": "DE"}},
            ["2026-11-28T12:00+01:00", "2026-12-25T12:00+01:00"],
            ["2026-11-27T12:00Z"],
        ),
        ({"only_on": {"business-days": "SA"}}, ["2026-11-27T12:00+01:00"], ["2026-11-29T12:00+01:00"]),
        (
            [{"holidays": "US-CA"}, "22:00-23:00"],
            ["2026-07-04T12:00+02:00", "2026-07-05T22:30+02:00"],
            ["2026-07-05T12:00Z"],
        ),
    ],
)
def test_days_are_covered_on_the_wall_clock(blackout, inside, outside):
    read = parse_blackout(blackout, timezone=ZONE)
    assert all(read.covers(at(text)) for text in inside)
    assert not any(read.covers(at(text)) for text in outside)
    assert parse_blackout(read.notation, timezone=ZONE) == read


def test_a_day_off_ends_at_local_midnight_over_a_clock_change():
    read = parse_blackout({"only_on": "business-days"}, timezone=ZONE)
    for saturday, monday in (("2026-03-28T10:00Z", "2026-03-29T22:00Z"), ("2026-10-24T10:00Z", "2026-10-25T23:00Z")):
        end_ms = read.end_ms(int(at(saturday).timestamp() * 1000))
        assert end_ms == int(at(monday).timestamp() * 1000)


@pytest.mark.parametrize(
    ("blackout", "part"),
    [
        ({"holidays": "XX"}, "no holidays are known"),
        ({"holidays": "DE-XX"}, "parts of DE: BB"),
        ({"holidays": 5}, "expected a country"),
        ({"only_on": "sundays"}, 'expected "business-days"'),
        ({"only_on": {"business-days": "XX"}}, "no holidays are known"),
        ({"ics": ""}, "expected a file or an https URL"),
        ({"ics": "file:///etc/passwd"}, "expected a file or an http or https URL"),
        ({"ics": "a.ics", "holidays": "DE"}, "is not a blackout"),
    ],
)
def test_wrong_calendars_are_refused(blackout, part):
    with pytest.raises(ScheduleError) as caught:
        parse_blackout(blackout)
    assert part in str(caught.value)


ICS = b"""BEGIN:VCALENDAR
VERSION:2.0
PRODID:-//x//y//EN
BEGIN:VEVENT
UID:1
DTSTART:20261127T020000Z
DTEND:20261127T040000Z
END:VEVENT
BEGIN:VEVENT
UID:2
DTSTART;VALUE=DATE:20261201
DTEND;VALUE=DATE:20261202
RRULE:FREQ=WEEKLY;COUNT=3
END:VEVENT
BEGIN:VEVENT
UID:3
DTSTART:20261130T080000
DURATION:PT2H
END:VEVENT
BEGIN:VEVENT
UID:4
STATUS:CANCELLED
DTSTART:20261210T000000Z
DTEND:20261211T000000Z
END:VEVENT
BEGIN:VEVENT
UID:5
DTSTART:20261231T200000Z
DTEND:20270101T080000Z
END:VEVENT
END:VCALENDAR
"""


def test_events_are_covered_with_their_rules_and_zones():
    window = event_window("test.ics", zone(ZONE))
    now_ms = int(datetime(2026, 11, 26, tzinfo=UTC).timestamp() * 1000)
    assert not window.covers_ms(now_ms), "until it is read it covers nothing"
    window.calendar.fill(expander(ICS), now_ms)
    for text, expected in (
        ("2026-11-27T01:59Z", False),
        ("2026-11-27T02:00Z", True),
        ("2026-11-27T04:00Z", False),
        ("2026-12-08T00:00+01:00", True),
        ("2026-12-08T23:59+01:00", True),
        ("2026-12-22T12:00Z", False),
        ("2026-11-30T07:30Z", True),
        ("2026-11-30T09:30Z", False),
        ("2026-12-10T12:00Z", False),
        ("2026-12-31T21:00Z", True),
        ("2027-01-01T07:00Z", True),
        ("2027-01-01T08:00Z", False),
    ):
        assert window.covers_ms(int(at(text).timestamp() * 1000)) is expected, text
    assert window.end_ms(int(at("2026-11-27T03:00Z").timestamp() * 1000)) == int(
        at("2026-11-27T04:00Z").timestamp() * 1000
    )
    assert event_window("test.ics", zone("UTC")).calendar is window.calendar


def test_overlaps_are_merged():
    assert merged([(5, 9), (1, 3), (2, 4), (9, 12), (7, 7)]) == [(1, 4), (5, 12)]


def test_a_calendar_is_expanded_by_who_reads_it_and_not_by_who_sends_runs():
    """A large one takes seconds: at the end of a year, and each time that it is read again."""
    window, asked = event_window("ready.ics", zone("UTC")), []
    calendar, new_year_ms = window.calendar, to_ms(datetime(2027, 1, 1, tzinfo=UTC))

    def expand(year, _zone):
        asked.append(year)
        return [(to_ms(datetime(year, 1, 1, tzinfo=UTC)), to_ms(datetime(year, 1, 1, 1, tzinfo=UTC)))]

    calendar.fill(expand, new_year_ms - 86_400_001)
    calendar.make_ready(new_year_ms - 86_400_000)
    assert asked == [2026, 2027]
    calendar.fill(expand, new_year_ms)
    assert asked == [2026, 2027] * 2
    assert window.covers_ms(new_year_ms)
    assert not window.covers_ms(new_year_ms - 1)
    assert asked == [2026, 2027] * 2


def test_years_far_away_are_expanded_only_when_somebody_asks():
    asked = []

    def expand(year, _zone):
        asked.append(year)
        return []

    window, now_ms = event_window("far.ics", zone("UTC")), to_ms(at("2026-06-01T00:00Z"))
    calendar = window.calendar
    calendar.fill(expand, now_ms)
    for year in (2026, 2027, 2076, 2525):
        assert not window.covers_ms(to_ms(datetime(year, 6, 1, tzinfo=UTC)))
    assert asked == [2026, 2027, 2076, 2525]
    calendar.fill(expand, now_ms)
    assert asked[4:] == [2026, 2027]
    window.covers_ms(to_ms(at("2076-06-01T00:00Z")))
    assert asked[6:] == [2076]
