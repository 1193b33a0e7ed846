"""Celery's client before beatd's worker, and beatd's client before Celery's worker."""

from __future__ import annotations

import gc
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import celery
import celery.exceptions
import pytest

from beatd import App, exceptions

pytestmark = [  # all of them about what Celery's client does with redis-py
    pytest.mark.filterwarnings("ignore:Call to deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

TASKS = """
from {package} import {app_class} as App
app = App("proj", broker={url!r}, backend={url!r})

@app.task
def add(x, y):
    return x + y

@app.task
def echo(value):
    return value

@app.task
def boom():
    raise ValueError("boom", 7)

@app.task(bind=True, max_retries=3)
def flaky(self, wanted):
    if self.request.retries < wanted:
        raise self.retry(countdown=0.2)
    return self.request.retries

@app.task(bind=True, max_retries=0)
def hopeless(self):
    raise self.retry(countdown=0.2)

@app.task(bind=True)
def who(self):
    request = self.request
    tenant = (request.headers or {{}}).get("tenant")
    return [request.id, request.delivery_info["routing_key"], tenant, request.timelimit]

@app.task(ignore_result=True)
def ignored():
    return 1
"""


@pytest.fixture
def celery_client(redis_url):
    client = celery.Celery("proj", broker=redis_url, backend=redis_url)
    client.conf.broker_connection_retry_on_startup = True
    yield client
    gc.collect()  # Celery's results unsubscribe when they are collected: the server must still be there
    client.backend.result_consumer.stop()
    client.backend.client.close()
    client.close()


@pytest.fixture
def beatd_client(redis_url):
    client = App("proj", broker=redis_url, backend=redis_url)
    yield client
    client.close()


@pytest.fixture(params=["celery's client, beatd's worker", "beatd's client, celery's worker"])
def pair(request, tmp_path, redis_url, start_beatd, celery_client, beatd_client):
    """A client, and the module whose exceptions it raises, before a worker of the other make."""
    ours = request.param.endswith("beatd's worker")
    package, app_class = ("beatd", "App") if ours else ("celery", "Celery")
    (tmp_path / "proj.py").write_text(TASKS.format(package=package, app_class=app_class, url=redis_url))
    if ours:
        start_beatd("worker", "-A", "proj", "-c", "1", "-Q", "celery,other").expect(r"ready\.")
        yield celery_client, celery.exceptions
        return
    command = [
        sys.executable,
        "-m",
        "celery",
        "-A",
        "proj",
        "worker",
        "-P",
        "solo",
        "-Q",
        "celery,other",
        "-l",
        "error",
    ]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    yield beatd_client, exceptions
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(10)


def test_they_understand_each_other(pair):
    client, errors = pair

    def call(name, *args, **options):
        return client.send_task(f"proj.{name}", args, **options)

    assert call("add", 2, 3).get(timeout=20) == 5
    assert call("flaky", 2).get(timeout=20) == 2
    for value in (None, "ü", [1, {"a": 2}], datetime(2026, 1, 1, tzinfo=UTC), Decimal("1.5"), b"\xff"):
        assert call("echo", value).get(timeout=20) == value
    facts = call("who", task_id="the-id", queue="other", headers={"tenant": "a"}, time_limit=20, soft_time_limit=10)
    assert facts.get(timeout=20) == ["the-id", "other", "a", [20, 10]]

    failed = call("boom")
    with pytest.raises(ValueError, match="boom") as caught:
        failed.get(timeout=20)
    assert caught.value.args == ("boom", 7)
    assert failed.state == "FAILURE"
    assert "boom" in failed.traceback

    with pytest.raises(errors.MaxRetriesExceededError):
        call("hopeless").get(timeout=20)
    with pytest.raises(errors.NotRegistered):
        call("nobody").get(timeout=20)
    with pytest.raises(errors.TaskRevokedError, match="expired"):
        call("add", 1, 2, expires=datetime.now(UTC) - timedelta(seconds=5)).get(timeout=20)
    with pytest.raises(errors.TimeoutError):
        call("add", 1, 2, countdown=60).get(timeout=0.2)
    assert call("add", 1, 2, countdown=0.3).get(timeout=20) == 3
    assert call("add", 1, 2, priority=9).get(timeout=20) == 3
