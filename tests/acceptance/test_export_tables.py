"""``beatd export --to django-celery-beat``: the way home, read again by the importer and by Celery's schedules."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib

import pytest

from tests.acceptance.test_import import SETTINGS, schedule_of

BEAT = """
timezone = "Europe/Berlin"
[redis]
url = "{url}"
[beat_schedule.interval]
task = "t.i"
schedule = "90s"
args = [1, "a"]
kwargs = {{ b = true }}
queue = "q"
priority = 3
expires = "1h"
headers = {{ x = "y" }}
[beat_schedule.cron]
task = "t.c"
schedule = "*/10 4 * * mon-fri"
timezone = "Asia/Tokyo"
end = 2035-01-01T00:00:00Z
[beat_schedule.sunday]
task = "t.c"
schedule = "0 4 * jan-mar 5-7"
enabled = false
[beat_schedule.weekly]
task = "t.c"
schedule = "@weekly"
[beat_schedule.hashed]
task = "t.c"
schedule = "H 5 * * *"
[beat_schedule.table]
task = "t.c"
schedule = {{ minute = 5, hour = [1, 2] }}
[beat_schedule.sun]
task = "t.s"
schedule = {{ solar = "sunset", lat = 52.5, lon = 13.4 }}
[beat_schedule.once]
task = "t.o"
schedule = {{ at = 2035-01-01T00:00:00Z }}
[beat_schedule.short]
task = "t.o"
schedule = "250ms"
jitter = "10ms"
overlap = "skip"
max_runs = 3
{more}
"""
LOST = """
[beat_schedule.either]
task = "t.o"
schedule = "0 4 1 * mon"
[beat_schedule.last]
task = "t.o"
schedule = "0 4 L * *"
[beat_schedule.seconds]
task = "t.o"
schedule = "30 0 4 * * *"
[beat_schedule.several]
task = "t.o"
schedule = ["0 4 * * *", "30 6 * * *"]
"""
SHOW = """
import json, django
django.setup()
from django_celery_beat.models import PeriodicTask
rows = {row.name: [row.enabled, str(row.last_run_at), row.one_off] for row in PeriodicTask.objects.all()}
schedule = {row.name: str(row.schedule) for row in PeriodicTask.objects.filter(solar=None)}
print(json.dumps([rows, schedule]))
"""
PREPARE = """
import django; django.setup()
from django.core.management import call_command
call_command("migrate", verbosity=0)
from django_celery_beat.models import *
ten = IntervalSchedule.objects.create(every=10, period="minutes")
PeriodicTask.objects.create(name="interval", task="old", interval=ten)
PeriodicTask.objects.create(name="theirs", task="t.x", interval=ten)
"""


@pytest.fixture
def project(tmp_path):
    (tmp_path / "site_settings.py").write_text(SETTINGS.format(folder=tmp_path))

    def python(code):
        env = {"DJANGO_SETTINGS_MODULE": "site_settings", "PYTHONPATH": str(tmp_path), "PATH": "/usr/bin:/bin"}
        command = [sys.executable, "-W", "ignore", "-c", code]
        done = subprocess.run(command, env=env, cwd=tmp_path, timeout=60, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done

    python(PREPARE)
    return lambda: json.loads(python(SHOW).stdout)


def test_there_and_back(tmp_path, project, redis_url, beatd):
    (tmp_path / "beat.toml").write_text(BEAT.format(url=redis_url, more=""))
    assert beatd("pause", "weekly").returncode == 0
    to = ("export", "--to", "django-celery-beat", "--settings", "site_settings")
    done = beatd(*to, "--dry-run")
    assert (done.returncode, done.stdout) == (0, "8 tasks would be added, 1 changed\n"), done.stderr
    assert set(project()[0]) == {"interval", "theirs"}
    done = beatd(*to)
    assert (done.returncode, done.stdout) == (0, "8 tasks were added, 1 changed\n"), done.stderr
    for note in (
        "weekly: enabled: it is paused, and is written as not enabled",
        "short: jitter: django-celery-beat has no column for it",
        "short: overlap: django-celery-beat has no column for it",
        "short: max_runs: django-celery-beat knows one run, or no limit",
        "enabled tasks that no entry has, left as they are: theirs",
    ):
        assert note in done.stderr
    rows, schedule = project()
    assert rows["once"] == [True, "None", True]
    assert (rows["weekly"][0], rows["sunday"][0]) == (False, False)
    assert schedule["interval"] == "<freq: 1.50 minutes>"
    assert schedule["cron"].split()[1:5] == ["*/10", "4", "mon-fri", "*"]
    back = beatd("import", "django-celery-beat", "site_settings", "--timezone", "Europe/Berlin")
    tables = schedule_of(back.stdout)
    assert tables["interval"] == tomllib.loads(BEAT.format(url="", more=""))["beat_schedule"]["interval"] | {
        "schedule": "1m30s"
    }
    assert tables["cron"]["schedule"] == {"minute": "*/10", "hour": "4", "day_of_week": "mon-fri"}
    assert tables["cron"]["timezone"] == "Asia/Tokyo"
    assert tables["sunday"]["schedule"]["day_of_week"] == "0,5,6"
    assert tables["hashed"]["schedule"]["hour"] == "5"
    assert tables["table"]["schedule"] == {"minute": "5", "hour": "1,2"}
    assert tables["sun"]["schedule"] == {"solar": "sunset", "lat": 52.5, "lon": 13.4}
    assert tables["short"]["schedule"] == "250ms"


def test_last_runs_go_along(tmp_path, project, redis_url, beatd, start_beatd, wait_until):
    (tmp_path / "beat.toml").write_text(BEAT.format(url=redis_url, more='[defaults]\nexpires = "never"'))
    daemon = start_beatd("run")
    daemon.expect("Leading shard 0")
    due = wait_until(lambda: json.loads(beatd("history", "short", "--json").stdout)["runs"], 20, "a run")[0]["due_at"]
    assert daemon.end() == 0
    assert beatd("export", "--to", "django-celery-beat", "--settings", "site_settings").returncode == 0
    last = project()[0]["short"][1]
    assert last[:19] >= due[:19].replace("T", " ")


def test_what_has_no_counterpart_is_said(tmp_path, project, redis_url, beatd):
    (tmp_path / "beat.toml").write_text(BEAT.format(url=redis_url, more=LOST))
    done = beatd("export", "--to", "django-celery-beat", "--settings", "site_settings", "--offline")
    assert (done.returncode, done.stdout) == (1, "8 tasks were added, 1 changed, 4 entries left behind\n")
    assert 'either: schedule: in "0 4 1 * mon" one of both days is enough; Celery wants both' in done.stderr
    assert 'last: schedule: day_of_month "L" has no counterpart' in done.stderr
    assert "seconds: schedule:" in done.stderr
    assert "several: schedule: several schedules in one entry" in done.stderr
    for words, told in (
        (("--to", "django-celery-beat"), "needs --settings"),
        (("--settings", "x"), "are for --to django-celery-beat"),
        (("--to", "django-celery-beat", "--settings", "nowhere.settings", "--offline"), "nowhere"),
    ):
        done = beatd("export", *words)
        assert (done.returncode, told in done.stderr, "beatd/importers" in done.stderr) == (2, True, False), done.stderr
