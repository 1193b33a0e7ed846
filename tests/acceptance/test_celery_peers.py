"""A real Celery worker consumes what the daemon dispatched, and cannot tell it from Celery beat's own."""

import json

import pytest

from tests.celery_process import celeries

APP = """
import json
from celery import Celery
from celery.schedules import schedule

app = Celery("proj", broker={url!r}, backend={url!r})
app.conf.beat_schedule = {{
    "report": {{
        "task": "proj.report",
        "schedule": schedule(1.0),
        "args": (1, "zwei"),
        "kwargs": {{"format": "pdf"}},
        "options": {{"queue": "reports", "expires": 30, "headers": {{"tenant": "a"}}, "priority": 3}},
    }},
}}

@app.task(bind=True, name="proj.report")
def report(self, *args, **kwargs):
    request = self.request
    seen = {{
        "args": args,
        "kwargs": kwargs,
        "headers": request.headers,
        "expires": request.expires,
        "queue": request.delivery_info["routing_key"],
        "priority": request.delivery_info["priority"],
        "id": request.id,
        "ignore_result": request.ignore_result,
    }}
    self.backend.client.rpush("seen", json.dumps(seen))
    return len(args)
"""

BEAT_TOML = """
[redis]
url = "{url}"

[beat_schedule.report]
task = "proj.report"
schedule = 1.0
args = [1, "zwei"]
kwargs = {{ format = "pdf" }}
queue = "reports"
expires = 30
headers = {{ tenant = "a" }}
priority = 3
"""


@pytest.fixture
def celery(tmp_path, redis_url):
    """``celery("worker", …)``: a real Celery process with the app above."""
    (tmp_path / "proj.py").write_text(APP.format(url=redis_url))
    (tmp_path / "beat.toml").write_text(BEAT_TOML.format(url=redis_url))
    with celeries(tmp_path) as start:
        yield start


def messages(server):
    return [json.loads(raw) for raw in server.lrange("reports\x06\x163", 0, -1)]


def test_a_celery_worker_runs_what_the_daemon_sent(celery, start_beatd, server, tmp_path, wait_until):
    celery.worker("-P", "solo", "-Q", "reports", "-l", "warning")
    start_beatd("--config", str(tmp_path / "beat.toml"))
    wait_until(lambda: server.llen("seen") >= 2, timeout=40, what="Celery's worker to run the task twice")
    first, second = (json.loads(raw) for raw in server.lrange("seen", 0, 1))
    assert first["args"] == [1, "zwei"]
    assert first["kwargs"] == {"format": "pdf"}
    assert first["queue"] == "reports"
    assert first["priority"] == 3
    assert first["headers"]["tenant"] == "a"
    assert first["headers"]["beatd-entry"] == "report"
    assert first["expires"] is not None
    assert first["id"] != second["id"]
    wait_until(lambda: server.get(f"celery-task-meta-{first['id']}"), timeout=10, what="the result")
    assert json.loads(server.get(f"celery-task-meta-{first['id']}"))["result"] == 2


def test_the_message_is_celery_beats_but_for_the_extra_headers(celery, start_beatd, server, tmp_path, wait_until):
    beat = celery("beat", "-l", "warning", "-s", str(tmp_path / "state"))
    theirs = wait_until(lambda: messages(server), timeout=40, what="Celery beat's message")[-1]
    beat.terminate()
    server.delete("reports\x06\x163")
    start_beatd("--config", str(tmp_path / "beat.toml"))
    ours = wait_until(lambda: messages(server), timeout=20, what="beatd's message")[-1]

    extra = {"beatd-entry", "beatd-due-at", "beatd-after", "periodic_task_name"}
    assert ours["headers"].keys() - extra == theirs["headers"].keys()
    assert ours["properties"].keys() == theirs["properties"].keys()
    # Celery beat knows the task and sends its setting; beatd knows only the name and lets the worker's task decide.
    assert (ours["headers"].pop("ignore_result"), theirs["headers"].pop("ignore_result")) == (None, False)
    changing = {"id", "root_id", "expires", "origin"}
    assert {k: v for k, v in ours["headers"].items() if k not in changing | extra} == {
        k: v for k, v in theirs["headers"].items() if k not in changing
    }
    for header in changing:
        assert type(ours["headers"][header]) is type(theirs["headers"][header])
    same = {"delivery_mode", "delivery_info", "priority", "body_encoding"}
    assert {k: ours["properties"][k] for k in same} == {k: theirs["properties"][k] for k in same}
    assert (ours["content-type"], ours["content-encoding"]) == (theirs["content-type"], theirs["content-encoding"])
