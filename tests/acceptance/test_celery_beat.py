"""Two schedulers at once: ``beatd doctor`` names a celery beat that runs beside beatd."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from beatd.cli.celery_beat import is_celery_beat

APP = """
from celery import Celery
app = Celery("proj", broker={url!r})
app.conf.beat_schedule = {{"tick": {{"task": "proj.tick", "schedule": 0.2}}}}
"""
FILE = """
[redis]
url = "{url}"
[beat_schedule.tick]
task = "proj.tick"
schedule = 3600
"""


@pytest.fixture
def celery_beat(tmp_path, redis_url):
    """A celery beat of a project, with or without RedBeat."""
    (tmp_path / "proj.py").write_text(APP.format(url=redis_url))
    (tmp_path / "beat.toml").write_text(FILE.format(url=redis_url))
    begun = []

    def start(*options):
        command = [sys.executable, "-m", "celery", "-A", "proj", "beat", *options]
        begun.append(subprocess.Popen(command, cwd=tmp_path, env=os.environ, stderr=subprocess.DEVNULL))
        return begun[-1]

    yield start
    for process in begun:
        process.kill()
        process.wait()


def test_a_celery_beat_is_named_by_its_process_and_its_messages(beatd, celery_beat, wait_until):
    process = celery_beat("--schedule", "schedule.db")

    def told():
        text = beatd("doctor").stdout
        return text if "messages of a celery beat" in text else ""

    text = wait_until(told, 40, "messages of celery beat")
    assert "messages of a celery beat wait in celery (proj.tick)" in text
    if sys.platform == "linux":
        assert f"celery beat runs on this host, process {process.pid}" in text
    assert "sent twice" in text
    assert "! messages of a celery beat wait in celery (proj.tick)" in beatd("status").stdout


def test_redbeat_is_named_by_its_lock(beatd, celery_beat, wait_until):
    celery_beat("-S", "redbeat.RedBeatScheduler")
    wait_until(lambda: "RedBeat leads on" in beatd("doctor").stdout, 40, "RedBeat")


def test_without_one_nothing_is_said_of_it(beatd, celery_beat, redis_url):
    text = beatd("doctor").stdout
    assert "RedBeat" not in text
    assert "wait in celery" not in text


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("python3 /usr/bin/celery -A proj beat -l info", True),
        ("/venv/bin/celery -A proj worker -B", True),
        ("celery -A proj worker", False),
        ("vim celery beat.py", False),
        ("beatd -A proj beat", False),
        ("python -m celery --app=proj beat", True),
    ],
)
def test_command_lines(line, expected):
    assert is_celery_beat(line.split()) is expected
