"""Workers' answers as people see them, and the words of a command line as a command's arguments."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from beatd.cli import main
from beatd.cli.inspect_ import _keywords, failed, print_answers
from beatd.worker.control import COMMANDS

TASK = {
    "id": "an-id",
    "name": "tasks.add",
    "args": [1, 2],
    "kwargs": {"why": "x"},
    "time_start": 1_767_225_600.0,
    "worker_pid": 42,
}
WAITING = TASK | {"time_start": None, "worker_pid": None}


@pytest.mark.parametrize(
    ("command", "answer", "expected"),
    [
        ("ping", {"ok": "pong"}, ["a@h", "pong", "1 worker answered."]),
        ("heartbeat", None, ["a@h", "ok"]),
        ("rate_limit", {"error": "unknown task"}, ["error: unknown task"]),
        ("clock", {"clock": 7}, ["7"]),
        ("memsample", "40.00MB", ["40.00MB"]),
        ("active", [TASK], ["tasks.add", "an-id", "1, 2, why='x'", "42", "since 2026-01-01 00:00:00 UTC"]),
        ("active", [TASK | {"args": "(1, 2)", "kwargs": "{}"}], ["(1, 2) {}"]),  # as older Celery sends them
        ("reserved", [WAITING], ["tasks.add", "waiting"]),
        ("reserved", [], ["none"]),
        ("scheduled", [{"eta": "2026-01-01T00:00:00+00:00", "priority": 6, "request": WAITING}], ["2026-01-01T00:00"]),
        ("query_task", {"an-id": ["reserved", WAITING]}, ["an-id", "reserved"]),
        ("registered", ["tasks.add", "tasks.mul [rate_limit=5/s]"], ["  tasks.mul [rate_limit=5/s]"]),
        ("active_queues", [{"name": "q", "exchange": {"name": "e"}, "routing_key": "k"}], ["q", "e", "k"]),
        ("stats", {"pid": 1, "pool": {"processes": [2, 3]}}, ["pid: 1", "pool.processes: [2, 3]"]),
        ("report", {"ok": "one\ntwo\n"}, ["one\ntwo"]),
        ("memdump", "- rss\n- end\n", ["- rss\n- end"]),
        ("revoked", ["a", "b"], ["  a\n  b"]),
    ],
)
def test_answers_are_shown(command, answer, expected, capsys):
    print_answers(command, {"a@h": answer})
    shown = capsys.readouterr().out
    assert [part for part in expected if part not in shown] == []


def test_only_errors_are_failures():
    assert failed({"error": "x"})
    assert not any(map(failed, ({"ok": "x"}, None, [], {"error": "x", "ok": "y"}, "error")))


@pytest.mark.parametrize(
    ("command", "words", "keywords"),
    [
        ("revoke", "a b", {"task_id": ["a", "b"]}),
        ("terminate", "KILL a b", {"signal": "KILL", "task_id": ["a", "b"]}),
        ("time_limit", "tasks.add 5 10", {"task_name": "tasks.add", "soft": 5.0, "hard": 10.0}),
        ("pool_grow", "", {}),
        ("pool_grow", "3", {"n": 3}),
        ("conf", "true", {"with_defaults": True}),
        ("registered", "", {"taskinfoitems": []}),
    ],
)
def test_words_become_arguments(command, words, keywords):
    assert _keywords(COMMANDS[command], words.split()) == keywords


@pytest.mark.parametrize(
    ("command", "words", "text"),
    [("pool_grow", "many", "pool_grow: n: "), ("ping", "x", "ping takes no arguments, not also x")],
)
def test_words_that_fit_nothing_are_refused(command, words, text):
    with pytest.raises(click.UsageError, match=text):
        _keywords(COMMANDS[command], words.split())


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("inspect pong -b redis://x", 'did you mean "ping"?'),
        ("inspect shutdown -b redis://x", 'a command of "beatd control"'),
        ("control ping -b redis://x", 'a command of "beatd inspect"'),
        ("inspect ping --config nowhere.toml", "nowhere.toml"),
    ],
)
def test_a_wrong_line_is_answered_in_words(line, text):
    done = CliRunner().invoke(main, line.split())
    assert (done.exit_code, text in done.output) == (2, True), done.output


def test_the_commands_are_listed():
    done = CliRunner().invoke(main, ["control", "--list"])
    assert done.exit_code == 0
    assert {each.name for each in COMMANDS.values() if each.kind == "control" and each.visible} <= set(
        done.output.split()
    )
