"""Commands of Celery's on a real Redis: call, result, purge, report, events."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
from click.testing import CliRunner

from beatd.app.app import App
from beatd.broker.event_receiver import receive
from beatd.cli import main

APP = """
from beatd import App
app = App("proj", broker={url!r}, backend={url!r})

@app.task
def add(x, y):
    return x + y
"""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, redis_url: str):
    (tmp_path / "called_app.py").write_text(APP.format(url=redis_url))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(__import__("sys").modules, "called_app", raising=False)

    def invoke(*words: str, code: int = 0) -> str:
        done = CliRunner().invoke(main, ["-A", "called_app", *words], prog_name="beatd")
        assert done.exit_code == code, done.output
        return done.output.strip()

    return invoke


def test_call_result_and_purge(run, redis_url: str) -> None:
    task_id = run("call", "called_app.add", "-a", "[2, 3]", "--countdown", "1")
    assert "PENDING" in run("result", task_id, code=1)
    app = App("other", broker=redis_url, backend=redis_url, set_as_current=False)
    app.store_state(task_id, "SUCCESS", {"sum": 5})
    assert json.loads(run("result", task_id)) == {"sum": 5}
    assert json.loads(run("result", task_id, "--json"))["state"] == "SUCCESS"
    assert "confirm it with --yes" in run("purge", code=2)
    assert run("purge", "-f") == "Deleted 1 message in celery."
    assert run("purge", "-f", "-Q", "nowhere") == "Deleted 0 messages in nowhere."
    assert "no queue is left" in run("purge", "-f", "-X", "celery", code=2)
    app.close()


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["call", "x", "--args", "{"], 2, "not JSON"),
        (["call", "x", "--eta", "soon"], 2, "not a valid time"),
        (["call", "x", "-b", "redis://localhost:1/0"], 1, "refused"),
        (["purge", "-f", "-b", "redis://localhost:1/0"], 1, "cannot purge"),
        (["events", "-b", "redis://localhost:1/0"], 1, "no events"),
        (["report", "-A", "nowhere_at_all"], 2, "no module named"),
    ],
)
def test_errors_are_told_in_words(run, words: list[str], code: int, text: str) -> None:
    said = run(*words, code=code)
    assert text in said
    assert "Traceback" not in said


def test_a_report_hides_passwords(run) -> None:
    assert "software -> beatd:" in run("report")


def test_events_as_they_arrive(redis_url: str) -> None:
    app = App("told", broker=redis_url, set_as_current=False, task_send_sent_event=True)
    heard = receive(redis_url, "celeryev", {})
    assert next(heard) is None  # it listens now
    sender = threading.Thread(target=app.send_task, args=("t", (1,)))
    sender.start()
    sender.join(10)
    event = next(event for event in heard if event is not None)
    assert (event["type"], event["name"]) == ("task-sent", "t")
    heard.close()
    app.close()
