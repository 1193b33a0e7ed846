"""The operating commands in this process, beside a real server and no daemon: words, exit codes, JSON, 80 columns."""

import json
import os
import pty
import re
import subprocess
import sys

import pytest
from click.testing import CliRunner

from beatd.cli import main
from beatd.client import Schedules
from beatd.store.client import connect
from beatd.store.daemon_registry import Registry, Status
from beatd.store.keys import Keys

ENTRIES = """
[beat_schedule.tick]
task = "tasks.tick"
schedule = 0.3
[beat_schedule.report]
task = "tasks.report"
schedule = "30 7 * * mon-fri"
"""


@pytest.fixture
def file(tmp_path, redis_url, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "beat.toml"
    path.write_text(f'[redis]\nurl = "{redis_url}"\n{ENTRIES}')
    return path


@pytest.fixture
def schedules(redis_url):
    with Schedules(redis_url) as made:
        yield made


@pytest.fixture
def beatd(file):
    """``beatd("list")`` as from the command line: exit code, output, errors."""

    def run(*arguments, **env):
        done = CliRunner().invoke(main, arguments, env=env, prog_name="beatd")
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return done.exit_code, done.stdout, done.stderr

    return run


def test_what_is_added_without_a_daemon_waits_for_one(beatd, schedules):
    code, out, err = beatd("add", "a", "--task", "t", "--schedule", '{ minute = "30" }', "--set", "jitter=5m")
    assert (code, out, err) == (0, "Added a\n", "No daemon is alive: this is in force when one is.\n")
    assert schedules.get("a").table == {"task": "t", "schedule": {"minute": "30"}, "jitter": "5m"}
    assert beatd("add", "a", "--task", "t", "--schedule", "5")[1] == "Changed a\n"
    assert beatd("add", "a", "--task", "t", "--schedule", "5")[1] == "Already there like that: a\n"
    assert "! no daemon is alive" in beatd("list")[1]


def test_an_alive_daemon_makes_no_words(beatd, redis_url):
    with connect(redis_url) as client:
        Registry(client, Keys()).heartbeat(Status(id="d", digest="other"), shards=1)
    assert beatd("add", "a", "--task", "t", "--schedule", "5") == (0, "Added a\n", "")
    assert beatd("list")[1].endswith("! no daemon has the schedule of beat.toml\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--task", "t", "--schedule", "30 25 * * *"], "runtime:a: beat_schedule.a.schedule"),
        (["--task", "t", "--schedule", "5", "--set", "quue=x"], 'unknown setting "quue"; did you mean "queue"?'),
        (["--task", "t"], "schedule is missing"),
        (["--schedule", "5"], "task is missing"),
        (["--task", "t", "--schedule", "5", "--args", "[1"], "--args: not JSON"),
        (["--task", "t", "--schedule", "5", "--kwargs", "[1]"], "--kwargs: expected an object such as"),
        (["--task", "t", "--schedule", "{ minute"], "--schedule: neither TOML nor JSON"),
        (["--task", "t", "--schedule", "5", "--set", "jitter"], "expected KEY=VALUE"),
        ([], "give NAME with --task and --schedule, or --from-file"),
        (["--from-file", "missing.toml"], "missing.toml"),
    ],
)
def test_what_is_wrong_is_refused_in_words(beatd, schedules, arguments, said):
    code, out, err = beatd("add", "a", *arguments)
    assert (code, out) == (2, "")
    assert said in err
    assert schedules.list() == []


def test_what_the_file_has_belongs_to_the_file(beatd, schedules):
    code, _, err = beatd("add", "tick", "--task", "t", "--schedule", "5")
    assert (code, err) == (1, "Error: tick is in beat.toml:4, and that counts: change it there\n")
    code, _, err = beatd("remove", "tick")
    assert (code, err) == (1, "Error: tick is in beat.toml:4, not in the state store: take it out there\n")
    schedules.put("tick", task="t", schedule=1)
    code, out, _ = beatd("remove", "tick")
    assert (code, out) == (0, "Removed tick\nAn entry of that name is in beat.toml:4, and stays in force.\n")


def test_a_name_that_is_not_there_has_near_ones(beatd, schedules):
    schedules.put("nightly", task="t", schedule=1)
    code, _, err = beatd("remove", "nigthly")
    assert (code, err) == (1, 'Error: there is no entry "nigthly" in the state store; did you mean nightly?\n')
    code, _, err = beatd("pause", "tikc")
    assert (code, 'there is no entry "tikc"; did you mean tick?' in err) == (2, True)
    assert beatd("pause", "x*")[0] == 2


def test_entries_of_any_source_are_paused_and_resumed_by_name_and_glob(beatd, schedules):
    schedules.put("nightly", task="t", schedule=1)
    assert beatd("pause", "tick", "night*", "--reason", "x")[:2] == (0, "Paused nightly\nPaused tick\n")
    assert "@" in schedules.paused()["tick"].by
    assert beatd("pause", "tick")[1] == "tick is already paused\n"
    assert json.loads(beatd("resume", "*", "--json")[1]) == {"resumed": ["nightly", "tick"], "unchanged": []}
    assert beatd("resume", "tick")[1] == "tick is not paused\n"
    assert beatd("resume", "*")[1] == "No entry is paused\n"


def test_a_pause_changes_its_end_and_reason_by_name_only(beatd, schedules):
    beatd("pause", "tick", "--for", "1h", "--reason", "x", "--by", "anna")
    first = schedules.paused()["tick"]
    assert beatd("pause", "t*", "--for", "2h")[1] == "tick is already paused\n"
    assert beatd("pause", "tick", "--for", "2h", "--by", "bert")[1] == "Changed the pause of tick\n"
    second = schedules.paused()["tick"]
    assert (second.since_ms, second.reason, second.by) == (first.since_ms, "x", "bert")
    assert second.until_ms > first.until_ms
    assert beatd("pause", "tick", "--until", "never")[1] == "Changed the pause of tick\n"
    assert schedules.paused()["tick"].until_ms is None
    assert beatd("pause", "tick", "--until", "never")[1] == "tick is already paused\n"


def test_changes_are_audited(beatd, schedules):
    beatd("add", "a", "--task", "t", "--schedule", "5")
    beatd("add", "a", "--task", "t", "--schedule", "6")
    beatd("pause", "a", "tick", "--reason", "x")
    schedules.resume("tick")
    beatd("remove", "a")
    changes = json.loads(beatd("audit", "--json")[1])["changes"]
    assert [(one["action"], one["subjects"], one["via"]) for one in changes] == [
        ("remove", ["a"], "command"),
        ("resume", ["tick"], "client"),
        ("pause", ["a", "tick"], "command"),
        ("change", ["a"], "command"),
        ("add", ["a"], "command"),
    ]
    assert all("@" in one["by"] for one in changes)
    assert (changes[3]["before"]["schedule"], changes[3]["after"]["schedule"]) == ("5", "6")
    code, out, _ = beatd("audit", "a", "--action", "change")
    assert (code, "schedule: 5 -> 6" in out) == (0, True)
    assert beatd("audit", "nobody")[1] == "No changes of nobody.\n"


def test_times_in_the_audit_are_on_the_clocks_of_the_files_zone(beatd, tmp_path):
    file = tmp_path / "beat.toml"
    file.write_text(f'timezone = "Asia/Tokyo"\n{file.read_text()}')
    beatd("pause", "tick", "--until", "2030-01-02T00:00:00Z")
    [line] = [line for line in beatd("audit")[1].splitlines() if line.startswith("pause tick")]
    assert "until: 2030-01-02 09:00:00 JST" in line
    assert line.count(" JST") == len(re.findall(r"\d\d:\d\d:\d\d", line)) >= 2


def test_an_entry_that_comes_back_is_still_paused_and_it_is_said(beatd, schedules):
    beatd("add", "a", "--task", "t", "--schedule", "5")
    schedules.pause("a", by="anna")
    assert beatd("remove", "a")[1] == "Removed a\nIts pause (by anna) stays until it is resumed.\n"
    assert beatd("add", "a", "--task", "t", "--schedule", "5")[1] == "Added a, which is paused\n"


def test_entries_come_from_a_file(beatd, schedules, tmp_path):
    (tmp_path / "entries.toml").write_text(
        '[beat_schedule.a]\ntask = "t"\nschedule = "@daily"\nargs = ["${GREETING}"]\n'
        '[beat_schedule.b]\ntask = "t"\nschedule = 5\n'
    )
    code, out, _ = beatd("add", "--from-file", "entries.toml", "--json", GREETING="hi")
    assert (code, json.loads(out)) == (0, {"entries": {"a": "added", "b": "added"}, "paused": [], "warnings": []})
    assert schedules.get("a").table == {"task": "t", "schedule": "@daily", "args": ["hi"]}
    (tmp_path / "entries.toml").write_text('task = "t"\nschedule = "x"\n')
    code, _, err = beatd("add", "c", "--from-file", "entries.toml")
    assert (code, "entries.toml:2:" in err) == (2, True)


def test_commands_work_while_an_entry_of_the_file_is_wrong(beatd, file, schedules):
    file.write_text(file.read_text() + "quue = 1\n")
    schedules.put("nightly", task="t", schedule=1)
    assert beatd("pause", "nightly")[0] == 0
    assert beatd("resume", "nightly")[0] == 0
    code, out, err = beatd("add", "b", "--task", "t", "--schedule", "5")
    assert (code, out) == (0, "Added b\n")
    assert "The files have faults, so that they were not looked at: beat.toml:10" in err
    assert "! no daemon is alive" in beatd("status")[1]
    assert beatd("list")[0] == 2


@pytest.mark.parametrize("command", ["reload", "step-down"])
def test_without_a_daemon_nobody_can_be_asked(beatd, command):
    assert beatd(command) == (1, "", "Error: no daemon is alive\n")


def test_daemons_that_do_not_answer_are_named(beatd, redis_url):
    with connect(redis_url) as client:
        Registry(client, Keys()).heartbeat(Status(id="silent", entries=1), shards=1)
    code, out, _ = beatd("reload", "--timeout", "0.2")
    assert (code, out) == (1, "silent: no answer within 0.2 s\n")


def test_a_daemon_to_step_down_must_lead(beatd, redis_url):
    with connect(redis_url) as client:
        for name in ("abc", "abd"):
            Registry(client, Keys()).heartbeat(Status(id=name, entries=1), shards=1)
        assert beatd("step-down") == (1, "", "Error: nobody leads\n")
        assert beatd("step-down", "--shard", "0") == (1, "", "Error: nobody leads shard 0\n")
        assert beatd("step-down", "--daemon", "abc") == (1, "", "Error: abc leads nothing\n")
        assert 'several daemons have ids that begin with "ab"' in beatd("step-down", "--daemon", "ab")[2]
        client.set("{beatd}:0:lease", "abc:7", px=60_000)
        code, _, err = beatd("step-down", "--timeout", "0.2")
        assert (code, err) == (1, "Error: abc still leads, or nobody does, after 0.2 s; see beatd status\n")


def test_the_list_shows_sources_states_and_what_is_wrong(beatd, schedules):
    schedules.put("nightly", task="t", schedule="@daily", timezone="Asia/Baku")
    schedules.put("report", task="t", schedule=1)
    schedules.pause("nightly", by="anna", reason="x")
    schedules._client.hset("{beatd}:schedules", "junk", "{")
    document = json.loads(beatd("list", "--json")[1])
    assert [(each["name"], each["source"], each["enabled"]) for each in document["entries"]] == [
        ("nightly", "runtime", False),
        ("report", "file", True),
        ("tick", "file", True),
    ]
    assert document["entries"][0]["paused"]["by"] == "anna"
    assert document["overruled"] == [{"name": "report", "counts": "beat.toml:7"}]
    assert "runtime:junk: not a JSON document" in document["faults"][0]
    out = beatd("list")[1]
    assert "! report is also in the state store; the one in beat.toml:7 takes precedence" in out
    assert "! not in force: runtime:junk: not a JSON document" in out
    assert [each["name"] for each in json.loads(beatd("list", "t*", "--json")[1])["entries"]] == ["tick"]
    assert beatd("list", "zzz")[1].startswith("No entries.")


def test_the_status_shows_what_the_store_adds(beatd, schedules):
    schedules.put("nightly", task="t", schedule="@daily")
    for number in range(12):
        schedules.pause(f"e{number:02}", by="anna", reason="x")
    code, out, _ = beatd("status")
    assert code == 1, "no daemon is alive"
    assert "Runtime      1 entry, revision 13" in out
    assert "Paused       e00 since 20" in out
    assert " by anna: x" in out
    assert "and 2 entries more" in out
    document = json.loads(beatd("status", "--json")[1])["runtime"]
    assert (document["revision"], document["entries"], document["pauses"], len(document["paused"])) == (13, 1, 12, 12)


def test_twenty_thousand_entries_are_listed(beatd, redis_url):
    with connect(redis_url) as client:
        tables = {f"n{number}": '{"task": "t", "schedule": "@daily"}' for number in range(20_000)}
        client.hset("{beatd}:schedules", mapping=tables)
        client.hset("{beatd}:revision", mapping={"number": 20_000, "began": 1})
    assert len(beatd("list")[1].splitlines()) == 20_000 + 2 + 2 + 1


def test_the_list_fits_80_columns(file, schedules):
    name = "a-name-of-an-entry-that-is-long-" * 3
    schedules.put(name, task="t", schedule="30 7 * * mon-fri", enabled=False)
    here, there = pty.openpty()
    env = {**os.environ, "COLUMNS": "80", "NO_COLOR": "1"}
    subprocess.run([sys.executable, "-m", "beatd", "list"], stdout=there, env=env, timeout=60, check=True)
    os.close(there)
    lines = os.read(here, 65_536).decode().splitlines()
    assert any("runtime" in line for line in lines)
    assert name in lines, "a name is never folded"
    assert max(len(line) for line in lines if line != name) <= 80
