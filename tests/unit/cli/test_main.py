"""The group: lazy commands, the daemon as the default, errors in words."""

from __future__ import annotations

import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

import beatd
from beatd.cli import COMMANDS, Commands, main
from beatd.exceptions import ConfigError, Fault, ScheduleError, StoreUnavailable


class OneCommand(Commands):
    """The group with one command instead of all."""

    def __init__(self, command: click.Command) -> None:
        super().__init__()
        self._command = command

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [str(self._command.name)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return self._command if cmd_name == self._command.name else None


def test_the_version_imports_no_command() -> None:
    program = (
        "import sys\nfrom beatd.cli import main\ntry: main(['--version'])\nexcept SystemExit: pass\nprint(*sys.modules)"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    version, modules = said.splitlines()
    assert version == f"beatd {beatd.__version__}"
    heavy = {"beatd.cli.check", "beatd.cli.run", "redis", "kombu", "rich", "msgspec", "rtoml"}
    assert heavy.isdisjoint(modules.split())


def test_the_daemon_imports_nothing_that_draws_tables() -> None:
    program = (
        "import click, gc, sys\nfrom beatd.cli import main\nmain.get_command(click.Context(main), 'run')\n"
        "assert gc.isenabled()\nprint(*sys.modules)"
    )
    modules = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert "redis" in modules.split()
    assert "rich" not in modules.split()


def test_help_lists_every_command_with_its_line() -> None:
    result = CliRunner().invoke(main, ["-h"])
    assert result.exit_code == 0
    assert COMMANDS["check"].summary in result.output
    assert COMMANDS["next"].summary in result.output


@pytest.mark.parametrize("name", main.list_commands(click.Context(main)))
def test_every_command_has_help(name: str) -> None:
    result = CliRunner().invoke(main, [name, "--help"])
    assert result.exit_code == 0, result.output
    assert result.output.startswith(f"Usage: main {name} ")


@pytest.mark.parametrize("arguments", [["--config", "x.toml"], ["-c", "x.toml"], ["--config=x.toml"]])
def test_options_alone_mean_run(arguments: list[str]) -> None:
    seen = []

    @click.command()
    @click.option("--config", "-c")
    def run(config: str) -> None:
        seen.append(config)

    assert CliRunner().invoke(OneCommand(run), arguments).exit_code == 0
    assert seen == ["x.toml"]


def test_an_unknown_command_names_the_near_one() -> None:
    result = CliRunner().invoke(main, ["chekc"])
    assert result.exit_code == 2
    assert 'no command "chekc"; did you mean "check"?' in result.output


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (ConfigError([Fault("f", 1, "a", "x"), Fault("f", None, "", "y")]), 2, "f:1: a: x\nf: y\n"),
        (ScheduleError("not a duration"), 2, "not a duration\n"),
        (StoreUnavailable("state store h:1/0: refused"), 1, "Error: state store h:1/0: refused\n"),
    ],
)
def test_errors_are_said_in_words(error: Exception, code: int, said: str) -> None:
    @click.command()
    def broken() -> None:
        raise error

    result = CliRunner().invoke(OneCommand(broken), ["broken"])
    assert (result.exit_code, result.stderr, result.stdout) == (code, said, "")


def test_an_unexpected_error_shows_no_secret_and_controls_no_terminal() -> None:
    @click.command()
    def check() -> None:
        raise RuntimeError("redis://:SECRET@host/0 \x1b[2J password=SECRET")

    result = CliRunner().invoke(OneCommand(check), ["check"])
    assert result.exit_code == 1
    assert "internal error: RuntimeError" in result.stderr
    assert "SECRET" not in result.stderr
    assert "\x1b" not in result.stderr


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["healthcheck", "--metrics-listen", "a..b:1"], 1, "nobody answers at http://a..b:1/healthz"),
        (["web", "--port", "0", "--allow-host", "http://x"], 2, "'http://x' is no name of a host"),
        (["web", "--port", "0", "--allow-host", "::1"], 2, "'::1' is no name of a host"),
        (["call", "t", "-b", "redis://127.0.0.1:1", "--expires", "nan"], 1, "expires=nan is not a valid time"),
        (["call", "t", "-b", "redis://127.0.0.1:1", "--expires", "1e300"], 1, "expires=1e+300 is not a valid time"),
        (["call", "t", "-b", "redis://127.0.0.1:1", "--eta", "0001-01-01"], 2, "expected a time such as"),
    ],
)
def test_values_that_nothing_can_be_are_errors_in_words(words: list[str], code: int, told: str) -> None:
    result = CliRunner().invoke(main, words, env={"TZ": "Asia/Tokyo"})
    assert (result.exit_code, "internal error" in result.stderr) == (code, False), result.stderr
    assert told in " ".join(result.stderr.split())
