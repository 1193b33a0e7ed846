"""Errors with ``--json``: a document on standard output, the same text on standard error, the same exit code."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from beatd.cli import Commands, main
from beatd.cli.errors import add_to_error
from beatd.cli.output import print_json
from beatd.exceptions import StoreUnavailable

AWAY = "redis://127.0.0.1:1/0"
GOOD = f'[redis]\nurl = "{AWAY}"\n[broker]\nurl = "{AWAY}"\n[beat_schedule.entry]\ntask = "t"\nschedule = "1h"\n'
BAD = "[redis]\nurl = 6379\n"
ARGUMENTS = {
    ("add",): ["entry", "--task", "t", "--schedule", "1h"],
    ("backfill",): ["entry", "--from", "2026-01-01", "--to", "2026-01-02"],
    ("compare",): ["nothing.there"],
    ("control",): ["pool_restart", "-b", AWAY],
    ("events",): ["-b", AWAY],
    ("explain",): ["never ever"],
    ("inspect",): ["ping", "-b", AWAY],
    ("notify", "test"): ["nobody"],
    ("pause",): ["entry"],
    ("result",): ["an-id", "-b", AWAY],
    ("simulate",): ["--from", "2026-01-01"],
    ("resume",): ["entry"],
    ("trigger",): ["entry"],
    ("why",): ["entry", "now"],
}
"""Arguments with which a command is right; the others take a name for each argument."""
ANSWERS = {("doctor",), ("service", "status")}
"""Commands whose answer is what is wrong here."""


def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        elif "--json" in options(command):
            yield (*path, name), command


def options(command: click.Command) -> set[str]:
    return {option for parameter in command.params for option in parameter.opts}


WITH_JSON = dict(commands(main))
WITH_FILE = [path for path, each in WITH_JSON.items() if "--config" in options(each) and path not in ANSWERS]


def words(path: tuple[str, ...]) -> list[str]:
    needed = sum(isinstance(each, click.Argument) and each.required for each in WITH_JSON[path].params)
    return [*path, *ARGUMENTS.get(path, ["entry"] * needed)]


def run(*given: str) -> Result:
    return CliRunner().invoke(main, list(given), env={"BEATD_CONFIG": None})


def told(result: Result) -> dict[str, Any]:
    """The document of a command that failed."""
    assert result.exit_code, result.stdout
    document = json.loads(result.stdout)
    assert document["exit_code"] == result.exit_code
    assert " ".join(document["error"].split()) in " ".join(result.stderr.split())
    return document


def test_all_commands_are_found() -> None:
    assert {("list",), ("status",), ("dead-letters", "list"), ("inspect",), ("events",)} <= set(WITH_JSON)


@pytest.mark.parametrize("path", WITH_JSON, ids=" ".join)
def test_wrong_use(path: tuple[str, ...]) -> None:
    for given in ([*words(path), "--nonsense", "--json"], ["--json", *words(path), "--nonsense"]):
        result = run(*given)
        assert (result.exit_code, "--nonsense" in told(result)["error"]) == (2, True)


@pytest.mark.parametrize("path", WITH_FILE, ids=" ".join)
def test_a_file_that_cannot_be_used(path: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("bad.toml").write_text(BAD)
    given = [word for word in words(path) if word not in ("-b", AWAY)]
    for config in ("bad.toml", "none.toml"):
        result = run(*given, "--json", "--config", config)
        assert result.exit_code == 2, result.output
        assert told(result)["faults"], result.output


@pytest.mark.parametrize("path", WITH_JSON, ids=" ".join)
def test_servers_that_are_away(path: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("beat.toml").write_text(GOOD)
    result = run(*words(path), "--json")
    if result.exit_code and path not in ANSWERS:
        told(result)
    else:
        json.loads(result.stdout)


@pytest.mark.parametrize("given", [["status", "-j"], ["inspect", "ping", "-jt", "x"], ["lisst", "--json"]])
def test_what_asks_for_json(given: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    told(run(*given, "--nonsense"))


def test_there_is_one_document() -> None:
    @click.command()
    @click.option("--json", "as_json", is_flag=True)
    def late(as_json: bool) -> None:
        print_json({"done": as_json})
        raise StoreUnavailable("state store h:1/0: refused")

    group = Commands(commands={"late": late})
    group.list_commands, group.get_command = lambda _: ["late"], lambda *_: late  # type: ignore[method-assign]
    done = CliRunner().invoke(group, ["late", "--json"])
    assert (done.exit_code, json.loads(done.stdout), "refused" in done.stderr) == (1, {"done": True}, True)


def test_ctrl_c_leaves_a_document_that_says_what_was_done() -> None:
    @click.command()
    @click.option("--json", "as_json", is_flag=True)
    def long(as_json: bool) -> None:
        add_to_error({"done": 3})
        raise KeyboardInterrupt

    group = Commands(commands={"long": long})
    group.list_commands, group.get_command = lambda _: ["long"], lambda *_: long  # type: ignore[method-assign]
    done = CliRunner().invoke(group, ["long", "--json"])
    assert json.loads(done.stdout) == {"error": "aborted", "exit_code": 1, "done": 3}
    assert (done.exit_code, done.stderr.split()) == (1, ["Aborted!"])
    assert CliRunner().invoke(group, ["long"]).stdout == ""


def test_without_json_standard_output_stays_empty() -> None:
    assert run("list", "--nonsense").stdout == run("list", "--nonsense", "--", "--json").stdout == ""
