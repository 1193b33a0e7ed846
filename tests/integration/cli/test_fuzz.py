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
from beatd.cli.output import Duration

PINNED = {
    "run": ["--config=/nonexistent/x"],
    "dev": ["--config=/nonexistent/x"],
    "web": ["--config=/nonexistent/x"],
    "worker": ["--app=nonexistent_app"],
    "service install": ["--to=units"],
    "service uninstall": ["--to=units"],
}
"""Words at the end that keep commands from going on, or changing the host, when their values happen to be right."""
LONG = {("tutorial", "yes")}
"""Options that do all of it: the tutorial takes a minute, and has a test of its own."""
SPAWNS = {"multi start", "multi restart"}
"""Commands that leave processes behind."""

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
    """Every command, and every subcommand of a group: ``dead-letters requeue``."""
    context = click.Context(main)
    return [words for name in main.list_commands(context) for words in leaves(name) if words not in SPAWNS]


def leaves(name: str) -> list[str]:
    command = main.get_command(click.Context(main), name)
    if isinstance(command, click.Group):
        return [f"{name} {inside}" for inside in command.list_commands(click.Context(command))]
    return [name]


def find(words: str) -> click.Command:
    command: click.Command | None = main
    for word in words.split():
        assert isinstance(command, click.Group)
        command = command.get_command(click.Context(command), word)
    assert command is not None
    return command


def arguments(command: click.Command, dice: random.Random) -> list[str]:
    """Some of the command's options and arguments, with strange values."""
    words = []
    for parameter in command.params:
        if dice.random() < 0.6 or (command.name, parameter.name) in LONG:
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
    command = find(name)
    for _ in range(count):
        words = [*name.split(), *arguments(command, dice), *PINNED.get(name, [])]
        done = CliRunner().invoke(main, words)
        assert done.exit_code in {0, 1, 2}, (words, done.output)
        assert "internal error" not in done.output, (words, done.output)
        assert "Traceback" not in done.output, (words, done.output)
        assert done.exception is None or isinstance(done.exception, SystemExit), (words, done.exception)


def test_every_command_is_tried() -> None:
    context = click.Context(main)
    assert {words.split()[0] for words in commands()} == set(main.list_commands(context))


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


MOMENTS = ["", "x", "9999-12-31", "0001-01-01", "2026-02-30", "+9999999d", "-9999999d", "9" * 5000, "1M", "\x1b[31m"]
NUMBERS = ["", "0", "-1", "x", "nan", "1e308", "9" * 5000, "1.5"]
SCHEDULES = ["", " ", "x", "-1", "nan", "9" * 5000, "1M", "{", "{ at = 9999-12-31T23:59:59 }", "* * * *", "61 * * * *"]
TABLES = ["{", "x", "[" * 2000, '{"a": NaN}', "[1]", "null", '{"a": ' + "9" * 5000 + "}"]

WRONG = [
    *(["next", "a", f"--from={value}"] for value in MOMENTS if value),
    *(["next", "a", "-n", value] for value in NUMBERS),
    *(["simulate", f"--from={value}", "--to", "+1h"] for value in MOMENTS if value),
    *(["simulate", "--from", "now", f"--to={value}"] for value in MOMENTS),
    ["simulate", "--from", "9998-12-31", "--to", "+2d"],
    *(["backfill", "a", f"--from={value}", "--to", "now"] for value in MOMENTS),
    *(["backfill", "a", "--from=-1d", f"--to={value}"] for value in MOMENTS),
    *(["add", "n", "--task", "t", f"--schedule={value}"] for value in SCHEDULES),
    *(["add", "n", "--task", "t", "--schedule", "60", f"--kwargs={value}"] for value in TABLES),
    *(["add", "n", "--task", value, "--schedule", "60"] for value in ("", " ", "a\nb", "\x1b[31m")),
    *(["add", value, "--task", "t", "--schedule", "60"] for value in ("", " ", "a\nb", "x" * 300)),
    *(["add", "n", "--task", "t", "--schedule", "60", f"--timezone={value}"] for value in ("", "x", "local", "../UTC")),
    *(["trigger", "a", f"--args={value}"] for value in ("[" * 5000, "{", "x", "[NaN]", '{"a": 1}')),
    *(["history", "a", "-n", value] for value in NUMBERS),
    *(["trigger", "a", f"--wait={value}"] for value in ("x", "-1", "nan", "1M", "9" * 5000)),
    *(["reload", f"--timeout={value}"] for value in ("", "x", "0", "2m", "nan")),
    *(["step-down", f"--timeout={value}"] for value in ("x", "1h", "-1s")),
    ["step-down", "--for", "x"],
    ["inspect", "ping", "--timeout", "x"],
    ["worker", "--grace", "x"],
    ["multi", "stopwait", "n1", "--timeout", "x"],
    ["next", "a", "--config", "/"],
]


@pytest.mark.parametrize(
    ("text", "seconds"), [("2m", 120), ("1h30m", 5400), ("90", 90), ("0.5", 0.5), ("PT1M", 60), ("500ms", 0.5), (3, 3)]
)
def test_options_take_every_notation_of_a_duration(text: str | int, seconds: float) -> None:
    assert Duration().convert(text, None, None) == seconds


@pytest.fixture
def reachable(folder: Path, redis_url: str) -> None:
    """The file names a store that answers, so that only the values can be wrong."""
    (folder / "beat.toml").write_text(FILE.replace("redis://127.0.0.1:1/0", redis_url).replace("50ms", "5s"))


@pytest.mark.parametrize("words", WRONG, ids=lambda words: " ".join(words)[:60].encode("unicode_escape").decode())
@pytest.mark.usefixtures("reachable")
def test_wrong_values_exit_with_2(words: list[str]) -> None:
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 2, (done.exit_code, done.output)
    assert done.output.strip()
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
