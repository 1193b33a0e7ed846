"""Shadow mode: a dry run beside celery beat sends nothing, and ``beatd compare`` says where the two differ."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import redis

APP = """
from celery import Celery
from celery.schedules import crontab, schedule
from datetime import timedelta

class Odd(crontab):
    def remaining_estimate(self, last_run_at):
        raise RuntimeError("who knows")

app = Celery("proj")
app.conf.timezone = "Europe/Berlin"
app.conf.beat_schedule = {
    "interval": {"task": "t.a", "schedule": 60.0},
    "delta": {"task": "t.a", "schedule": timedelta(hours=5)},
    "cron": {"task": "t.b", "schedule": crontab(minute="*/15", hour="7-9", day_of_week="mon-fri")},
    "monthly": {"task": "t.b", "schedule": crontab(minute=0, hour=6, day_of_month=1)},
    "odd": {"task": "t.b", "schedule": Odd(minute=0)},
}
"""
BEAT = """
timezone = "Europe/Berlin"
[redis]
url = {url!r}
[beat_schedule.interval]
task = "t.a"
schedule = 60
[beat_schedule.delta]
task = "t.a"
schedule = "5h"
[beat_schedule.cron]
task = "t.b"
schedule = "*/15 7-9 * * mon-fri"
[beat_schedule.monthly]
task = "t.b"
schedule = "0 6 1 * *"
"""
FAST = """
[redis]
url = {url!r}
[notify.ops]
webhook = "http://127.0.0.1:1/"
on = ["overdue"]
[beat_schedule.often]
task = "t.a"
schedule = "200ms"
overlap = "skip"
max_runtime = "1h"
overdue_after = "1s"
ping = "http://127.0.0.1:1/"
[beat_schedule.more]
task = "t.a"
schedule = "300ms"
queue = "other"
"""


def test_plans(tmp_path, redis_url, beatd):
    (tmp_path / "proj.py").write_text(APP)
    beat = tmp_path / "beat.toml"
    beat.write_text(BEAT.format(url=redis_url))
    done = beatd("compare", "proj", "--days", "40")
    assert done.returncode in (0, 1), done.stderr  # a clock change may lie in the coming days
    assert done.stderr == "! odd: cannot be foreseen: who knows\n"
    if done.returncode == 0:
        assert done.stdout.startswith("4 entries the same, 0 different; ")
    text = BEAT.format(url=redis_url).replace("*/15 7-9", "*/20 7-9").replace("schedule.monthly", "schedule.other")
    beat.write_text(text)
    done = beatd("compare", "proj", "--days", "40", "--json")
    assert done.returncode == 1
    said = json.loads(done.stdout)
    assert said["unknown"] == {"odd": "who knows"}
    entries = said["entries"]
    assert len(entries["cron"]["only_celery"]) > len(entries["cron"]["only_beatd"]) > 20
    assert (entries["monthly"]["both"], entries["other"]["both"]) == (0, 0)
    assert entries["interval"]["only_celery"] == entries["interval"]["only_beatd"] == []
    for words, told in (
        ((), "give CELERY_APP to compare plans"),
        (("proj", "--sent", "proj.py"), "give CELERY_APP to compare plans"),
        (("nowhere",), "no module named 'nowhere'"),
        (("proj", "--within", "soon"), "--within"),
        (("--sent", "nowhere"), "nowhere"),
        (("--sent", "proj.py"), "has no line of celery beat"),
        (("--sent", "proj.py", "--timezone", "Mars"), "unknown time zone"),
    ):
        done = beatd("compare", *words)
        assert done.returncode in (1, 2), words
        assert told in done.stderr
        assert "Traceback" not in done.stderr


def log_of(name: str, moments: list[datetime]) -> str:
    lines = ["[2026-11-26 17:00:00,000: INFO/MainProcess] beat: Starting...", "nonsense", "x" * 9_000]
    lines += [
        f"[{at:%Y-%m-%d %H:%M:%S},{at.microsecond // 1000:03}: INFO/Main] Scheduler: Sending due task {name} (t.a)"
        for at in moments
    ]
    return "\n".join(lines)


def test_a_dry_run_sends_nothing_and_is_compared(tmp_path, redis_url, start_beatd, beatd):
    (tmp_path / "beat.toml").write_text(FAST.format(url=redis_url))
    daemon = start_beatd("run", "--dry-run", "--log-format", "json")
    daemon.expect("run_not_sent.*often", times=6, timeout=30)
    daemon.expect("run_not_sent.*more", times=4, timeout=30)
    assert daemon.end() == 0
    assert daemon.find('"event": ?"dry_run"')
    assert not daemon.find("run_skipped|run_dispatched|overdue|notification")
    with redis.Redis.from_url(redis_url) as client:
        keys = {key.decode() for key in client.keys("*")}
    assert keys
    assert all(key.startswith("{beatd-dry-run}") for key in keys)
    dues = [json.loads(line) for line in daemon.lines if "run_not_sent" in line]
    often = [datetime.fromisoformat(each["due_at"]) for each in dues if each["entry"] == "often"]
    later = [at.astimezone(UTC) + timedelta(milliseconds=40) for at in often]
    (tmp_path / "beat.log").write_text(log_of("often", later))
    done = beatd("compare", "--sent", "beat.log", "--within", "90ms")
    assert done.returncode == 1
    assert "more (only in beatd)" in done.stdout
    assert "often" not in done.stdout
    (tmp_path / "beat.log").write_text(log_of("often", [*later[:-4], *later[-3:]]) + "\n" + log_of("more", later[2:3]))
    said = json.loads(beatd("compare", "--sent", "beat.log", "--within", "90ms", "--json").stdout)["entries"]
    assert (len(said["often"]["only_beatd"]), said["often"]["only_celery"]) == (1, [])
    (tmp_path / "beat.log").write_text(log_of("often", [datetime(2020, 1, 1, tzinfo=UTC)]))
    done = beatd("compare", "--sent", "beat.log")
    assert (done.returncode, "the log and the dry run are of different times" in done.stderr) == (1, True)
    (tmp_path / "beat.log").write_text(log_of("often", later))
    done = beatd("compare", "--sent", "beat.log")  # within 30 s all is the same
    assert (done.returncode, "ran together for too short a time" in done.stderr) == (1, True)


def test_a_comparison_without_a_dry_run(tmp_path, redis_url, beatd):
    (tmp_path / "beat.toml").write_text(FAST.format(url=redis_url))
    (tmp_path / "beat.log").write_text(log_of("often", [datetime.now(UTC)]))
    done = beatd("compare", "--sent", "beat.log")
    assert (done.returncode, "start beatd run --dry-run beside celery beat" in done.stderr) == (1, True)
