"""Arguments of built-in tasks: by name and type, without importing the worker."""

import inspect

import pytest

from beatd.config import entry
from beatd.planning.builtin_tasks import BUILTIN_TASKS, builtin_faults
from beatd.worker.builtin.command import command
from beatd.worker.builtin.http import http


@pytest.mark.parametrize(("name", "function"), [("beatd.command", command), ("beatd.http", http)])
def test_the_parameters_are_those_of_the_task(name, function):
    ours, real = (
        [(one.name, one.kind, one.default is one.empty) for one in signature.parameters.values()]
        for signature in (BUILTIN_TASKS[name].signature, inspect.signature(function))
    )
    assert ours == real


@pytest.mark.parametrize(
    ("task", "fields", "expected"),
    [
        ("command", {"args": ["rsync", "-a"], "kwargs": {"timeout": 5, "env": {"A": 1}, "expect": [0, 1]}}, []),
        ("command", {"args": [["ls", "-l"]], "kwargs": {"inherit_env": ["PATH"], "shell": False}}, []),
        ("command", {}, ["args: the program is missing"]),
        (
            "command",
            {"args": [5]},
            ["args: argv of beatd.command: expected a string or a list of strings, got a number"],
        ),
        ("command", {"args": ["ls"], "kwargs": {"timout": 5}}, ['has no argument "timout"; did you mean "timeout"?']),
        ("command", {"args": ["ls"], "kwargs": {"timeout": "5s"}}, ["timeout of beatd.command: expected a number"]),
        ("command", {"args": ["ls"], "kwargs": {"shell": 1}}, ["shell of beatd.command: expected a boolean"]),
        ("http", {"args": ["https://h/"], "kwargs": {"json": {"a": [1]}, "retries": 3, "redirects": 2}}, []),
        ("http", {"kwargs": {"url": "https://h/"}}, []),
        ("http", {}, ["url is missing"]),
        ("http", {"args": ["https://h/", "GET", 1]}, ["too many positional arguments"]),
        (
            "http",
            {"args": ["https://h/"], "kwargs": {"headers": "token"}},
            ["headers of beatd.http: expected a table of"],
        ),
        ("htp", {}, ['there is no built-in task "beatd.htp"; did you mean "beatd.http"?']),
    ],
)
def test_wrong_arguments_are_named(task, fields, expected):
    made = entry("a", {"task": f"beatd.{task}", "schedule": 60, **fields}, source="beat.toml:3")
    found = [str(fault) for fault in builtin_faults([made])]
    assert len(found) == len(expected)
    for text, part in zip(found, expected, strict=True):
        assert text.startswith("beat.toml:3: beat_schedule.a."), text
        assert part in text
        assert "token" not in text or "timout" in text
