"""Each field of an entry with strange values: a fault in words, or an entry that works at any instant."""

from __future__ import annotations

import random
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from beatd.beat.message_builder import MessageBuilder
from beatd.config.digest import EntryHasher
from beatd.config.entries import ENTRY, entry
from beatd.exceptions import ConfigError
from beatd.model import Entry, Run
from beatd.planning.policies import Facts, decide
from beatd.planning.timeline import fire_ms, hidden, timeline
from beatd.schedules import latest_ms
from beatd.timestamps import LAST_MS, from_ms

NOW_MS = 1_800_000_000_000
SCALARS: list[Any] = [
    *(
        "",
        " ",
        "x",
        "auto",
        "never",
        "1M",
        "1m",
        "9999999d",
        "3000000d",
        "36525d",
        "9" * 5000 + "w",
        "1e400",
        "PT9999999H",
    ),
    *("99999999999999999999w", "* * * * *", "5/15 * * * *", "9" * 5000 + " * * * *", "0 0 29 2 *", "@daily", "@reboot"),
    *(
        "H H * * *",
        "0 0 L-3 * *",
        "CRON_TZ=UTC * * * * *",
        "9998-12-31",
        "9999-12-31T23:59:59",
        "0001-01-01",
        "1970-01-01",
    ),
    *(
        "22:00-06:00",
        "1970-01-01/9998-12-31",
        "2026-01-01/9999-12-31",
        "America/New_York",
        "Etc/GMT+12",
        "a\nb",
        "\x00",
    ),
    *(
        "\ud800",
        "\u202e",
        "e" * 300,
        0,
        1,
        -1,
        0.01,
        255,
        256,
        2**31,
        2**53,
        2**63,
        2**64,
        10**30,
        10**5000,
        999_999_999_999,
    ),
    *(0.0, -0.0, 1e-9, 1e300, 1e308, -1e308, float("nan"), float("inf"), float("-inf"), True, False),
    *(date.min, date.max, date(1970, 1, 1), date(9998, 12, 31), datetime.min, datetime.max, time.max),
    *(datetime.max.replace(tzinfo=UTC), datetime(9998, 12, 31, 23, 59, 59, tzinfo=UTC), timedelta.max, timedelta.min),
    *(Decimal("1.5"), Decimal("NaN"), Decimal("sNaN"), Decimal("Infinity"), UUID(int=1), b"x", b"\xff"),
    *(time(7, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=timezone(timedelta(seconds=61)))),
]
KEYS = ["every", "anchor", "relative", "cron", "at", "solar", "lat", "lon", "minute", "hour", "day_of_week", "duration"]
KEYS += ["task", "args", "kwargs", "options", "id", "expires", "beatd-entry", "tenant", "queue", "headers", "link"]


def strange(dice: random.Random, depth: int = 2) -> Any:
    """A value, or a list or table of values."""
    match dice.randrange(6) if depth else 5:
        case 0:
            return [strange(dice, depth - 1) for _ in range(dice.randrange(3))]
        case 1:
            return {dice.choice(KEYS): strange(dice, depth - 1) for _ in range(dice.randrange(1, 3))}
        case 2:
            return {dice.choice(["at", "every", "cron", "minute"]): strange(dice, 0)}
    return dice.choice(SCALARS)


def use(made: Entry) -> None:
    """Do with an entry all that a daemon does, at the present and at both ends of time."""
    assert EntryHasher().of(made) == EntryHasher().of(made)
    assert made.schedule.fingerprint
    for now_ms in (0, NOW_MS, LAST_MS - 86_400_000, LAST_MS):
        line = timeline(made, now_ms)
        due_ms = line.next_after_ms(now_ms)
        latest_ms(line, now_ms - 86_400_000 * 400, now_ms)
        due_ms = now_ms if due_ms is None else due_ms
        hidden(made, due_ms)
        leaves_ms = fire_ms(made, line, due_ms)
        assert due_ms <= leaves_ms <= LAST_MS
        run = Run(made, due_ms, leaves_ms, line)
        verdict = decide(run, "q", Facts(leaves_ms, frozenset(), {}))
        assert from_ms(due_ms)
        assert MessageBuilder("celery", most_bytes=1 << 30).render(run, verdict.expires_ms)


def check_faults(error: ConfigError) -> None:
    assert error.faults
    assert all(len(str(fault)) < 2_000 and "\n" not in str(fault) for fault in error.faults)


def check(seed: str, field: str, count: int) -> int:
    """Try so many values of one field; tells how many could be used."""
    dice, used = random.Random(f"{seed} {field}"), 0
    for number in range(count):
        value = SCALARS[number] if number < len(SCALARS) else strange(dice)
        fields = {"task": "t", "schedule": dice.choice([30, "0 0 * * *", {"at": "9998-12-31"}])} | {field: value}
        if dice.random() < 0.3:
            fields["timezone"] = dice.choice(["America/New_York", "Pacific/Kiritimati"])
        try:
            made = entry("a", fields)
        except ConfigError as error:
            check_faults(error)
            continue
        try:
            use(made)
        except Exception as error:
            error.add_note(f"{field} = {value!r:.300}")
            raise
        used += 1
    return used


@pytest.mark.parametrize("field", ENTRY)
def test_a_field_with_strange_values(field: str) -> None:
    assert check("quick", field, 200) or field in {
        "only_on",
        "dst",
        "serializer",
        "catch_up",
        "overlap",
        "options",
        "ping",
        "sentry",
    }


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("field", ENTRY)
def test_a_field_with_thousands_of_strange_values(field: str) -> None:
    check("long", field, 5_000)


@pytest.mark.parametrize(
    "name", ["id", "task", "expires", "timelimit", "beatd-entry", "beatd-x", "celery_beat_task", "compression"]
)
@pytest.mark.parametrize("inside", [True, False])
def test_reserved_headers_are_refused(name: str, inside: bool) -> None:
    headers: dict[str, Any] = {"headers": {name: "x"}}
    with pytest.raises(ConfigError, match=f'the header "{name}" is reserved'):
        entry("a", {"task": "t", "schedule": 30} | ({"options": headers} if inside else headers))


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (date(2026, 1, 2), 'a header cannot carry a date; write it as text: "2026-01-02"'),
        (datetime(2026, 1, 2, 3, 4), 'a header cannot carry a time; write it as text: "2026-01-02T03:04:00"'),
        (time(8), 'a header cannot carry a time of day; write it as text: "08:00:00"'),
        (Decimal("1.5"), 'a header cannot carry a decimal number; write it as text: "1.5"'),
        (UUID(int=1), 'a header cannot carry a UUID; write it as text: "00000000-0000-0000-0000-000000000001"'),
        (b"secret", "a header cannot carry bytes; write it as text"),
    ],
)
def test_headers_that_need_marks_are_refused(value: Any, said: str) -> None:
    for given, path in (({"h": value}, "h"), ({"h": {"in": [1, value]}}, "h.in[1]")):
        with pytest.raises(ConfigError) as caught:
            entry("a", {"task": "t", "schedule": 30, "headers": given})
        assert str(caught.value).endswith(f"headers.{path}: {said}")
    assert entry("a", {"task": "t", "schedule": 30, "args": [value]}).args == (value,)
