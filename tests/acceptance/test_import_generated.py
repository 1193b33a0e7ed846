"""Generated schedules of Celery, RedBeat, django-celery-beat and cron: what is imported reads back as the same, and
crontabs run when cron runs them."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from celery import Celery
from celery.schedules import crontab, schedule
from cronsim import CronSim
from redbeat import RedBeatSchedulerEntry

from beatd import config
from beatd.model import Entry

Beatd = Callable[..., "subprocess.CompletedProcess[str]"]
COUNT = 25
START = datetime(2026, 3, 1, 0, 0, 30, tzinfo=UTC)
LIMITS = {
    "minute": (0, 59),
    "hour": (0, 23),
    "day_of_month": (1, 28),
    "month_of_year": (1, 12),
    "day_of_week": (0, 6),
}
NAMES = {
    "month_of_year": ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
    "day_of_week": ["sun", "mon", "tue", "wed", "thu", "fri", "sat"],
}
TEXTS = ["a", "${HOME}", "$${x}", "q\"uo'te", "new\nline", "\u2028", "\\", "#", "\u00e4"]


def field(dice: random.Random, name: str) -> str:
    """One field of a crontab, in any of the notations that Celery and cron share."""
    low, high = LIMITS[name]
    first, last = sorted(dice.sample(range(low, high + 1), 2))
    forms = ["*", "*", str(first), f"{first}-{last}", f"{first},{last}", f"*/{dice.randint(1, high)}"]
    forms += [f"{first}-{last}/{dice.randint(1, 9)}", f"{first}-{last},{low}"]
    if name in NAMES:
        words = NAMES[name]
        forms += [words[first - low], f"{words[first - low]}-{words[last - low]}"]
    return dice.choice(forms)


def times(dice: random.Random) -> dict[str, str]:
    return {name: field(dice, name) for name in LIMITS}


def value(dice: random.Random, depth: int = 2) -> Any:
    """Any value of JSON."""
    kind = dice.randrange(8 if depth else 5)
    if kind > 6:
        return {dice.choice(TEXTS): value(dice, depth - 1) for _ in range(2)}
    if kind > 4:
        return [value(dice, depth - 1) for _ in range(2)]
    return [None, dice.choice([True, False]), dice.randint(-(10**15), 10**15), dice.random(), dice.choice(TEXTS)][kind]


def call(dice: random.Random) -> dict[str, Any]:
    return {
        "args": [value(dice) for _ in range(dice.randrange(3))],
        "kwargs": {f"k{number}": value(dice) for number in range(dice.randrange(3))},
    }


def read_back(beatd: Beatd, folder: Path, *words: str) -> dict[str, Entry]:
    """The imported entries, which an export of the file repeats."""
    done = beatd("import", *words, "-o", "beat.toml", "--all-notes")
    assert done.returncode == 0, done.stderr
    loaded = config.load(folder / "beat.toml", env={"HOME": "/wrong"})
    (folder / "again.toml").write_text(beatd("export", "--offline", "--config", "beat.toml").stdout)
    again = config.load(folder / "again.toml", env={"HOME": "/wrong"})
    assert again.digest == loaded.digest
    return {entry.name: entry for entry in loaded.entries}


def assert_same_calls(entries: dict[str, Entry], calls: dict[str, dict[str, Any]]) -> None:
    assert entries.keys() == calls.keys()
    for name, expected in calls.items():
        assert list(entries[name].args) == expected["args"], name
        assert entries[name].kwargs == expected["kwargs"], name


def wanted(spec: dict[str, str], timezone: str) -> Any:
    """The schedule of a crontab table, read directly."""
    return config.entry("x", {"task": "t", "schedule": spec}, timezone=timezone).schedule


def assert_same_runs(entry: Entry, expected: Any) -> None:
    moment = START
    for _ in range(100):
        following = entry.schedule.next_after(moment)
        assert following == expected.next_after(moment), (entry.name, entry.schedule.notation)
        if following is None:
            return
        moment = following


@pytest.mark.parametrize("seed", range(3))
def test_a_celery_app(seed: int, tmp_path: Path, beatd: Beatd) -> None:
    dice = random.Random(f"celery {seed}")
    calls = {f"e{number}": call(dice) for number in range(COUNT)}
    specs = {name: times(dice) for name in calls}
    (tmp_path / "data.json").write_text(json.dumps({name: [specs[name], each] for name, each in calls.items()}))
    (tmp_path / "proj.py").write_text(
        "import json\nfrom celery import Celery\nfrom celery.schedules import crontab\n"
        "app = Celery('proj')\napp.conf.timezone = 'Europe/Berlin'\n"
        "app.conf.beat_schedule = {name: {'task': 't', 'schedule': crontab(**times), **call}\n"
        "    for name, (times, call) in json.load(open('data.json')).items()}\n"
    )
    entries = read_back(beatd, tmp_path, "celery", "proj")
    assert_same_calls(entries, calls)
    for name, spec in specs.items():
        assert_same_runs(entries[name], wanted(spec, "Europe/Berlin"))


def test_redbeat(redis_url: str, tmp_path: Path, beatd: Beatd) -> None:
    dice = random.Random("redbeat")
    app = Celery("proj", broker=redis_url)
    app.conf.redbeat_redis_url = redis_url
    calls = {f"e{number}": call(dice) for number in range(COUNT)}
    specs = {name: times(dice) for name in calls}
    for name, each in calls.items():
        RedBeatSchedulerEntry(name, "t", crontab(**specs[name]), app=app, **each).save()
    RedBeatSchedulerEntry("seconds", "t", schedule(7.5), app=app).save()
    entries = read_back(beatd, tmp_path, "redbeat", redis_url, "--timezone", "Asia/Baku")
    assert entries.pop("seconds").schedule.notation in (7.5, "7.5s", "7s500ms")
    assert_same_calls(entries, calls)
    for name, spec in specs.items():
        assert_same_runs(entries[name], wanted(spec, "Asia/Baku"))


DJANGO = """
import json, zoneinfo, django
django.setup()
from django.core.management import call_command
call_command("migrate", verbosity=0)
from django_celery_beat.models import CrontabSchedule, PeriodicTask
for name, (spec, call) in json.load(open("data.json")).items():
    times = CrontabSchedule.objects.create(timezone=zoneinfo.ZoneInfo("Asia/Tokyo"), **spec)
    call = {key: json.dumps(each) for key, each in call.items()}
    PeriodicTask.objects.create(name=name, task="t", crontab=times, **call)
"""


def test_django_celery_beat(tmp_path: Path, beatd: Beatd) -> None:
    dice = random.Random("django")
    calls = {f"e{number}": call(dice) for number in range(COUNT)}
    specs = {name: times(dice) for name in calls}
    (tmp_path / "data.json").write_text(json.dumps({name: [specs[name], each] for name, each in calls.items()}))
    (tmp_path / "site_settings.py").write_text(
        'SECRET_KEY = "x"\nINSTALLED_APPS = ["django_celery_beat"]\nUSE_TZ = True\n'
        f'DATABASES = {{"default": {{"ENGINE": "django.db.backends.sqlite3", "NAME": "{tmp_path}/db.sqlite"}}}}\n'
    )
    environment = {"DJANGO_SETTINGS_MODULE": "site_settings", "PYTHONPATH": str(tmp_path), "PATH": "/usr/bin:/bin"}
    subprocess.run([sys.executable, "-c", DJANGO], env=environment, cwd=tmp_path, check=True, timeout=60)
    entries = read_back(beatd, tmp_path, "django-celery-beat", "site_settings")
    assert_same_calls(entries, calls)
    for name, spec in specs.items():
        assert_same_runs(entries[name], wanted(spec, "Asia/Tokyo"))


ALIASES = {"@hourly": "0 * * * *", "@daily": "0 0 * * *", "@midnight": "0 0 * * *", "@weekly": "0 0 * * 0"}
ALIASES |= {"@monthly": "0 0 1 * *", "@yearly": "0 0 1 1 *", "@annually": "0 0 1 1 *"}


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("zone", ["UTC", "America/New_York"])
def test_a_system_crontab(seed: int, zone: str, tmp_path: Path, beatd: Beatd) -> None:
    dice = random.Random(f"crontab {zone} {seed}")
    written = [dice.choice([*ALIASES, " ".join(times(dice).values())]) for _ in range(COUNT)]
    lines = [f"{each} {dice.choice(['root', 'www-data'])} run {number}" for number, each in enumerate(written)]
    (tmp_path / "crontab").write_text("\n".join(["SHELL=/bin/bash", "PATH=/usr/bin", *lines, ""]))
    entries = read_back(beatd, tmp_path, "crontab", "crontab", "--system", "--timezone", zone)
    by_command = {entry.args[-1]: entry for entry in entries.values()}
    for number, each in enumerate(written):
        entry = by_command[f"run {number}"]
        assert entry.args[0] == "/bin/bash"
        assert entry.kwargs["env"]["PATH"] == "/usr/bin"
        moment = START
        for want in islice(CronSim(ALIASES.get(each, each), START.astimezone(ZoneInfo(zone))), 100):
            following = entry.schedule.next_after(moment)
            assert following == want, (each, entry.schedule.notation)
            moment = following
