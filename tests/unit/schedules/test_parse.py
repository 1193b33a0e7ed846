"""Every notation is read, written back, shared, and told apart by its fingerprint."""

from __future__ import annotations

import copy
import pickle
import re
import subprocess
import sys
from dataclasses import FrozenInstanceError, fields
from datetime import UTC, date, datetime, timedelta

import pytest
import tomli_w
from croniter import croniter
from hypothesis import assume, given
from hypothesis import strategies as st

from beatd.exceptions import ScheduleError
from beatd.schedules import Schedule, bind, crontab, every, latest, once, parse, period_ms, solar
from beatd.schedules.cron import DAY_OF_MONTH, DAY_OF_WEEK, HOUR, MINUTE, MONTH, values_of
from beatd.schedules.cron_parser import FIELDS, read_field

T = datetime(2026, 3, 1, 10, 3, tzinfo=UTC)
NOTATIONS = [
    30,
    0.25,
    "1h30m",
    "PT30S",
    "every 30s",
    timedelta(minutes=5),
    "*/5 * * * *",
    "30 7 * * mon",
    "15 30 7 * * mon-fri",
    "0 0 29 2 *",
    "0 22-2 * nov-feb fri-mon",
    "0 0 L * *",
    "0 0 LW,15W * *",
    "0 0 1,L * *",
    "0 0 * * fri#2",
    "0 0 * * L5",
    "0 0 * * 5L",
    "0 0 ? * mon#1,fri",
    "0 0 1-7 * mon",
    "0 0 */2 * mon",
    "@hourly",
    "@Yearly",
    "H H * * *",
    "H/15 H(2-4) * * *",
    {"minute": "30", "hour": "7", "day_of_week": "1"},
    {"minute": 0, "hour": [7, 19], "day_of_month": "*/2", "day_of_week": "mon"},
    {"minute": "*"},
    {"cron": "0 9 * * *"},
    {"every": "30s", "anchor": "2026-01-01T00:00:07.250Z"},
    {"every": "1d", "anchor": datetime(2026, 1, 1, 6)},
    {"every": "2h", "relative": True},
    {"solar": "sunset", "lat": 40.4, "lon": 49.9},
    {"at": "2026-12-31T23:59:00"},
    {"at": datetime(2026, 12, 31, 23, 59, tzinfo=UTC)},
    {"at": date(2026, 12, 31)},
    ["0 9 * * mon-fri", "0 12 * * sat"],
    ["0 9 * * *", ["@weekly", {"hour": 3, "minute": 0}], {"at": "2026-12-31T23:59:00"}],
]


@pytest.mark.parametrize("value", NOTATIONS, ids=str)
@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin"])
def test_a_notation_reads_back(value, zone):
    schedule = parse(value, timezone=zone, name="report")
    again = parse(schedule.notation, timezone=zone)
    assert again == schedule
    assert hash(again) == hash(schedule)
    assert again.fingerprint == schedule.fingerprint
    assert isinstance(schedule, Schedule)
    tomli_w.dumps({"schedule": schedule.notation})
    assert len(schedule.fingerprint) <= 64
    assert parse(schedule) is schedule
    for other in (copy.deepcopy(schedule), pickle.loads(pickle.dumps(schedule))):
        assert other == schedule
        assert other.next_after(T) == schedule.next_after(T)


@pytest.mark.parametrize("value", NOTATIONS, ids=str)
def test_equal_values_are_one_object(value):
    first = parse(value, timezone="Europe/Berlin", name="a")
    assert parse(copy.deepcopy(value), timezone="Europe/Berlin", name="a") is first


@pytest.mark.parametrize("value", NOTATIONS, ids=str)
def test_schedules_are_frozen_and_small(value):
    schedule = parse(value)
    assert not hasattr(schedule, "__dict__")
    with pytest.raises((FrozenInstanceError, AttributeError)):
        setattr(schedule, fields(schedule)[0].name, None)


def test_different_schedules_have_different_fingerprints():
    made = [parse(value, timezone=zone, dst=dst, name="x") for value in NOTATIONS for zone, dst in
            [("UTC", "cron"), ("Europe/Berlin", "cron"), ("Europe/Berlin", "skip"), ("Asia/Baku", "cron")]]  # fmt: skip
    by_print: dict[str, Schedule] = {}
    for schedule in made:
        assert by_print.setdefault(schedule.fingerprint, schedule) == schedule
    assert len(by_print) == len(set(made))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("@daily", "0 0 * * *"),
        ("0 0 * * sun", "0 0 * * 7"),
        ("0 0 * * 0-6", "0 0 * * *"),
        ("0 0 1-31 * mon", "0 0 * * *"),  # either, and one is always
        ("0,30 * * * *", "0 */30,0 * * * *"),
        ({"minute": "0", "hour": "7"}, "0 7 * * *"),
        (["@daily", "@weekly"], ["0 0 * * 0", "@midnight"]),
        (["@daily"], "@daily"),
        (["@daily", "0 0 * * *"], "@daily"),
    ],
)
def test_what_means_the_same_is_equal(one, other):
    assert parse(one) == parse(other)
    assert hash(parse(one)) == hash(parse(other))
    assert parse(one).fingerprint == parse(other).fingerprint


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("0 0 */2 * mon", "0 0 1-31/2 * mon"),  # both, or either
        ("0 0 1 * mon", {"minute": 0, "hour": 0, "day_of_month": 1, "day_of_week": 1}),
        ("0 0 * * fri#1", "0 0 * * fri#2"),
        ("30s", {"every": "30s", "anchor": "2026-01-01"}),
        ("30s", {"every": "30s", "relative": True}),
    ],
)
def test_what_does_not_is_not(one, other):
    assert parse(one) != parse(other)
    assert parse(one).fingerprint != parse(other).fingerprint


def test_where_clocks_change_a_star_is_more_than_all_its_values():
    for one, other in (("*/30 * * * *", "0,30 0-23 * * *"), ("* 2 * * *", "0-59 2 * * *")):
        assert parse(one, timezone="Europe/Berlin") != parse(other, timezone="Europe/Berlin")
        assert parse(one) == parse(other)
    assert parse("0 2 * * *", timezone="Europe/Berlin", dst="skip") != parse("0 2 * * *", timezone="Europe/Berlin")
    assert parse("0 2 * * *", dst="skip") == parse("0 2 * * *")
    assert parse("30s", timezone="Europe/Berlin") == parse("30s")


def test_fingerprints_last():
    """They lie in the state store: a release that changes one would start entries anew, and must say so."""
    assert parse("30 7 * * mon", timezone="Asia/Baku").fingerprint == "cron 0 30 7 * * 1 Asia/Baku cron"
    assert parse("30s").fingerprint == "every 30s"
    assert bind(parse("30s"), T).fingerprint == "every 30s phase 0ms"
    assert once("2026-12-31").fingerprint == "once 2026-12-31T00:00:00Z"
    assert solar("sunset", 1, 2).fingerprint == "solar sunset 1.0 2.0"
    assert every("1d", relative=True, timezone="Asia/Baku").fingerprint == "relative 1d Asia/Baku"
    assert parse(["@daily", "@weekly"]).fingerprint == "union cron 0 0 0 * * * UTC | cron 0 0 0 * * 0 UTC"
    assert parse("*/5 * * * *").fingerprint == "cron 0 0,5,10,15,20,25,30,35,40,45,50,55 * * * * UTC"[:64]


def test_h_spreads_entries_and_stays():
    dues = {name: parse("H H * * *", name=name).next_after(T) for name in map(str, range(300))}
    assert len(set(dues.values())) > 200
    assert parse("H H * * *", name="7").next_after(T) == dues["7"]
    assert parse("H H * * *", name="7").notation == parse("R R * * *", name="7").notation != "H H * * *"
    for name in map(str, range(100)):
        minute, hour, day, *_ = parse("H(10-19) H/6 H * *", name=name).notation.split()
        assert 10 <= int(minute) <= 19
        assert 1 <= int(day) <= 28
        assert hour.split("/")[1] == "6"
        assert int(hour.split("-")[0]) < 6
    assert parse("H * * * *", name="a") != parse("H * * * *", name="b")
    assert parse(["H * * * *"], name="a") != parse(["H * * * *"], name="b")


def test_six_fields_have_the_seconds_first():
    schedule = parse("*/20 30 7 * * *")
    t = datetime(2026, 3, 1, 7, 30, 10, tzinfo=UTC)
    runs = [t := schedule.next_after(t) for _ in range(3)]
    assert [run.isoformat()[11:19] for run in runs] == ["07:30:20", "07:30:40", "07:30:00"]


def test_sub_second_questions():
    schedule = parse("* * * * * *")
    assert schedule.next_after(T + timedelta(microseconds=1)) == T + timedelta(seconds=1)
    assert schedule.next_after(T - timedelta(microseconds=1)) == T
    assert schedule.next_after_ms(-1) == 0
    assert schedule.next_after_ms(-1001) == -1000


@pytest.mark.parametrize(
    ("text", "dates"),
    [
        ("0 0 L * *", "03-31 04-30 05-31"),
        ("0 0 L 2 *", "2027-02-28 2028-02-29 2029-02-28"),
        ("0 0 LW * *", "03-31 04-30 05-29"),
        ("0 0 15W * *", "03-16 04-15 05-15"),
        ("0 0 1W * *", "03-02 04-01 05-01"),
        ("0 0 W31 * *", "03-31 04-30 05-29"),
        ("0 0 30W 1,2,3 *", "03-30 2027-01-29 2027-02-26"),
        ("0 0 * * fri#2", "03-13 04-10 05-08"),
        ("0 0 * * mon#5", "03-30 06-29 08-31"),
        ("0 0 * 2 mon#5", "2044-02-29 2072-02-29 2112-02-29"),
        ("0 0 * * L5", "03-27 04-24 05-29"),
        ("0 0 * * sunL", "03-29 04-26 05-31"),
        ("0 0 13 * fri", "03-06 03-13 03-20"),  # Vixie: either
        ("0 0 13 * fri#2", "03-13 04-10 04-13"),
        ("0 0 */13 * fri", "03-27 05-01 08-14"),  # Debian: a step of a star is a star, so both
        ("0 0 29 2 *", "2028-02-29 2032-02-29 2036-02-29"),
        ("0 0 1 jan,jul sun", "07-01 07-05 07-12"),
    ],
)
def test_days(text, dates):
    schedule, t, found = parse(text), T, []
    for expected in dates.split():
        t = schedule.next_after(t)
        found.append(t.date().isoformat()[10 - len(expected) :])
    assert " ".join(found) == dates


def test_both_days_of_a_table_must_match():
    friday_13th = crontab(0, 0, "fri", 13)
    assert friday_13th.next_after(T) == datetime(2026, 3, 13, tzinfo=UTC)
    assert friday_13th.next_after(datetime(2026, 3, 13, tzinfo=UTC)) == datetime(2026, 11, 13, tzinfo=UTC)


def test_a_union_runs_whenever_one_does_and_once_when_two_do():
    schedule, t = parse(["0 9 * * mon-fri", "0 9 1 * *", "0 12 * * sat"]), datetime(2026, 4, 30, tzinfo=UTC)
    runs = [t := schedule.next_after(t) for _ in range(4)]
    assert [run.isoformat()[5:16] for run in runs] == ["04-30T09:00", "05-01T09:00", "05-02T12:00", "05-04T09:00"]


def test_once_is_once():
    schedule = once(T)
    assert schedule.next_after(T - timedelta(milliseconds=1)) == T
    assert schedule.next_after(T) is None
    assert period_ms(schedule, T - timedelta(days=1)) is None
    assert latest(schedule, after=T - timedelta(days=1), until=T) == T
    assert latest(schedule, after=T, until=T + timedelta(days=1)) is None
    union = parse([schedule, "@yearly"])
    assert union.next_after(T) == datetime(2027, 1, 1, tzinfo=UTC)


def test_the_end_of_time_is_none():
    end = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
    for value in NOTATIONS:
        for zone in ("UTC", "Europe/Berlin", "Pacific/Auckland", "America/Los_Angeles"):
            schedule = parse(value, timezone=zone)
            for t in (end, end - timedelta(days=1)):
                due = schedule.next_after(t)
                assert due is None or due > t
            assert schedule.next_after(datetime(2, 1, 1, tzinfo=UTC)) is not None or "at" in str(schedule.notation)


def test_nothing_slow_or_foreign_is_imported_until_it_is_needed():
    code = """
import sys
from beatd.schedules import crontab, parse
parse(["*/5 * * * *", "30s", {"minute": 5}, {"at": "2026-01-01"}]), crontab(5)
print(sorted({"astral", "celery", "croniter", "cronsim", "redis", "kombu"} & set(sys.modules)))
"""
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert shown.stdout.strip() == "[]"


PLAIN = "0123456789,-*/"


@given(st.sampled_from(range(5)), st.text(PLAIN, min_size=1, max_size=7))
def test_croniter_reads_plain_fields_alike(column, text):
    """Where both accept a field of digits, stars and ranges, it is the same set of values."""
    columns = ["*"] * 5
    columns[column] = text
    assume("/" not in text or "-" in text or text.count("*") == text.count("/"))
    assume(all(int(low) != int(high) for low, high in re.findall(r"(\d+)-(\d+)", text)))  # croniter's 0-0 is a star
    field = (MINUTE, HOUR, DAY_OF_MONTH, MONTH, DAY_OF_WEEK)[column]
    try:
        ours = set(values_of(read_field(text, field)))
        expanded, _ = croniter.expand(" ".join(columns))
    except ValueError:
        return
    theirs = expanded[column]
    everything = set(range(field.low, field.high + 1))
    assert ours == (everything if "*" in theirs else set(theirs))
    assert field in FIELDS


def test_a_crontab_without_a_zone_takes_the_one_that_it_is_registered_in():
    open_one, named = crontab(hour=7, minute=30), crontab(hour=7, minute=30, timezone="UTC")
    assert parse(open_one, timezone="Europe/Berlin") == crontab(hour=7, minute=30, timezone="Europe/Berlin")
    assert parse(named, timezone="Europe/Berlin") is named.value
    assert open_one == named
    skipping = crontab(hour=2, minute=30, dst="skip")
    assert parse(skipping, timezone="Europe/Berlin") == crontab(hour=2, minute=30, timezone="Europe/Berlin", dst="skip")


FORMS = (str, lambda text: {"cron": text}, lambda text: [text], lambda text: ["@yearly", {"cron": text}])
BLANKS = st.sampled_from([" ", "\t", "  ", " \n", "\u3000"])


@given(st.lists(BLANKS, min_size=5, max_size=5), st.sampled_from(FORMS))
def test_h_is_that_of_the_entry_whatever_is_between_the_fields(blanks, form):
    text = "".join(map(str.__add__, blanks, ["H", "H(1-9)", "*", "*", "*"]))
    parsed = {name: parse(form(text), name=name) for name in ("a", "b", "c")}
    assert parsed == {name: parse(form("H H(1-9) * * *"), name=name) for name in ("a", "b", "c")}
    assert len(set(parsed.values())) == 3


def test_schedules_in_a_list_are_told_apart_though_they_look_alike():
    alike = [
        crontab(hour=2, minute=30),
        crontab(hour=2, minute=30, timezone="UTC"),
        crontab(hour=2, minute=30, dst="skip"),
    ]
    assert len(set(map(str, alike))) == 1
    read = [parse([one, "@yearly"], timezone="Europe/Berlin") for one in alike]
    assert [one.parts[0] for one in read] == [parse(one, timezone="Europe/Berlin") for one in alike]
    assert len(set(read)) == 3


def test_a_schedule_that_decides_itself_is_refused_beside_its_twin_too():
    class Own(crontab):
        def is_due(self, last_run_at):
            return super().is_due(last_run_at)

    twin = parse([crontab(5), "@yearly"])  # which is known as long as somebody has it
    with pytest.raises(ScheduleError, match="a schedule with its own is_due"):
        parse([Own(5), "@yearly"])
    assert twin.parts[0] == crontab(5)


def test_schedules_of_foreign_classes_are_taken_as_they_are():
    class Foreign:
        __slots__ = ()
        notation, fingerprint = "never", "never"

        def next_after(self, t, /):
            return None

        def next_after_ms(self, t_ms, /):
            return None

        def __repr__(self):
            return "<foreign>"

    one, other = Foreign(), Foreign()
    assert parse(one) is one
    assert parse(other) is other


@pytest.mark.parametrize("text", ["1h 30m 10s", "1 h 30 m 10 s", " 1 hour  30 min 10 s "])
def test_a_duration_may_have_spaces(text):
    assert parse(text) == parse("1h30m10s")
    assert parse("0 H 3 L 2 fri", name="a").fingerprint.startswith("cron ")


def test_a_star_in_a_list_is_a_star():
    for written, plain in ((["*"], "*"), (["*/2"], "*/2"), (["*/2", "1"], "*/2,1")):
        table = {"minute": 0, "hour": plain}
        assert parse({**table, "hour": written}, timezone="Europe/Berlin") == parse(table, timezone="Europe/Berlin")
