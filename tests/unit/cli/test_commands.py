"""The group of commands: options before and after the command, groups of the help, questions before what is wide."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from beatd.cli import COMMANDS, GROUPS, main

HELP = """\
Usage: beatd [OPTIONS] COMMAND [ARGS]...

  A highly available cron for task queues.

  "beatd --config FILE" is the same as "beatd run --config FILE". --config,
  --app, --json and --no-color may be given before or after the command, and so
  may these:

    -b, --broker URL; --result-backend URL   in place of those of an app
    --workdir FOLDER                         change to FOLDER first
    -C, --no-color; -q, --quiet              no colors; no banner and counts

Options:
  --version   Show the version.
  -h, --help  Show this message and exit.

Run:
  run      Run the daemon.
"""


def test_the_help_is_grouped_and_complete() -> None:
    text = CliRunner().invoke(main, ["--help"], prog_name="beatd", terminal_width=80).output
    assert text.startswith(HELP)
    assert [line for line in text.splitlines() if line.rstrip(":") in GROUPS] == [f"{group}:" for group in GROUPS]
    assert sorted(name for group in GROUPS.values() for name in group) == sorted(COMMANDS)


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (["--json", "next", "-n", "1"], ["next", "--json", "-n", "1"]),
        (["--config", "f", "--json", "status"], ["status", "--config", "f", "--json"]),
        (["--config=f", "why", "a", "now"], ["why", "--config=f", "a", "now"]),
        (["-A", "m:app", "worker", "-c", "4"], ["worker", "-A", "m:app", "-c", "4"]),
        (["--json", "dead-letters", "list"], ["dead-letters", "list", "--json"]),
        (["--config", "status"], ["run", "--config", "status"]),
        (["-c", "f", "--strict"], ["run", "--config", "f", "--strict"]),
        (["next", "--json"], ["next", "--json"]),
    ],
)
def test_common_options_before_the_command(
    written: list[str], read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = list[list[str]]()
    monkeypatch.setattr(click.Group, "parse_args", lambda self, ctx, args: seen.append(args) or [])
    main.parse_args(click.Context(main, **main.context_settings), written)
    assert seen == [read]


@pytest.mark.parametrize("arguments", [["--no-color", "schema"], ["schema", "--no-color"]])
def test_no_color_before_and_after(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "")
    seen = list[list[str]]()
    monkeypatch.setattr(click.Group, "parse_args", lambda self, ctx, args: seen.append(args) or [])
    main.parse_args(click.Context(main, **main.context_settings), arguments)
    import os

    assert (seen, os.environ["NO_COLOR"]) == ([["schema"]], "1")


@pytest.mark.parametrize("arguments", [["pause", "*"], ["control", "shutdown"], ["dead-letters", "purge", "--all"]])
def test_what_is_wide_needs_a_yes(arguments: list[str]) -> None:
    result = CliRunner().invoke(main, arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "confirm it with --yes" in result.stderr
