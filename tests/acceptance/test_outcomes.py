"""Outcomes of runs as an operator sees them: in list, history, run-info, describe, status, on the page and in JSON.

One daemon, one bundled worker and one Celery worker; an entry for each way in which a run can end.
"""

import json
import os
import re
import signal
import urllib.request

import pytest

from beatd.client import Schedules
from beatd.store.keys import Keys
from beatd.store.outcomes import SILENT_MS
from tests.celery_process import celeries

KEYS = Keys("beatd")
APP = """
import logging, os, signal, time
from beatd import App

app = App("proj")
log = logging.getLogger("proj.reports")


@app.task(name="works")
def works(password=None):
    print("42 rows, token=geheim")
    log.warning("one row was skipped")


@app.task(name="fails")
def fails(password=None):
    print("before the error")
    raise ValueError("cannot reach redis://user:geheim@db/0")


@app.task(name="retries", bind=True, max_retries=1)
def retries(self):
    raise self.retry(exc=KeyError("later"), countdown=0.1)


@app.task(name="slow", time_limit=1)
def slow():
    time.sleep(60)


@app.task(name="dies")
def dies():
    os.kill(os.getpid(), signal.SIGKILL)


@app.task(name="long")
def long():
    print("has begun", flush=True)
    time.sleep(600)
"""
CELERY = """
from celery import Celery

app = Celery("theirs", broker="{url}", backend="{url}")
app.conf.task_default_queue = "theirs"


@app.task(name="theirs.works")
def works():
    return 1


@app.task(name="theirs.fails")
def fails():
    raise RuntimeError("theirs is broken")
"""
NAMES = ("works", "fails", "retries", "slow", "dies", "long", "unknown", "revoked")
CONFIG = """
app = "proj:app"
[redis]
url = "{url}"
[leader]
ttl = "10s"
"""
ENTRY = '[beat_schedule.{name}]\ntask = "{task}"\nschedule = "@yearly"\n'


def configured(url):
    entries = [ENTRY.format(name=name, task="works" if name == "revoked" else name) for name in NAMES]
    entries[0] += 'kwargs = { password = "geheim" }\n'
    entries[1] += 'kwargs = { password = "geheim" }\n'
    entries += [
        ENTRY.format(name=f"theirs-{name}", task=f"theirs.{name}") + 'queue = "theirs"\n' for name in ("works", "fails")
    ]
    entries.append('[beat_schedule.late]\ntask = "x"\nschedule = 1\nqueue = "nobody"\noverdue_after = "1s"\n')
    return CONFIG.format(url=url) + "".join(entries)


@pytest.fixture
def file(tmp_path, redis_url):
    (tmp_path / "proj.py").write_text(APP)
    (tmp_path / "theirs.py").write_text(CELERY.format(url=redis_url))
    path = tmp_path / "beat.toml"
    path.write_text(configured(redis_url))
    return path


@pytest.fixture
def celery_worker(tmp_path, file):
    with celeries(tmp_path) as start:
        yield start.worker("-c", "1", app="theirs")


def entries_of(beatd, *options):
    answer = beatd("list", "--json", *options)
    return {entry["name"]: entry for entry in json.loads(answer.stdout)["entries"]}


def get(port, path):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
        return answer.read().decode()


EXPECTED = {
    "works": ("success", None),
    "fails": ("failure", "ValueError"),
    "retries": ("failure", "KeyError"),
    "slow": ("failure", "TimeLimitExceeded"),
    "dies": ("lost", "WorkerLostError"),
    "long": ("running", None),
    "unknown": ("failure", "NotRegistered"),
    "revoked": ("revoked", None),
    "theirs-works": ("success", None),
    "theirs-fails": ("failure", "RuntimeError"),
}


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_every_outcome_is_shown_everywhere(start_beatd, beatd, file, client, redis_url, celery_worker, wait_until):
    start_beatd("run").expect("entries in force")
    with Schedules(redis_url) as schedules:
        runs = {"revoked": schedules.trigger("revoked").run_id}
        client.zadd(KEYS.workers().revoked, {runs["revoked"]: 2_000_000_000_000})
        worker = start_beatd("worker", "--config", str(file), "-c", "3")
        worker.expect("ready")
        runs |= {name: schedules.trigger(name).run_id for name in EXPECTED if name != "revoked"}

        def outcomes():
            entries = entries_of(beatd)
            seen = {name: (one["last_outcome"], (one["last_error"] or {}).get("type")) for name, one in entries.items()}
            print(seen, entries["late"]["overdue_since"])
            return (
                entries
                if {name: seen[name] for name in EXPECTED} == EXPECTED and entries["late"]["overdue_since"]
                else None
            )

        entries = wait_until(outcomes, 120, "all outcomes")
        check_list(beatd, entries)
        check_history_and_runs(beatd, schedules, runs)
        check_status(beatd)
        check_page(start_beatd, runs)
        check_lost_worker(beatd, client, worker, runs, wait_until)


def check_list(beatd, entries):
    assert entries["works"]["failing_since"] is None
    assert entries["works"]["outcomes"] == ["success"]
    assert entries["works"]["last_success_at"]
    assert entries["fails"]["failing_since"]
    assert entries["fails"]["last_error"]["message"] == "cannot reach redis://user:***@db/0"
    failing = {"fails", "retries", "slow", "dies", "unknown", "theirs-fails"}
    assert entries_of(beatd, "--failed").keys() == failing
    assert entries_of(beatd, "--overdue").keys() == {"late"}
    assert entries_of(beatd, "--task", "theirs.*").keys() == {"theirs-works", "theirs-fails"}
    assert entries_of(beatd, "--source", "beat.toml").keys() == entries.keys()
    assert entries_of(beatd, "--source", "runtime").keys() == set()
    assert next(iter(entries_of(beatd, "--sort", "failures"))) in failing
    table = beatd("list").stdout
    assert re.search(r"^fails .* failure ✗", table, re.MULTILINE)
    assert re.search(r"^! entry fails failed once since .*: ValueError: cannot reach", table, re.MULTILINE)


def check_history_and_runs(beatd, schedules, runs):
    failed = json.loads(beatd("history", "--failed", "--json", "-n", "100").stdout)["runs"]
    assert {run["entry"] for run in failed} >= {
        "fails",
        "retries",
        "slow",
        "dies",
        "unknown",
        "theirs-fails",
        "revoked",
    }
    states = {run["entry"]: (run["state"], run["outcome"]) for run in failed}
    assert states["dies"] == ("lost", "FAILURE")
    assert states["revoked"] == ("revoked", "REVOKED")
    assert "ValueError: cannot reach" in beatd("history", "fails").stdout
    assert json.loads(beatd("history", "fails", "--since", "+1d", "--json").stdout)["runs"] == []
    assert [run.record.run_id for run in schedules.runs("fails", failed=True)] == [runs["fails"]]
    assert [run.run_id for run in schedules.history("works", failed=True)] == []

    shown = beatd("run-info", runs["fails"][:8])
    assert shown.returncode == 0, shown.stderr
    for text in ("ValueError: cannot reach", "Traceback", "before the error", "celery@", "'password': '***'"):
        assert text in shown.stdout
    works = json.loads(beatd("run-info", runs["works"], "--json").stdout)
    assert works["state"] == "success"
    assert "42 rows, token=***" in works["output"]
    assert "one row was skipped" in works["output"]
    attempts = json.loads(beatd("run-info", runs["retries"], "--json").stdout)["attempts"]
    assert [(one["attempt"], one["outcome"]) for one in attempts] == [(1, "retry"), (2, "failure")]
    theirs = json.loads(beatd("run-info", runs["theirs-fails"], "--json").stdout)
    assert theirs["error"] == {"type": "RuntimeError", "message": "theirs is broken"}
    assert "theirs.py" in theirs["traceback"]
    nothing = beatd("run-info", "ffffffff")
    assert (nothing.returncode, nothing.stdout) == (1, "")
    assert beatd("run-info", "ff").returncode == 2

    described = beatd("describe", "fails").stdout
    for text in ("beat.toml:", "failure ✗", "failed once", "Next ", "ValueError", "[beat_schedule.fails]", "***"):
        assert text in described
    document = json.loads(beatd("describe", "works", "--json").stdout)
    assert (document["last_outcome"], len(document["next"]), document["statistics"]["runs"]) == ("success", 5, 1)
    unknown = beatd("describe", "fail")
    assert unknown.returncode == 2
    assert "did you mean fails" in unknown.stderr


def check_status(beatd):
    document = json.loads(beatd("status", "--json").stdout)
    assert document["failing_count"] == len(document["failing"]) == 6
    assert [one["entry"] for one in document["overdue"]] == ["late"]
    assert document["ready"]
    lines = beatd("status").stdout.splitlines()
    assert lines[0].startswith("! ")
    assert any("fails failed once since" in line for line in lines)
    assert any("entry late is overdue since" in line for line in lines)
    assert beatd("status").returncode == 0
    assert beatd("status", "--check").returncode == 1


def check_page(start_beatd, runs):
    [found] = start_beatd("web", "--port", "0").expect(r"Status page at http://127\.0\.0\.1:(\d+)")
    port = found[1]
    page = get(port, "/")
    assert "fails failed once since" in page
    assert "✗" in page
    listed = re.findall(r'href="/entries/([^"]+)"[^>]*>(?!See the entry)', get(port, "/?only=failing"))
    assert set(listed) == {*("fails", "retries", "slow", "dies", "unknown", "theirs-fails")}
    entry = get(port, "/entries/fails")
    assert "ValueError: cannot reach" in entry
    assert "before the error" in entry
    run = get(port, f"/runs/{runs['fails']}")
    assert "Traceback (most recent call last)" in run
    assert "before the error" in run
    history = json.loads(get(port, "/api/entries/fails/history?failed=1"))["runs"]
    assert [one["error"]["type"] for one in history] == ["ValueError"]
    everything = page + entry + run + get(port, "/api/entries") + get(port, "/entries/works")
    assert "geheim" not in everything


def check_lost_worker(beatd, client, worker, runs, wait_until):
    """A worker is killed with all its processes while it runs a task that was acknowledged when it began."""
    os.killpg(worker.pid, signal.SIGKILL)  # a session of its own
    worker.wait()
    key = KEYS.started(runs["long"])
    start, seen, rest = client.get(key).decode().split(" ", 2)
    client.set(key, f"{start} {int(seen) - SILENT_MS} {rest}")  # a minute passes
    assert entries_of(beatd)["long"]["last_outcome"] == "lost"

    def noted():
        entry = entries_of(beatd)["long"]
        return entry if entry["failing_since"] else None

    entry = wait_until(noted, 60, "the daemon to note that the run is lost")
    assert entry["last_error"]["type"] == "WorkerLostError"


def test_the_output_can_be_switched_off(start_beatd, beatd, file, redis_url, wait_until):
    file.write_text(file.read_text() + "[worker]\noutput = false\n")
    start_beatd("run").expect("entries in force")
    start_beatd("worker", "--config", str(file), "-P", "threads", "-c", "2").expect("ready")
    with Schedules(redis_url) as schedules:
        run_id = schedules.trigger("fails").run_id

    def ended():
        shown = beatd("run-info", run_id, "--json")
        return shown.returncode == 0 and json.loads(shown.stdout)["attempts"]

    [attempt] = wait_until(ended, 30, "the end of the run")
    assert (attempt["output"], attempt["error"]["type"]) == (None, "ValueError")
