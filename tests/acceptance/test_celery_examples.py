"""Celery's two classic periodic-task examples: they run when only their import lines are changed."""

from __future__ import annotations

import importlib
import sys

import pytest

from beatd.app.find_app import find_app
from beatd.schedules import parse

SETUP_PERIODIC_TASKS = """
from celery import Celery
from celery.schedules import crontab

app = Celery()

@app.on_after_configure.connect
def setup_periodic_tasks(sender: Celery, **kwargs):
    # Calls test('hello') every 10 seconds.
    sender.add_periodic_task(10.0, test.s('hello'), name='add every 10')

    # Calls test('hello') every 30 seconds.
    # It uses the same signature of previous task, an explicit name is
    # defined to avoid this task replacing the previous one defined.
    sender.add_periodic_task(30.0, test.s('hello'), name='add every 30')

    # Calls test('world') every 30 seconds
    sender.add_periodic_task(30.0, test.s('world'), expires=10)

    # Executes every Monday morning at 7:30 a.m.
    sender.add_periodic_task(
        crontab(hour=7, minute=30, day_of_week=1),
        test.s('Happy Mondays!'),
    )

@app.task
def test(arg):
    print(arg)

@app.task
def add(x, y):
    z = x + y
    print(z)
"""

BEAT_SCHEDULE = """
from celery import Celery
from celery.schedules import crontab

app = Celery('tasks')

app.conf.beat_schedule = {
    'add-every-30-seconds': {
        'task': 'tasks.add',
        'schedule': 30.0,
        'args': (16, 16)
    },
    'add-every-monday-morning': {
        'task': 'tasks.add',
        'schedule': crontab(hour=7, minute=30, day_of_week=1),
        'args': (16, 16),
    },
}
app.conf.timezone = 'UTC'

@app.task
def add(x, y):
    return x + y
"""

IMPORTS = {
    "from celery import Celery": "from beatd import App as Celery",
    "from celery.schedules import crontab": "from beatd import crontab",
}


@pytest.fixture
def registered(tmp_path, monkeypatch):
    """``registered(text)``: the app in a module ``tasks`` with that text, its import lines changed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])

    def write(text):
        for old, new in IMPORTS.items():
            assert old in text
            text = text.replace(old, new)
        (tmp_path / "tasks.py").write_text(text)
        importlib.invalidate_caches()
        return find_app("tasks")

    yield write
    sys.modules.pop("tasks", None)


def entry(schedule, *args, **options):
    return {"task": "tasks.test", "schedule": schedule, "args": list(args), "kwargs": {}, "options": options}


def test_setup_periodic_tasks(registered):
    registrations = registered(SETUP_PERIODIC_TASKS).registrations()
    monday = registrations.pop("tasks.test('Happy Mondays!')")
    assert registrations == {
        "add every 10": entry(10.0, "hello"),
        "add every 30": entry(30.0, "hello"),
        "tasks.test('world')": entry(30.0, "world", expires=10),
    }
    assert monday["args"] == ["Happy Mondays!"]
    assert monday["schedule"] == parse({"hour": 7, "minute": 30, "day_of_week": 1})


def test_a_beat_schedule(registered):
    app = registered(BEAT_SCHEDULE)
    registrations = app.registrations()
    assert list(registrations) == ["add-every-30-seconds", "add-every-monday-morning"]
    first = registrations["add-every-30-seconds"]
    assert (first["task"], first["schedule"], first["args"]) == ("tasks.add", 30.0, [16, 16])
    assert registrations["add-every-monday-morning"]["schedule"] == parse("30 7 * * 1")
    assert str(app.timezone) == "UTC"
    assert app.tasks["tasks.add"](16, 16) == 32


def test_the_example_runs_from_the_daemon_to_the_worker(tmp_path, redis_url, start_beatd):
    text = SETUP_PERIODIC_TASKS.replace("10.0", "0.5").replace("Celery()", f"Celery(broker={redis_url!r})")
    for old, new in IMPORTS.items():
        text = text.replace(old, new)
    (tmp_path / "tasks.py").write_text(text)
    (tmp_path / "beat.toml").write_text(f'app = "tasks"\nstate_dir = "state"\n[redis]\nurl = "{redis_url}"\n')
    worker = start_beatd("worker", "-A", "tasks", "-c", "1")
    start_beatd("--config", "beat.toml")
    worker.expect(r"WARNING/ForkPoolWorker-1\] hello$", times=2, timeout=20)
