"""``beatd import`` from APScheduler's job stores and files of other schedulers; last runs; input that is broken."""

from __future__ import annotations

import json
import pickle
import random
import subprocess
import sys
import tomllib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import redis
from apscheduler.jobstores.redis import RedisJobStore
from apscheduler.jobstores.sqlalchemy import SQLAlchemyJobStore
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.calendarinterval import CalendarIntervalTrigger
from apscheduler.triggers.combining import AndTrigger, OrTrigger
from apscheduler.triggers.cron import CronTrigger
from apscheduler.triggers.date import DateTrigger
from apscheduler.triggers.interval import IntervalTrigger
from celery import Celery
from celery.schedules import crontab, schedule
from redbeat import RedBeatSchedulerEntry

from beatd import config
from beatd.store.topology import slot_of
from tests.acceptance.test_import import SETTINGS, schedule_of
from tests.broken_files import broken

DATA = Path(__file__).parents[1] / "data" / "importers"
START = datetime(2030, 1, 1, 12, tzinfo=UTC)


def work(*_, **__):
    """The function of all jobs."""


TRIGGERS = {
    "interval": IntervalTrigger(minutes=90, start_date=START, timezone="UTC"),
    "cron": CronTrigger(hour="*/3", minute="5,35", day_of_week="mon-fri", timezone="Europe/Berlin"),
    "numbers": CronTrigger(day_of_week="0-4/2", hour=7, timezone="UTC"),
    "both": CronTrigger(day="1-7", day_of_week="fri", hour=7, timezone="UTC"),
    "second": CronTrigger(second="*/20", timezone="UTC"),
    "from": CronTrigger(minute="10/20", month="jan-mar", timezone="UTC"),
    "last": CronTrigger(day="last", hour=3, timezone="UTC"),
    "position": CronTrigger(day="2nd tue", hour=3, timezone="UTC"),
    "last-friday": CronTrigger(day="last fri", hour=3, timezone="UTC"),
    "date": DateTrigger(START, timezone="UTC"),
    "or": OrTrigger(
        [
            CronTrigger(hour=1, timezone="UTC"),
            CronTrigger(hour="*/2", minute=30, timezone="UTC"),
            IntervalTrigger(hours=7, start_date=START, timezone="UTC"),
        ]
    ),
    "daily": CalendarIntervalTrigger(days=1, hour=2, minute=30, start_date="2029-12-20", timezone="Europe/Berlin"),
    "weekly": CalendarIntervalTrigger(weeks=1, hour=2, minute=30, start_date="2029-12-23", timezone="Europe/Berlin"),
    "quarterly": CalendarIntervalTrigger(months=3, hour=7, second=5, start_date="2029-11-30", timezone="Asia/Baku"),
    "monthly": CalendarIntervalTrigger(months=1, start_date="2029-12-31", timezone="UTC"),
    "yearly": CalendarIntervalTrigger(years=1, hour=9, start_date="2028-02-29", timezone="UTC"),
    "third-day": CalendarIntervalTrigger(days=3, hour=9, start_date="2029-12-20", timezone="UTC"),
}
LOST = {
    "year": CronTrigger(year=2031, timezone="UTC"),
    "week": CronTrigger(week=3, timezone="UTC"),
    "zones": OrTrigger([CronTrigger(hour=1, timezone="UTC"), CronTrigger(hour=2, timezone="Asia/Baku")]),
    "and": AndTrigger([CronTrigger(day_of_week="mon", hour=0, timezone="UTC"), CronTrigger(day=2, timezone="UTC")]),
    "days": CalendarIntervalTrigger(days=3, start_date="2030-01-01", timezone="Europe/Berlin"),
    "months": CalendarIntervalTrigger(months=5, start_date="2030-01-01", timezone="UTC"),
}


def fill(store):
    scheduler = BackgroundScheduler(jobstores={"default": store}, timezone="UTC")
    for name, trigger in {**TRIGGERS, **LOST}.items():
        scheduler.add_job(work, trigger, args=[1, "a"], kwargs={"b": None}, id=name, misfire_grace_time=None)
    scheduler.modify_job("second", misfire_grace_time=60, max_instances=3)
    scheduler.start(paused=True)
    scheduler.pause_job("second")
    scheduler.shutdown()


@pytest.mark.parametrize("kind", ["sqlite", "sqlalchemy", "redis", "file"])
def test_apscheduler(kind, tmp_path, redis_server, redis_url, beatd):
    path = tmp_path / "jobs.db"
    if kind == "redis":
        place = redis_url
        fill(RedisJobStore(host="127.0.0.1", port=redis_server.port))
    else:
        place = f"sqlite:///{path}" if kind != "sqlalchemy" else f"sqlite+pysqlite:///{path}"
        fill(SQLAlchemyJobStore(url=f"sqlite:///{path}"))
    if kind == "file":
        jobs = [pickle.loads(raw) for _, raw in sorted(_rows(path))]
        (tmp_path / "jobs.pickle").write_bytes(pickle.dumps(jobs))
        place = "jobs.pickle"
    done = beatd("import", "apscheduler", place, "-o", "beat.toml", "--all-notes")
    assert done.returncode == 1, done.stderr
    loaded = config.load(tmp_path / "beat.toml")
    entries = {entry.name: entry for entry in loaded.entries}
    assert entries.keys() == TRIGGERS.keys()
    assert entries["interval"].args == (1, "a")
    assert entries["interval"].kwargs == {"b": None}
    assert not entries["second"].policies.enabled
    assert (tmp_path / "beat.toml").read_text().count('catch_up_window = "1m"') == 1
    assert "second: max_instances: not carried over: more than 3 runs may overlap here" in done.stderr
    for name, trigger in TRIGGERS.items():
        moment = START - timedelta(seconds=1)
        before = moment
        for _ in range(20):
            expected = _next_of_apscheduler(trigger, before)
            found = entries[name].schedule.next_after(moment)
            if name == "date" and moment >= START:
                assert found is None
                break
            assert found == expected, name
            before, moment = expected + timedelta(microseconds=1), found
    assert "year: the field year" in done.stderr
    assert "zones: several triggers in one job, with timezone: write an entry for each" in done.stderr
    assert "and: a job that waits until several triggers agree" in done.stderr
    assert "days: an interval of 3 days at one time of the day has no counterpart" in done.stderr
    assert "months: an interval of 5 months" in done.stderr
    assert "must be a task of that name" in done.stderr


def test_every_url_of_a_store_is_one_of_a_job_store(redis_server, redis_url, cluster, tmp_path, beatd):
    fill(RedisJobStore(host="127.0.0.1", port=redis_server.port))
    owner = cluster.owner(slot_of("apscheduler.jobs"))
    with redis.Redis.from_url(redis_url) as client:
        for name, state in client.hgetall("apscheduler.jobs").items():
            cluster.call(owner, "HSET", "apscheduler.jobs", name, state)
    expected = beatd("import", "apscheduler", redis_url).stdout.partition("\n")[2]
    socket = redis_server.socket_url.removeprefix("unix://").removesuffix("?db=0")
    for place in (
        redis_url.replace("redis", "REDIS"),
        f"redis+socket://{socket}?virtual_host=0",
        redis_server.socket_url,
        cluster.url,
    ):
        done = beatd("import", "apscheduler", place)
        assert (done.returncode, done.stdout.partition("\n")[2]) == (1, expected), done.stderr
    refused = beatd("import", "apscheduler", "sentinel://:geheim@127.0.0.1:1/0")
    assert "it names no service that the sentinels watch" in refused.stderr
    assert "geheim" not in refused.stderr


def _next_of_apscheduler(trigger, before):
    """The next time; a calendar interval takes what it is given for its last time, and begins with its start."""
    if not isinstance(trigger, CalendarIntervalTrigger):
        return trigger.get_next_fire_time(None, before)
    expected = trigger.get_next_fire_time(None, before)
    while expected < before:
        expected = trigger.get_next_fire_time(expected, before)
    return expected


def _rows(path):
    import sqlite3

    with sqlite3.connect(path) as connection:
        return list(connection.execute("SELECT id, job_state FROM apscheduler_jobs"))


class Bomb:
    def __reduce__(self):
        import os

        return os.system, ("touch exploded",)


def test_nothing_in_a_pickle_is_run(tmp_path, beatd):
    states = [Bomb(), {"trigger": Bomb(), "func": "a:b", "id": "x"}, {"func": Bomb(), "trigger": 1}, 3]
    (tmp_path / "jobs.pickle").write_bytes(pickle.dumps(states))
    done = beatd("import", "apscheduler", "jobs.pickle")
    assert done.returncode == 1
    assert "x: the trigger system has no counterpart" in done.stderr
    assert not (tmp_path / "exploded").exists()
    for name, data in {"empty": b"", "text": b"hello", "cut": pickle.dumps(states)[:40]}.items():
        (tmp_path / name).write_bytes(data)
        done = beatd("import", "apscheduler", name)
        assert (done.returncode, done.stderr.count("\n"), done.stderr.startswith(f"{name}: its pickle cannot")) == (
            2,
            1,
            True,
        )
    for place, told in {
        "sqlite:///nowhere.db": "nowhere.db: there is no such file",
        "sqlite:///empty": "no such table",
        "postgresql://me:hunter2@127.0.0.1:1/x": "postgresql://",
        "nowhere": "cannot be read",
    }.items():
        done = beatd("import", "apscheduler", place)
        assert done.returncode in (1, 2)
        assert told in done.stderr
        assert "hunter2" not in done.stderr + done.stdout
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("kubernetes", "kubernetes.yaml"),
        ("dkron", "dkron.json"),
        ("cronstable", "cronstable.yaml"),
        ("github-actions", "workflow.yaml"),
    ],
)
def test_files_of_others_pass_check(kind, name, tmp_path, beatd):
    done = beatd("import", kind, DATA / name, "-o", "beat.toml")
    assert done.returncode == 1, done.stderr  # each has something that is left behind
    assert "Traceback" not in done.stderr
    checked = beatd("check", "beat.toml")
    assert checked.returncode == 0, checked.stderr
    assert "no errors" in checked.stdout
    assert "Left behind" in (tmp_path / "beat.toml").read_text()


BEAT = """
timezone = "UTC"
[redis]
url = "{url}"
"""


def states(beatd):
    listed = json.loads(beatd("list", "--json").stdout)["entries"]
    return {entry["name"]: (entry["last_due_at"], entry["next_due_at"]) for entry in listed}


def write(tmp_path, redis_url, text):
    (tmp_path / "beat.toml").write_text(text.replace('timezone = "UTC"\n', BEAT.format(url=redis_url), 1))


def test_last_runs_of_redbeat(redis_url, tmp_path, beatd):
    app = Celery("proj", broker=redis_url)
    app.conf.redbeat_redis_url = redis_url
    ran = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=3)
    RedBeatSchedulerEntry("six", "t", schedule(6 * 3600), app=app).save().reschedule(ran)
    RedBeatSchedulerEntry("daily", "t", crontab(hour=ran.hour, minute=ran.minute), app=app).save().reschedule(ran)
    RedBeatSchedulerEntry(
        "missed", "t", crontab(hour=(ran.hour + 1) % 24, minute=ran.minute), app=app
    ).save().reschedule(ran)
    RedBeatSchedulerEntry("never", "t", schedule(60), app=app).save()
    write(tmp_path, redis_url, beatd("import", "redbeat", redis_url).stdout)
    done = beatd("import", "redbeat", redis_url, "--last-runs", "beat.toml")
    assert (done.returncode, done.stdout) == (0, "4 last runs taken over\n"), done.stderr
    found = states(beatd)
    assert found["six"][1][:19] == (ran + timedelta(hours=6)).isoformat()[:19]
    assert found["missed"][1][:16] == (ran + timedelta(hours=1)).isoformat()[:16]  # it is caught up
    assert found["daily"][1][:10] == (ran + timedelta(days=1)).isoformat()[:10]  # it is not run twice
    again = beatd("import", "redbeat", redis_url, "--last-runs", "beat.toml")
    assert (again.returncode, again.stdout) == (0, "0 last runs taken over\n")
    assert "4 entries unchanged: known to the state store already" in again.stderr


SHELVE = """
import shelve
from datetime import UTC, datetime, timedelta
from celery import Celery
from celery.beat import ScheduleEntry
from celery.schedules import crontab, schedule
app = Celery("x")
ran = datetime.fromisoformat({ran!r})
with shelve.open("celerybeat-schedule", writeback=True) as store:
    store["entries"] = {{
        "six": ScheduleEntry("six", "t", ran, 5, schedule(21600.0, app=app), app=app),
        "new": ScheduleEntry("new", "t", ran, 0, crontab(app=app), app=app),
        "gone": ScheduleEntry("gone", "t", ran, 1, crontab(app=app), app=app),
    }}
    store["tz"], store["utc_enabled"], store["__version__"] = "UTC", True, "5.7.0"
"""


def test_last_runs_of_celery_beat(redis_url, tmp_path, beatd):
    ran = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=3)
    subprocess.run([sys.executable, "-c", SHELVE.format(ran=ran.isoformat())], cwd=tmp_path, check=True, timeout=60)
    table = '[beat_schedule.{0}]\ntask = "t"\nschedule = "6h"\n'
    write(tmp_path, redis_url, 'timezone = "UTC"\n' + table.format("six") + table.format("new"))
    done = beatd("import", "celery", "proj", "--last-runs", "beat.toml")
    assert (done.returncode, done.stdout) == (0, "1 last run taken over\n"), done.stderr
    assert done.stderr == "! not in beat.toml: gone\n"
    assert states(beatd)["six"][1][:19] == (ran + timedelta(hours=6)).isoformat()[:19]
    for name, data in {"text": b"hello", "celerybeat": b""}.items():
        (tmp_path / name).write_bytes(data)
        done = beatd("import", "celery", "proj", "--last-runs", "beat.toml", "--schedule-file", name)
        assert (done.returncode, done.stderr.count("\n"), done.stderr.startswith(f"{name}: ")) == (2, 1, True), (
            done.stderr
        )
    done = beatd("import", "celery", "proj", "--last-runs", "beat.toml", "--schedule-file", "nowhere")
    assert (done.returncode, "nowhere: no such file: name the schedule file" in done.stderr) == (2, True)
    done = beatd("import", "crontab", "x", "--last-runs", "beat.toml")
    assert (done.returncode, "crontab does not know when entries last ran" in done.stderr) == (2, True)


DJANGO = """
import django, datetime
django.setup()
from django.core.management import call_command
call_command("migrate", verbosity=0)
from django_celery_beat.models import *
six = IntervalSchedule.objects.create(every=6, period="hours")
row = PeriodicTask.objects.create(name="six", task="t", interval=six)
PeriodicTask.objects.filter(pk=row.pk).update(last_run_at=datetime.datetime.fromisoformat({ran!r}), total_run_count=3)
PeriodicTask.objects.create(name="new", task="t", interval=six)
"""


def test_last_runs_of_django_celery_beat(redis_url, tmp_path, beatd):
    ran = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=3)
    (tmp_path / "site_settings.py").write_text(SETTINGS.format(folder=tmp_path))
    env = {"DJANGO_SETTINGS_MODULE": "site_settings", "PYTHONPATH": str(tmp_path), "PATH": "/usr/bin:/bin"}
    code = DJANGO.format(ran=ran.isoformat())
    subprocess.run([sys.executable, "-c", code], env=env, cwd=tmp_path, check=True, timeout=60)
    text = beatd("import", "django-celery-beat", "site_settings", "--timezone", "UTC").stdout
    assert schedule_of(text).keys() == {"new", "six"}
    write(tmp_path, redis_url, text)
    done = beatd("import", "django-celery-beat", "site_settings", "--last-runs", "beat.toml")
    assert (done.returncode, done.stdout) == (0, "1 last run taken over\n"), done.stderr
    assert states(beatd)["six"][1][:19] == (ran + timedelta(hours=6)).isoformat()[:19]


KINDS = {
    "kubernetes": "kubernetes.yaml",
    "dkron": "dkron.json",
    "cronstable": "cronstable.yaml",
    "github-actions": "workflow.yaml",
    "crontab": None,
    "apscheduler": None,
    "systemd": None,
}
CRONTAB = b"SHELL=/bin/sh\n*/5 * * * * a && b\n@daily c\n0 0 1 1 * d % e\n"
UNIT = b"[Timer]\nOnCalendar=Mon..Fri *-*-* 07:30\nOnUnitActiveSec=5min\n[Service]\nExecStart=/bin/a 'b'\n"


@pytest.mark.parametrize("kind", KINDS)
def test_broken_input_is_answered_in_sentences(kind, tmp_path, beatd):
    dice = random.Random(f"broken {kind}")
    whole = {
        "crontab": CRONTAB,
        "systemd": UNIT,
        "apscheduler": pickle.dumps([{"trigger": TRIGGERS["cron"], "func": "a:b"}]),
    }
    data = whole.get(kind) or (DATA / str(KINDS[kind])).read_bytes()
    for number in range(4):
        name = "x.timer" if kind == "systemd" else f"input{number}"
        (tmp_path / name).write_bytes(broken(dice, data))
        (tmp_path / "x.service").write_bytes(broken(dice, UNIT))
        done = beatd("import", kind, name)
        said = done.stderr
        assert done.returncode in (0, 1, 2), (number, said)
        assert "Traceback" not in said, (number, said)
        assert "internal error" not in said, (number, said)
        if done.returncode == 2:
            assert done.stdout == ""
            continue
        tomllib.loads(done.stdout)
        (tmp_path / "beat.toml").write_text(done.stdout)
        checked = beatd("check", "beat.toml", "--no-app")
        assert checked.returncode == 0, (number, checked.stderr, done.stdout)
