"""Strange values for every option and argument of every command: an answer in words, never a traceback."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from beatd.cli import main

SERVES = {"run", "worker", "dev", "web", "multi", "service"}
"""Commands that go on, or change the host, when their values happen to be right."""

VALUES = [
    *(
        "",
        " ",
        "x",
        "0",
        "-1",
        "9" * 5000,
        "1e308",
        "nan",
        "inf",
        "-inf",
        "a\nb",
        "\x1b[31m",
        "\ud800",
        "é" * 300,
        "--",
    ),
    *("/", ".", "/dev/null", "/nonexistent/x", "a" * 300, "9999-12-31", "0001-01-01", "+9999999d", "-9999999d", "now"),
    *(
        "1M",
        "2026-02-30",
        "{",
        "[" * 2000,
        '{"a": NaN}',
        "[" + "9" * 5000 + "]",
        "null",
        "{ at = 9999-12-31T23:59:59 }",
    ),
    *("redis://", "redis://h/abc", "http://[::1", "amqp://h:99999", "embedded", "UTC", "a=b", "a=" + "9" * 5000, "=x"),
]
FILE = """
[redis]
url = "redis://127.0.0.1:1/0"
timeout = "50ms"
[beat_schedule.a]
task = "t"
schedule = 3600
"""


def commands() -> list[str]:
    return [name for name in main.list_commands(click.Context(main)) if name not in SERVES]


def arguments(command: click.Command, dice: random.Random) -> list[str]:
    """Some of the command's options and arguments, with strange values."""
    words = []
    for parameter in command.params:
        if dice.random() < 0.6:
            continue
        value = dice.choice(VALUES)
        if isinstance(parameter, click.Argument):
            words.append(dice.choice([value, "a"]))
        elif parameter.name == "file" or parameter.name in {"svg_file", "output"}:
            words += [parameter.opts[0], "/nonexistent/x"]
        else:
            words += [parameter.opts[0]] if getattr(parameter, "is_flag", False) else [f"{parameter.opts[-1]}={value}"]
    return words


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "beat.toml").write_text(FILE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BEATD_CONFIG", raising=False)
    return tmp_path


def check(name: str, seed: str, count: int) -> None:
    dice = random.Random(f"{seed} {name}")
    command = main.get_command(click.Context(main), name)
    assert command is not None
    while isinstance(command, click.Group):
        command = next(iter(command.commands.values()))
    for _ in range(count):
        words = [name, *arguments(command, dice)]
        done = CliRunner().invoke(main, words)
        assert done.exit_code in {0, 1, 2}, (words, done.output)
        assert "internal error" not in done.output, (words, done.output)
        assert "Traceback" not in done.output, (words, done.output)
        assert done.exception is None or isinstance(done.exception, SystemExit), (words, done.exception)


@pytest.mark.parametrize("name", commands())
@pytest.mark.usefixtures("folder")
def test_strange_arguments(name: str) -> None:
    check(name, "quick", 6)


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", commands())
@pytest.mark.usefixtures("folder")
def test_many_strange_arguments(name: str) -> None:
    check(name, "long", 500)


@pytest.mark.parametrize(
    "words",
    [
        ["next", "a", "--from", "9999-12-31"],
        ["next", "a", "--from=-9999999d"],
        ["simulate", "--from", "9998-12-31", "--to", "+2d"],
        ["next", "a", "--config", "/"],
        ["add", "n", "--task", "t", "--schedule", "{ at = " + "9" * 5000 + " }"],
        ["backfill", "a", "--from", "9999-12-31"],
        ["trigger", "a", "--args", "[" * 5000],
    ],
)
@pytest.mark.usefixtures("folder")
def test_wrong_values_exit_with_2(words: list[str]) -> None:
    done = CliRunner().invoke(main, words)
    assert done.exit_code in ({2} if words[0] not in {"add", "backfill"} else {1, 2}), done.output
    assert "internal error" not in done.output


def run(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """A command line of a shell, where ``beatd`` is this interpreter's."""
    script = f'beatd() {{ "{sys.executable}" -m beatd "$@"; }}; {script}'
    return subprocess.run(
        ["/bin/bash", "-c", script], cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize(
    ("script", "code", "said"),
    [
        ("beatd next a > /dev/full", 1, "the output cannot be written: No space left on device"),
        ("beatd next -n 50000 a | head -1 > /dev/null; exit ${PIPESTATUS[0]}", 1, ""),
        ("beatd next nope 2>&-", 2, ""),
        ("beatd next a >&-", 0, ""),
        ("beatd check $'\\xff\\xfe'", 2, "no such file"),
        ("mkfifo p; beatd check p", 2, "is not a regular file"),
        ("env -u HOME setpriv --reuid=12345 --clear-groups true || exit 2; beatd next a --from 9999-12-31", 2, "9998"),
    ],
)
def test_streams_and_files_that_are_odd(script: str, code: int, said: str, folder: Path) -> None:
    done = run(script, folder)
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
