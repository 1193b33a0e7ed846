"""``beatd import`` from the real thing: a Celery app, RedBeat's keys, django-celery-beat's tables, a crontab."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

from celery import Celery
from celery.schedules import crontab, schedule
from redbeat import RedBeatSchedulerEntry

from beatd import config

APP = """
from datetime import datetime, timedelta
from celery import Celery
from celery.schedules import crontab

class Odd(crontab):
    def is_due(self, last_run_at):
        return False, 60

app = Celery("proj", broker="redis://localhost")
app.conf.timezone = "Europe/Berlin"
app.conf.beat_schedule = {
    "half-minute": {"task": "t.a", "schedule": 30.0, "args": (1, 2)},
    "odd-hours": {"task": "t.b", "schedule": crontab(minute=0, hour="1-23/2"),
                  "options": {"queue": "q", "expires": timedelta(hours=1), "compression": "zlib"}},
    "null": {"task": "t.c", "schedule": 1, "args": (None,)},
    "odd": {"task": "t.d", "schedule": Odd(minute=0)},
    "clock": {"task": "t.d", "schedule": crontab(minute=5, hour=4, nowfun=datetime.now), "args": ["${HOME}"]},
}

@app.task
def test(word):
    print(word)

@app.on_after_configure.connect
def setup(sender, **_):
    sender.add_periodic_task(10.0, test.s("hello"), name="every 10", expires=5)

@app.on_after_finalize.connect
def later(sender, **_):
    sender.add_periodic_task(crontab(hour=7, minute=30, day_of_week=1), test.s("monday"))
"""

DJANGO = """
import datetime, zoneinfo, django
django.setup()
from django.core.management import call_command
call_command("migrate", verbosity=0)
from django_celery_beat.models import *
ten = IntervalSchedule.objects.create(every=10, period="minutes")
dawn = CrontabSchedule.objects.create(minute="0", hour="4", day_of_week="1-5", timezone=zoneinfo.ZoneInfo("Asia/Tokyo"))
past = ClockedSchedule.objects.create(clocked_time=datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC))
PeriodicTask.objects.create(name="ten", task="t.i", interval=ten, args="[1, 2]", queue="q", expire_seconds=30)
PeriodicTask.objects.create(name="dawn", task="t.c", crontab=dawn, enabled=False, headers='{"x": "y"}', priority=3)
PeriodicTask.objects.create(name="broken", task="t.b", crontab=dawn, args="[1,")
PeriodicTask.objects.create(name="past", task="t.p", clocked=past, one_off=True)
"""
SETTINGS = """
SECRET_KEY = "x"
INSTALLED_APPS = ["django_celery_beat"]
DATABASES = {{"default": {{"ENGINE": "django.db.backends.sqlite3", "NAME": "{folder}/db.sqlite"}}}}
USE_TZ = True
CELERY_TIMEZONE = "Europe/Paris"
"""


def schedule_of(text: str) -> dict:
    return tomllib.loads(text)["beat_schedule"]


def test_a_celery_app(tmp_path, beatd):
    (tmp_path / "proj.py").write_text(APP)
    done = beatd("import", "celery", "proj", "-o", "beat.toml")
    assert done.returncode == 1, done.stderr  # one was left behind
    assert "odd: a schedule with its own is_due (proj.Odd) has no counterpart" in done.stderr
    assert "clock: schedule.nowfun: it has no effect" in done.stderr
    assert "odd-hours: options.compression: it has no effect: messages of the daemon are not compressed" in done.stderr
    assert "6 entries carried over, 1 entry left behind, 3 notes" in done.stderr
    text = (tmp_path / "beat.toml").read_text()
    assert tomllib.loads(text)["timezone"] == "Europe/Berlin"
    assert schedule_of(text) == {
        "half-minute": {"task": "t.a", "schedule": "30s", "args": [1, 2]},
        "null": {"task": "t.c", "schedule": "1s", "args": "[null]"},
        "clock": {"task": "t.d", "schedule": {"minute": 5, "hour": 4}, "args": ["$${HOME}"]},
        "odd-hours": {"task": "t.b", "schedule": {"minute": 0, "hour": "1-23/2"}, "queue": "q", "expires": "1h"},
        "every 10": {"task": "proj.test", "schedule": "10s", "args": ["hello"], "expires": "5s"},
        "proj.test('monday')": {
            "task": "proj.test",
            "schedule": {"minute": 30, "hour": 7, "day_of_week": 1},
            "args": ["monday"],
        },
    }
    assert "# Left behind: odd: a schedule with its own is_due" in text
    assert "6 entries" in beatd("check", "beat.toml").stdout
    exported = beatd("export", "--offline", "--config", "beat.toml")
    assert schedule_of(exported.stdout) == schedule_of(text)
    again = beatd("import", "celery", "proj", "-o", "beat.toml")
    assert (again.returncode, "--force" in again.stderr) == (1, True)


def test_a_celery_app_brings_its_connections(tmp_path, beatd):
    text = """
from celery import Celery
app = Celery("proj", broker="amqp://guest:guest@rabbit//", backend="redis://:geheim@cache:6390/4")
app.conf.update(
    task_default_queue="work",
    beat_schedule={"a": {"task": "proj.a", "schedule": 30.0}},
)
"""
    (tmp_path / "proj.py").write_text(text)
    done = beatd("import", "celery", "proj", "-o", "beat.toml")
    assert done.returncode == 0, done.stderr
    assert "! BEATD_REDIS_URL: set it to the URL of the state store, which has a password" in done.stderr
    written = tomllib.loads((tmp_path / "beat.toml").read_text())
    assert written["redis"] == {"url": "${BEATD_REDIS_URL}"}
    assert written["broker"] == {"url": "amqp://guest:guest@rabbit//", "default_queue": "work"}
    assert "results" not in written  # the state store is the result backend
    (tmp_path / "proj.py").write_text(text.replace("amqp://guest:guest@rabbit//", "redis://cache:6390/3"))
    done = beatd("import", "celery", "proj", "-o", "beat.toml", "--force")
    assert done.returncode == 0, done.stderr
    written = tomllib.loads((tmp_path / "beat.toml").read_text())
    assert written["redis"] == {"url": "redis://cache:6390/3"}
    assert written["results"] == {"url": "${BEATD_RESULTS_URL}"}
    assert "geheim" not in done.stderr + (tmp_path / "beat.toml").read_text()


def test_a_celery_app_brings_all_of_its_brokers(tmp_path, beatd):
    text = """
from celery import Celery
brokers = ["amqp://guest:guest@one//", "amqp://me:geheim@two//"]
app = Celery("proj", broker=brokers, backend="redis://cache:6390/3")
app.conf.beat_schedule = {"a": {"task": "proj.a", "schedule": 30.0}}
"""
    (tmp_path / "proj.py").write_text(text)
    done = beatd("import", "celery", "proj", "-o", "beat.toml")
    assert done.returncode == 0, done.stderr
    assert "! BEATD_BROKER_URL: set it to the URL of the broker, which has a password" in done.stderr
    assert "geheim" not in done.stderr + (tmp_path / "beat.toml").read_text()
    (tmp_path / "proj.py").write_text(text.replace("me:geheim", "guest:guest"))
    done = beatd("import", "celery", "proj", "-o", "beat.toml", "--force")
    written = tomllib.loads((tmp_path / "beat.toml").read_text())
    assert written["broker"]["url"] == "amqp://guest:guest@one//;amqp://guest:guest@two//"


def test_a_celery_app_brings_its_prefixes(tmp_path, beatd):
    text = """
from celery import Celery
app = Celery("proj", broker="redis://cache:6390/3", backend="redis://cache:6390/3")
app.conf.update(
    broker_transport_options={"global_keyprefix": "env1:"},
    result_backend_transport_options={"global_keyprefix": "env1_"},
    beat_schedule={"a": {"task": "proj.a", "schedule": 30.0}},
)
"""
    (tmp_path / "proj.py").write_text(text)
    done = beatd("import", "celery", "proj", "-o", "beat.toml")
    assert done.returncode == 0, done.stderr
    written = tomllib.loads((tmp_path / "beat.toml").read_text())
    assert written["redis"] == {"url": "redis://cache:6390/3", "prefix": "env1:beatd"}
    assert written["broker"]["url"] == "redis://cache:6390/3?global_keyprefix=env1%3A"
    assert written["results"] == {"url": "redis://cache:6390/3?global_keyprefix=env1_"}
    assert beatd("check", "beat.toml").returncode == 0


def test_a_redis_that_is_away_is_a_matter_of_the_place(beatd, free_port):
    for source in ("redbeat", "apscheduler"):
        done = beatd("import", source, f"redis://:geheim@localhost:{free_port()}/0")
        assert done.returncode == 1
        assert "Start that server, or give the URL of another one as PLACE." in done.stderr
        assert "[redis]" not in done.stderr
        assert "geheim" not in done.stderr


def test_errors_are_the_users_own(tmp_path, beatd):
    (tmp_path / "broken.py").write_text("import celery\n1 / 0\n")
    done = beatd("import", "celery", "broken")
    assert done.returncode == 2
    assert 'broken.py", line 2' in done.stderr
    assert "beatd/importers" not in done.stderr
    missing = beatd("import", "celery", "nowhere:app")
    assert (missing.returncode, "no module named 'nowhere'" in missing.stderr) == (2, True)
    django = beatd("import", "django-celery-beat", "nowhere.settings")
    assert (django.returncode, django.stderr.count("\n") <= 3) == (2, True), django.stderr
    unreachable = beatd("import", "redbeat", "redis://:secret@127.0.0.1:1/0")
    assert unreachable.returncode == 1
    assert "secret" not in unreachable.stderr + unreachable.stdout
    assert beatd("import", "crontab", "/nowhere").returncode == 2


def test_redbeat_as_it_is_in_redis(redis_url, beatd):
    app = Celery("proj", broker=redis_url)
    app.conf.redbeat_redis_url = redis_url
    RedBeatSchedulerEntry("ten", "t.ten", schedule(10), args=[1], app=app).save()
    RedBeatSchedulerEntry("dawn", "t.dawn", crontab(hour=4, minute=0), options={"queue": "q"}, app=app).save()
    done = beatd("import", "redbeat", redis_url, "--timezone", "Asia/Baku")
    assert done.returncode == 0, done.stderr
    assert tomllib.loads(done.stdout)["timezone"] == "Asia/Baku"
    assert schedule_of(done.stdout) == {
        "ten": {"task": "t.ten", "schedule": "10s", "args": [1]},
        "dawn": {"task": "t.dawn", "schedule": {"minute": 0, "hour": 4}, "queue": "q"},
    }


def test_the_tables_of_django_celery_beat(tmp_path: Path, beatd):
    (tmp_path / "site_settings.py").write_text(SETTINGS.format(folder=tmp_path))
    (tmp_path / "plain_settings.py").write_text('SECRET_KEY = "x"\n')
    for settings, step in (
        ("plain_settings", "django_celery_beat is not in its INSTALLED_APPS: expected the settings module"),
        ("db.sqlite3", "expected the settings module of the project, such as proj.settings"),
        ("sqlite:///db.sqlite3", "expected the settings module of the project, such as proj.settings"),
        ("site_settings", "no such table: django_celery_beat_periodictask; start the database, or name the settings"),
    ):
        done = beatd("import", "django-celery-beat", settings)
        assert (done.returncode, step in done.stderr, "Traceback" in done.stderr) == (2, True, False), done.stderr
    environment = {"DJANGO_SETTINGS_MODULE": "site_settings", "PYTHONPATH": str(tmp_path), "PATH": "/usr/bin:/bin"}
    subprocess.run([sys.executable, "-c", DJANGO], env=environment, cwd=tmp_path, check=True, timeout=60)
    done = beatd("import", "django-celery-beat", "site_settings")
    assert done.returncode == 1, done.stderr
    assert "broken: its args are not JSON" in done.stderr
    assert "past: schedule: its moment has passed" in done.stderr
    assert tomllib.loads(done.stdout)["timezone"] == "Europe/Paris"
    assert schedule_of(done.stdout) == {
        "dawn": {
            "task": "t.c",
            "schedule": {"minute": "0", "hour": "4", "day_of_week": "1-5"},
            "timezone": "Asia/Tokyo",
            "priority": 3,
            "headers": {"x": "y"},
            "enabled": False,
        },
        "past": {"task": "t.p", "schedule": {"at": "2020-01-01T00:00:00Z"}, "max_runs": 1},
        "ten": {"task": "t.i", "schedule": "10m", "args": [1, 2], "queue": "q", "expires": "30s"},
    }


NAIVE = """
import datetime, django
django.setup()
from django.core.management import call_command
call_command("migrate", verbosity=0)
from django_celery_beat.models import *
noon = datetime.datetime(2035, 7, 1, 12)
later = ClockedSchedule.objects.create(clocked_time=noon)
short = IntervalSchedule.objects.create(every=35_000, period="microseconds")
PeriodicTask.objects.create(name="once", task="t", clocked=later, one_off=True)
times = {"start_time": noon, "expires": noon.replace(hour=13)}
row = PeriodicTask.objects.create(name="short", task="t", interval=short, **times)
PeriodicTask.objects.filter(pk=row.pk).update(last_run_at=noon.replace(year=2025))
"""


def test_a_django_project_without_time_zones(tmp_path: Path, beatd):
    text = SETTINGS.format(folder=tmp_path).replace("USE_TZ = True", "USE_TZ = False\nTIME_ZONE = 'Asia/Tokyo'")
    (tmp_path / "naive_settings.py").write_text(f"{text}\nDJANGO_CELERY_BEAT_TZ_AWARE = False\n")
    environment = {"DJANGO_SETTINGS_MODULE": "naive_settings", "PYTHONPATH": str(tmp_path), "PATH": "/usr/bin:/bin"}
    subprocess.run([sys.executable, "-c", NAIVE], env=environment, cwd=tmp_path, check=True, timeout=60)
    done = beatd("import", "django-celery-beat", "naive_settings")
    assert done.returncode == 0, done.stderr
    tables = schedule_of(done.stdout)
    assert tables["once"]["schedule"] == {"at": "2035-07-01T03:00:00Z"}
    assert (tables["short"]["schedule"], tables["short"]["start"].hour, tables["short"]["end"].hour) == ("35ms", 3, 4)


def test_strange_input_is_refused_in_a_line(tmp_path: Path, beatd):
    (tmp_path / "binary").write_bytes(b"\x7fELF\x00\x01")
    (tmp_path / "cron.d").write_text("17 * * * * root run-parts /etc/cron.hourly\n")
    (tmp_path / "quits.py").write_text("import sys\nprint('hello')\nsys.exit(3)\n")
    cases = [
        (("crontab", "."), "cannot be read: Is a directory"),
        (("crontab", "binary"), "is a binary file; expected a crontab"),
        (("crontab", "cron.d"), 'cron.d:1: "root" is the name of a user'),
        (("celery", "quits"), "SystemExit: 3"),
        (("celery", "os"), "os"),
        (("django-celery-beat", "os"), "os"),
    ]
    for arguments, words in cases:
        done = beatd("import", *arguments)
        assert (done.returncode, done.stdout) == (2, ""), (arguments, done.stderr)
        assert words in done.stderr
        assert "Traceback" not in done.stderr or arguments[1] == "quits"


def test_a_crontab_reads_back_as_it_was(tmp_path: Path, beatd):
    (tmp_path / "crontab").write_text('HOME=/tmp\n*/5 * * * * echo "${HOME}" ${d}/b.tar $${x} $HOME\n')
    done = beatd("import", "crontab", "crontab", "--timezone", "UTC", "-o", "beat.toml")
    assert (done.returncode, done.stderr) == (0, "1 entry carried over, 0 notes\n")
    exported = beatd("export", "--offline", "--config", "beat.toml").stdout
    for text in ((tmp_path / "beat.toml").read_text(), exported):
        (tmp_path / "again.toml").write_text(text)
        (entry,) = config.load(tmp_path / "again.toml", env={"HOME": "/wrong"}).entries
        assert entry.args == ("/bin/sh", "-c", 'echo "${HOME}" ${d}/b.tar $${x} $HOME')
        assert entry.kwargs == {"env": {"HOME": "/tmp"}, "cwd": "/tmp"}
