"""Options of Celery's commands that unit files and scripts have: put into effect, or named as being without effect."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click

from beatd.cli.global_options import unbundled
from beatd.cli.multi_processes import start_process
from beatd.cli.output import print_line

_LEVELS = {"warn": "warning", "fatal": "critical"}


class Idle(NamedTuple):
    """An option that is accepted and has no effect. Without ``metavar`` it is a flag."""

    spellings: tuple[str, ...]
    metavar: str | None
    reason: str

    @property
    def name(self) -> str:
        """The parameter's name."""
        return f"idle_{self.spellings[0].lstrip('-').replace('-', '_')}"


_USER = "start it as that user; for systemd: User= and Group="
_EXECUTABLE = Idle(("--executable",), "PATH", "it runs in the Python that has started it")
BEAT_IDLE = (
    Idle(("--enable-remote-control",), None, "the daemon answers to beatd status and beatd healthcheck"),
    Idle(("--no-enable-remote-control",), None, "the daemon answers to beatd status and beatd healthcheck"),
    Idle(("--hostname", "-n"), "NAME", "the daemon answers to beatd status and beatd healthcheck"),
    _EXECUTABLE,
    Idle(("--schedule", "-s"), "FILE", "the last runs are in the state store"),
    Idle(("--scheduler", "-S"), "CLASS", "beatd is the scheduler; beatd import converts schedules of others"),
    Idle(("--max-interval",), "SECONDS", "the daemon sleeps until the next run, and changes wake it"),
)
EVENTS_IDLE = (_EXECUTABLE,)
WORKER_IDLE = (
    Idle(("--disable-prefetch",), None, "a worker takes what it can run at once"),
    Idle(("--pool-start-method",), "NAME", "processes are forked"),
    _EXECUTABLE,
    Idle(("--optimization", "-O"), "NAME", "a process gets a task only when it is free, as with fair"),
    Idle(("--prefetch-multiplier",), "N", "the worker takes what it can run at once"),
    Idle(("--statedb", "-S"), "FILE", "revoked tasks are in the state store"),
    Idle(("--schedule-filename", "--schedule", "-s"), "FILE", "the last runs are in the state store"),
    Idle(("--scheduler",), "CLASS", "beatd is the scheduler"),
    Idle(("--without-gossip",), None, "beatd's workers do not gossip"),
    Idle(("--without-mingle",), None, "no start waits for it"),
    Idle(("--without-heartbeat",), None, "the heartbeat gives back the messages of a worker that has died"),
    Idle(("--heartbeat-interval",), "SECONDS", "it is fixed"),
)
_REFUSED = ("--uid", "--gid")


def idle_options(idle: Sequence[Idle]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add options without effect to a command; those given are named on standard error, each in a sentence."""

    def add(function: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(function)
        def run(*args: Any, **options: Any) -> None:
            for each in idle:
                if options.pop(each.name):
                    print_line(f"{each.spellings[0]} has no effect: {each.reason}.", err=True)
            for refused in _REFUSED:
                if options.pop(refused.strip("-")):
                    raise click.UsageError(f"{refused} is not supported: {_USER}")
            umask = options.pop("umask")
            if umask is not None:
                os.umask(_octal(umask))
            function(*args, **options)

        for each in reversed(idle):
            flag: Any = {"metavar": each.metavar} if each.metavar else {"is_flag": True}
            run = click.option(*each.spellings, each.name, help=f"No effect: {each.reason}.", **flag)(run)
        for refused in _REFUSED:
            run = click.option(refused, metavar="NAME", help=f"Not supported: {_USER}.")(run)
        return click.option("--umask", metavar="OCTAL", help="File mode mask, such as 022.")(run)

    return add


def _octal(text: str) -> int:
    try:
        mask = int(text, 8)
    except ValueError:
        mask = -1
    if not 0 <= mask <= 0o777:
        raise click.BadParameter(f"{text!r}: expected an octal number such as 022", param_hint="--umask")
    return mask


class Level(click.ParamType):  # type: ignore[type-arg]
    """A log level in any case, with Celery's names for some of them; those above ``error`` count as it."""

    name = "level"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return one of beatd's levels."""
        level = _LEVELS.get(str(value).lower(), str(value).lower())
        if level == "critical":
            return "error"
        if level not in {"debug", "info", "warning", "error"}:
            self.fail(f"{value!r}: expected debug, info, warning or error", param, ctx)
        return level


def detach(command: str, pidfile: str | None, logfile: str | None) -> None:
    """Start the same command line again in the background, and print its process id when it has its pid file.

    Raises ConfigError with what it had to say if it ended.
    """
    pid_path, log_path = pidfile or f"beatd-{command}.pid", logfile or f"beatd-{command}.log"
    words = foreground_words(sys.argv[1:], click.get_current_context().command)
    files = [f"--pidfile={pid_path}", f"--logfile={log_path}"]
    pid = start_process(
        f"beatd {command}", [sys.executable, "-m", "beatd", *words, *files], str(Path.cwd()), pid_path, log_path
    )
    print_line(f"Started with process id {pid}; log: {log_path}, pid file: {pid_path}")


def foreground_words(words: Iterable[str], command: click.Command) -> list[str]:
    """Return the words of a command line without the options that :func:`detach` carries out or sets itself."""
    own = ("--workdir", "--pidfile", "--logfile", "-f")
    return list(_without(unbundled(words, command), ("--detach", "-D"), own))


def _without(words: Iterable[str], flags: Sequence[str], options: Sequence[str]) -> Iterator[str]:
    """Yield words of a command line without some flags and options with their values; they are unbundled."""
    left = iter(words)
    for word in left:
        if word in options:
            next(left, None)
        elif word not in flags and word.partition("=")[0] not in options and word[:2] not in options:
            yield word
