"""Schedules in words: from the meaning, so that steps, names, unions and both kinds of days come out right."""

from __future__ import annotations

from typing import Any

import pytest

from beatd.planning.phrase import in_words
from beatd.schedules import parse
from tests.conftest import needed


@pytest.mark.parametrize(
    ("notation", "words"),
    [
        ("* * * * *", "every minute, every day"),
        ("*/15 * * * *", "every 15 minutes, every day"),
        ("*/7 * * * *", "every 7 minutes from the start of each hour (minutes 0, 7, 14, … 56), every day"),
        ("0,15,30,45 * * * *", "every 15 minutes, every day"),
        ("5 * * * *", "at minute 5 of every hour, every day"),
        ("5,20-30 * * * *", "at minutes 5 and 20 to 30 of every hour, every day"),
        ("30 7 * * mon-fri", "at 07:30 on Monday to Friday"),
        ("30 7 * * 1,2,3,4,5", "at 07:30 on Monday to Friday"),
        ("30 7,19 * * sat,sun", "at 07:30 and 19:30 on Saturday and Sunday"),
        ("0 0 * * 7", "at 00:00 on Sunday"),
        ("*/15 9-17 * * *", "every 15 minutes, in the hours 09 to 17, every day"),
        ("* 3 * * *", "every minute, in the hour 03, every day"),
        ("0 */2 * * *", "at minute 0, in every 2nd hour from 00 on, every day"),
        ("0 0 13 * fri", "at 00:00 on day 13 of the month and also on Friday"),
        ("0 0 1,15 jan,jun *", "at 00:00 on days 1 and 15 of the month in January and June"),
        ("0 0 * 3-5 *", "at 00:00 every day in March to May"),
        ("0 0 L * *", "at 00:00 on the last day of the month"),
        ("0 0 15W * *", "at 00:00 on the weekday nearest to day 15 of the month"),
        ("0 0 LW * *", "at 00:00 on the last weekday (Monday to Friday) of the month"),
        ("0 0 * * fri#2", "at 00:00 on the second Friday of the month"),
        ("0 0 * * L5", "at 00:00 on the last Friday of the month"),
        ("*/10 * * * * *", "every 10 seconds, every day"),
        ("30 * * * * *", "at second 30 of every minute, every day"),
        ("30 * 7 * * *", "at second 30 of every minute, in the hour 07, every day"),
        ("0,30 */15 * * * *", "at seconds 0 and 30 of every 15th minute, every day"),
        ("* */20 9-17 * * *", "every second of every 20th minute, in the hours 09 to 17, every day"),
        ("5 30 * * * *", "at second 5 of minute 30 of every hour, every day"),
        ("10 5-35/5 * * * *", "at second 10 of minutes 5, 10, 15, 20, 25, 30 and 35 of every hour, every day"),
        ("15 30 7 * * *", "at 07:30:15, every day"),
        ("@hourly", "at minute 0 of every hour, every day"),
        ({"hour": 7, "minute": 30, "day_of_month": 13, "day_of_week": "fri"},
         "at 07:30 on day 13 of the month, if that is Friday"),
        ("30s", "every 30s, counted from when the entry is first seen"),
        ({"every": "2h", "anchor": "2026-01-01T00:30:00Z"}, "every 2h, counted from 1970-01-01 00:30 UTC on"),
        ({"every": "1d", "relative": True}, "1d after the last run, rounded down to the day"),
        ({"at": "2026-12-24T18:00:00Z"}, "once, at 2026-12-24 18:00 UTC"),
        (["0 3 * * *", "45m"], "at 03:00, every day; and every 45m, counted from when the entry is first seen"),
    ],
)  # fmt: skip
def test_words(notation: Any, words: str) -> None:
    assert in_words(parse(notation)) == words


def test_the_zone_is_part_of_it() -> None:
    assert in_words(parse("0 3 * * *", timezone="Europe/Berlin")) == "at 03:00, every day, Europe/Berlin time"


def test_a_solar_event_has_its_place() -> None:
    needed("astral")
    words = in_words(parse({"solar": "dusk_civil", "lat": 52.5, "lon": 13.4}))
    assert words == "every day at dusk civil at latitude 52.5, longitude 13.4"
