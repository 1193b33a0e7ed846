"""Entries of the store are checked against the tasks of the app, from the command line and by the API."""

import json

import pytest
from click.testing import CliRunner

from beatd.cli import main
from beatd.cli.add import add
from beatd.client import Schedules
from tests.round_trips import RoundTrips

APP = """
from beatd import App

app = App("proj")


@app.task(name="proj.report")
def report(month, *, format="pdf"):
    pass
"""
CONFIG = 'app = "proj_of_add:app"\n[redis]\nurl = "{url}"\n'


@pytest.fixture
def put(tmp_path, redis_url):
    (tmp_path / "proj_of_add.py").write_text(APP)
    (tmp_path / "beat.toml").write_text(CONFIG.format(url=redis_url))

    def put(*arguments):
        command = ["x", "--schedule", "1h", "--config", str(tmp_path / "beat.toml"), *arguments]
        done = CliRunner().invoke(add, command, catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done

    return put


@pytest.mark.parametrize(
    ("arguments", "warning"),
    [
        (["--task", "proj.report", "--args", "[1]"], None),
        (["--task", "proj.reprot", "--args", "[1]"], 'the app has no task "proj.reprot"; did you mean proj.report?'),
        (["--task", "proj.report"], "does not take them: missing a required argument: 'month'"),
        (["--task", "proj.report", "--args", "[1]", "--kwargs", '{"fromat": "pdf"}'], "unexpected keyword argument"),
        (["--task", "beatd.http"], "url"),
        (["--task", "proj.reprot", "--no-app"], None),
    ],
)
def test_a_task_that_does_not_fit_is_told_and_the_entry_is_stored(put, redis_url, arguments, warning):
    warnings = json.loads(put(*arguments, "--json").stdout)["warnings"]
    assert len(warnings) == (0 if warning is None else 1)
    if warning is not None:
        assert warning in warnings[0]
        told = put(*arguments).stderr
        assert told.startswith("! warning: ")
        assert warning in told
    with Schedules(redis_url) as schedules:
        assert schedules.get("x").table["task"] == arguments[1]


def test_an_app_that_cannot_be_imported_is_told(put, tmp_path):
    (tmp_path / "proj_of_add.py").write_text("raise RuntimeError('broken')\n")
    [warning] = json.loads(put("--task", "t", "--json").stdout)["warnings"]
    assert "tasks were not checked" in warning


def test_a_put_waits_for_two_answers(redis_server):
    with RoundTrips(redis_server.port) as trips, Schedules(f"redis://127.0.0.1:{trips.port}/0") as schedules:
        schedules.put("a", task="t", schedule=30)
        before = max(number for number, _, _ in trips.requests)
        assert schedules.put("a", task="t", schedule=60) == "changed"
        assert max(number for number, _, _ in trips.requests) - before == 2
        assert schedules.put("a", task="t", schedule=60) == "unchanged"
        assert max(number for number, _, _ in trips.requests) - before == 3


@pytest.mark.parametrize("name", ["x", "of_file"])
def test_without_the_app_the_file_is_looked_at_and_nothing_is_imported(put, tmp_path, redis_url, name):
    """The host of an operator may not have the code of the app."""
    (tmp_path / "proj_of_add.py").write_text(f"open({str(tmp_path / 'imported')!r}, 'w').close()\nraise SystemExit\n")
    file = tmp_path / "beat.toml"
    file.write_text(file.read_text() + '[beat_schedule.of_file]\ntask = "t"\nschedule = 60\n')
    command = [name, "--task", "t", "--schedule", "1h", "--config", str(file)]
    done = CliRunner().invoke(main, ["add", *command, "--no-app"])
    assert not (tmp_path / "imported").exists()
    assert "faults" not in done.output
    assert done.exit_code == (1 if name == "of_file" else 0), done.output
    assert ("and that counts: change it there" in done.output) == (name == "of_file")
    broken = CliRunner().invoke(main, ["add", *command])
    assert broken.exit_code == done.exit_code
    assert "The app could not be read, so that its entries were not looked at: " in broken.output
    assert "The files have faults" not in broken.output
