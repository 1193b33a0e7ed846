"""``beatd stop-run`` with real workers, beatd's and Celery's: what runs is ended, what waits is not begun."""

from __future__ import annotations

import json

import pytest

from beatd.client import Schedules
from tests.celery_process import celeries

APP = """
import pathlib, time
from {module} import {name}

app = {name}("proj", broker="{url}", backend="{url}")
app.conf.task_default_queue = "{queue}"


@app.task(name="{queue}.long")
def long(mark):
    pathlib.Path(mark).write_text("begun")
    time.sleep(300)


@app.task(name="{queue}.works")
def works():
    return 1
"""
CONFIG = """
[redis]
url = "{url}"
[leader]
ttl = "10s"
"""
ENTRY = '[beat_schedule.{name}]\ntask = "{queue}.{task}"\nschedule = "@yearly"\nqueue = "{queue}"\nargs = {args}\n'


@pytest.fixture
def file(tmp_path, redis_url):
    path, entries = tmp_path / "beat.toml", []
    for queue, module, name in (("ours", "beatd", "App"), ("theirs", "celery", "Celery")):
        text = APP.format(module=module, name=name, url=redis_url, queue=queue)
        (tmp_path / f"{queue}.py").write_text(text)
        for entry in ("first", "second"):
            args = json.dumps([str(tmp_path / f"{queue}-{entry}")])
            entries.append(ENTRY.format(name=f"{queue}-{entry}", queue=queue, task="long", args=args))
        entries.append(ENTRY.format(name=f"{queue}-works", queue=queue, task="works", args="[]"))
    path.write_text(CONFIG.format(url=redis_url) + "".join(entries))
    return path


@pytest.fixture
def worker(request, tmp_path, file, start_beatd):
    """The name of the queue that a worker with one process takes from."""
    if request.param == "ours":
        start_beatd("worker", "--app", "ours", "-Q", "ours", "-c", "1").expect("ready")
        yield "ours"
        return
    with celeries(tmp_path) as start:
        start.worker("-c", "1", "-Q", "theirs", "-l", "INFO", app="theirs")
        yield "theirs"


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("worker", ["ours", "theirs"], indirect=True)
def test_what_runs_is_ended_and_what_waits_is_not_begun(start_beatd, beatd, worker, tmp_path, redis_url, wait_until):
    start_beatd("run").expect("entries in force")

    def outcome(run_id):
        return json.loads(beatd("run-info", run_id, "--json").stdout)["state"]

    with Schedules(redis_url) as schedules:
        first = schedules.trigger(f"{worker}-first").run_id
        wait_until((tmp_path / f"{worker}-first").exists, 60, "the task to begin")
        second = schedules.trigger(f"{worker}-second").run_id
        waiting = json.loads(beatd("stop-run", second[:8], "--json", "--timeout", "6s").stdout)
        assert (waiting["run_id"], waiting["was"], len(waiting["workers"])) == (second, "queued", 1)
        done = beatd("stop-run", first, "--timeout", "6s")
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(f"Revoked run {first} of {worker}-first")
        assert "1 worker told" in done.stdout
        wait_until(lambda: outcome(first) == "revoked", 60, "the end of the first run")
        wait_until(lambda: outcome(second) == "revoked", 60, "the second run to be skipped")
        assert not (tmp_path / f"{worker}-second").exists()
        third = schedules.trigger(f"{worker}-works").run_id
        wait_until(lambda: outcome(third) == "success", 60, "the worker to go on")
    again = beatd("stop-run", first)
    assert (again.returncode, again.stdout) == (1, "")
    assert f"run {first} of {worker}-first has ended: revoked" in again.stderr
    audited = json.loads(beatd("audit", "--json").stdout)["changes"]
    assert [one["subjects"] for one in audited if one["action"] == "stop-run"] == [[first], [second]]


def test_a_run_that_is_not_there_and_no_worker(beatd, file, start_beatd, redis_url):
    nothing = beatd("stop-run", "ffffffff")
    assert (nothing.returncode, nothing.stdout) == (1, "")
    start_beatd("run").expect("Leading shard 0")
    with Schedules(redis_url) as schedules:
        run_id = schedules.trigger("ours-works").run_id
    alone = beatd("stop-run", run_id, "--timeout", "0.2s")
    assert alone.returncode == 1
    assert "No worker has answered" in alone.stdout
