"""Jobs of APScheduler: what is imported runs when APScheduler would have run it, or the difference is said."""

from __future__ import annotations

import pickle
import sqlite3
from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
import pytz
from apscheduler.triggers.combining import OrTrigger
from apscheduler.triggers.cron import CronTrigger
from apscheduler.triggers.date import DateTrigger
from apscheduler.triggers.interval import IntervalTrigger
from dateutil import tz

from beatd.importers import carry_over
from beatd.importers.apscheduler import jobs_of_database, jobs_of_file, read_apscheduler

START = datetime(2030, 1, 1, 12, tzinfo=UTC)


def carried(tmp_path, trigger, **state):
    states = [{"id": "x", "func": "a:b", "trigger": trigger, "next_run_time": START, **state}]
    (tmp_path / "jobs").write_bytes(pickle.dumps(states))
    return carry_over(read_apscheduler(jobs_of_file(tmp_path / "jobs"), shown="jobs"))


def runs(schedule, count=12):
    found, moment = [], START - timedelta(seconds=1)
    for _ in range(count):
        moment = schedule.next_after(moment)
        if moment is None:
            break
        found.append(moment)
    return found


def expected(trigger, count=12):
    found, moment = [], START - timedelta(seconds=1)
    for _ in range(count):
        due = trigger.get_next_fire_time(None, moment)
        if due is None:
            break
        found.append(due)
        moment = due + timedelta(microseconds=1)
    return found


@pytest.mark.parametrize("day", ["1,2nd tue", "last,1st mon", "2nd tue,last fri", "13,last fri"])
def test_days_and_positions_together(tmp_path, day):
    trigger = CronTrigger(day=day, hour=3, timezone="UTC")
    (entry,) = carried(tmp_path, trigger).entries
    assert runs(entry.schedule) == expected(trigger)


def test_days_that_no_cron_string_says(tmp_path):
    found = carried(tmp_path, CronTrigger(day="*/2,2nd tue", hour=3, timezone="UTC"))
    assert (found.entries, found.lost) == ((), 1)


ZONES = [timezone(timedelta(hours=2)), pytz.FixedOffset(120), tz.tzoffset("x", 7200), pytz.timezone("Europe/Berlin")]


@pytest.mark.parametrize("zone", ZONES, ids=str)
def test_times_in_zones_of_any_library(tmp_path, zone):
    hour = 6 if "Berlin" in str(zone) else 5
    trigger = CronTrigger(hour=7, timezone="UTC")
    trigger.timezone = zone
    (entry,) = carried(tmp_path, trigger).entries
    assert [due.hour for due in runs(entry.schedule, 3)] == [hour] * 3


@pytest.mark.parametrize("zone", [*ZONES[:3], pytz.FixedOffset(330), pytz.utc, tz.tzutc(), ZoneInfo("Asia/Tokyo")])
@pytest.mark.parametrize("protocol", [4, 5])
def test_moments_in_zones_of_any_library(tmp_path, zone, protocol):
    trigger = DateTrigger(START, timezone="UTC")
    trigger.run_date = START.astimezone(zone)
    (tmp_path / "jobs").write_bytes(pickle.dumps([{"id": "x", "func": "a:b", "trigger": trigger}], protocol))
    (entry,) = carry_over(read_apscheduler(jobs_of_file(tmp_path / "jobs"), shown="jobs")).entries
    assert runs(entry.schedule) == [START]


def test_a_zone_that_has_no_name_is_said(tmp_path):
    trigger = CronTrigger(hour=7, timezone="UTC")
    trigger.timezone = timezone(timedelta(hours=5, minutes=30))
    found = carried(tmp_path, trigger)
    assert found.entries[0].timezone == "UTC"
    assert [note.about for note in found.notes] == ["func", "timezone"]


def test_a_moment_in_a_zone_that_is_not_known_is_left_behind(tmp_path):
    trigger = DateTrigger(START, timezone="UTC")
    trigger.run_date = START.astimezone(tz.gettz("Asia/Tokyo"))
    found = carried(tmp_path, trigger)
    assert (found.entries, str(found.notes[0])) == ((), "x: it has no date that can be read")


@pytest.mark.parametrize(
    ("next_run", "jitter", "start"),
    [
        (START, None, START),
        (START + timedelta(seconds=30), 60, START),
        (None, None, START),
        (START + timedelta(hours=3), None, None),
    ],
)
def test_an_interval_does_not_run_before_its_start(tmp_path, next_run, jitter, start):
    trigger = IntervalTrigger(hours=1, start_date=START, timezone="UTC", jitter=jitter)
    (entry,) = carried(tmp_path, trigger, next_run_time=next_run).entries
    assert entry.policies.start == start
    assert runs(entry.schedule, 3) == [START + timedelta(hours=each) for each in range(3)]


def test_an_interval_among_others_that_begins_later_is_said(tmp_path):
    later = IntervalTrigger(hours=1, start_date=START + timedelta(days=1), timezone="UTC")
    found = carried(tmp_path, OrTrigger([CronTrigger(hour=1, timezone="UTC"), later]))
    assert any(note.about == "start" and "2030-01-02T12:00" in note.why for note in found.notes)


@pytest.mark.parametrize(
    ("state", "window_ms"),
    [
        ({}, None),
        ({"misfire_grace_time": 1}, None),
        ({"misfire_grace_time": 60}, 60_000),
        ({"misfire_grace_time": None}, 366 * 86_400_000),
    ],
)
def test_a_missed_run_is_made_as_late_as_there(tmp_path, state, window_ms):
    (entry,) = carried(tmp_path, CronTrigger(hour=7, timezone="UTC"), **state).entries
    assert entry.policies.catch_up_window_ms == window_ms


def test_a_database_in_a_folder_of_any_name(tmp_path):
    path = tmp_path / "50% #1?" / "jobs.db"
    path.parent.mkdir()
    state = {"id": "x", "func": "a:b", "trigger": CronTrigger(hour=7, timezone="UTC"), "next_run_time": START}
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE apscheduler_jobs (id TEXT, next_run_time FLOAT, job_state BLOB)")
        connection.execute("INSERT INTO apscheduler_jobs VALUES ('x', 0, ?)", [pickle.dumps(state)])
    connection.close()
    found = read_apscheduler(jobs_of_database(f"sqlite:///{path}", "apscheduler_jobs"), shown="jobs")
    assert found.entries["x"]["schedule"] == "0 7 * * *"
