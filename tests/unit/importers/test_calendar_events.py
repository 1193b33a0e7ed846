"""OnCalendar as systemd reads it: ``systemd-analyze calendar`` is the oracle."""

from __future__ import annotations

import os
import random
import re
import subprocess
from datetime import UTC, datetime

import pytest

from beatd import config
from beatd.importers.calendar_events import schedule_of

TEXTS = [
    "minutely", "hourly", "daily", "weekly", "monthly", "quarterly", "semiannually", "yearly", "Mon", "Sat,Sun 08:00",
    "Mon..Fri *-*-* 07:30:15", "*-*-01 00:00:00", "*:0/15", "*-*-* 9..17:00", "*-02-29", "*-*~1 03:00", "12:30",
    "*-*-1..7 18:00:00", "Mon *-*-1..7 18:00", "*-*-* *:5/20:30", "*-1,4/3-1 0:0", "Wednesday,Fri..Sun 1:02:03",
    "*-*-* 00/8:10", "*-*-2/7 12:00",
]  # fmt: skip


def ours(text: str, count: int, since: datetime) -> list[str]:
    schedule, zone = schedule_of(text)
    entry = config.entry("x", {"task": "t", "schedule": schedule}, timezone=zone or "UTC")
    found, moment = [], since
    for _ in range(count):
        moment = entry.schedule.next_after(moment)
        if moment is None:
            break
        found.append(f"{moment:%Y-%m-%d %H:%M:%S}")
    return found


def theirs(text: str, count: int, since: datetime) -> list[str]:
    command = [
        "systemd-analyze",
        "calendar",
        f"--iterations={count}",
        f"--base-time={since:%Y-%m-%d %H:%M:%S} UTC",
        text,
    ]
    env = os.environ | {"TZ": "UTC", "SYSTEMD_COLORS": "0", "LANG": "C"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode:  # a step beyond the range, which beatd takes
        return []
    return re.findall(r"(?:Next elapse|Iteration #\d+|Iter\. #\d+): \w+ (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)", done.stdout)


@pytest.mark.needs("systemd-analyze")
@pytest.mark.parametrize("text", TEXTS)
def test_it_means_the_same(text):
    since = datetime(2027, 1, 31, 23, 59, 59, tzinfo=UTC)
    expected = theirs(text, 12, since)
    assert len(expected) == 12
    assert ours(text, 12, since) == expected


def number(dice: random.Random, low: int, high: int) -> str:
    first, last = sorted((dice.randint(low, high), dice.randint(low, high)))
    forms = ["*", str(first), f"{first:02}", f"{first}..{last}", f"{first},{last}", f"{first}/{dice.randint(1, 9)}"]
    return dice.choice(forms)


@pytest.mark.needs("systemd-analyze")
def test_generated_events_mean_the_same():
    dice, since, compared = random.Random("calendar"), datetime(2027, 1, 1, tzinfo=UTC), 0
    for _ in range(60):
        days = dice.choice(["", "", "Mon ", "Tue..Thu ", "Sat,Sun "])
        date = f"*-{number(dice, 1, 12)}-{number(dice, 1, 28)}"
        text = f"{days}{date} {number(dice, 0, 23)}:{number(dice, 0, 59)}:{dice.choice(['00', '30'])}"
        if days and date[-2:] != "-*" and text.endswith("30"):
            with pytest.raises(ValueError, match="together have no counterpart"):
                schedule_of(text)
            continue
        if expected := theirs(text, 5, since):
            assert ours(text, 5, since) == expected, text
            compared += 1
    assert compared > 30


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("2030-*-* 00:00", "a year has no field"),
        ("2030..2031-01-01", "has no field in a cron string"),
        ("*-*-* 00:00:00.5", "fractions of a second"),
        ("*-*~3", "counted from the end of the month"),
        ("Foo", "is no calendar event"),
        ("*-*-* 25:00", "out of range"),
        ("", "it is empty"),
        ("Mon..Fro", "is no weekday"),
        ("*-*-* 1:2:3:4", "expected hour:minute:second"),
        ("Mon *-*-1 0:0:30", "together have no counterpart"),
    ],
)
def test_refused(text, reason):
    with pytest.raises(ValueError, match=re.escape(reason)):
        schedule_of(text)
    assert schedule_of("2030-02-01 10:00 Europe/Berlin") == ({"at": datetime(2030, 2, 1, 10)}, "Europe/Berlin")
