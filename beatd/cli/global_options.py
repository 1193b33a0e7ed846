"""Global options: those that may stand before or after any command, as in Celery's command line.

An option that the command declares is handed to it. Others say where the command finds things: they become environment
variables, or the working directory, for as long as the command runs.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice

import click

FLAGS = ("--json", "--no-color", "-C", "--quiet", "-q", "--skip-checks")
VALUES = ("--config", "-c", "--app", "-A", "--broker", "-b", "--result-backend", "--workdir", "--loader")
_VARIABLES = {
    "--app": "BEATD_APP",
    "-A": "BEATD_APP",
    "--broker": "BEATD_BROKER_URL",
    "-b": "BEATD_BROKER_URL",
    "--result-backend": "BEATD_RESULT_BACKEND",
}
_SWITCHES = {
    "--no-color": "NO_COLOR",
    "-C": "NO_COLOR",
    "--quiet": "BEATD_QUIET",
    "-q": "BEATD_QUIET",
    "--skip-checks": "SKIP_CHECKS",
}
_URLS = ("--broker", "-b", "--result-backend")
"""Options whose values may hold passwords."""
_OWN_WORDS = ("multi", "service")
"""Commands whose options are those of the programs that they start."""


def is_quiet() -> bool:
    """True if ``--quiet`` asks for the answer alone."""
    return bool(os.environ.get("BEATD_QUIET"))


class GlobalOptions:
    """The global options of one command line, for the time that ``ctx`` lasts."""

    def __init__(
        self,
        ctx: click.Context,
        find: Callable[[str], click.Command | None],
        aliases: Mapping[str, str] | None = None,
    ) -> None:
        self._ctx = ctx
        self._find = find
        self._aliases = aliases or {}

    def applied(self, args: Sequence[str], default: str) -> list[str]:
        """The command line that is left: the command, then its own options. Without a command it is ``default``'s."""
        moved, rest = _leading(list(args))
        if not rest and moved:
            rest = [default]
        if not rest or rest[0].startswith("-"):
            return [*moved, *rest]
        rest[0] = self._aliases.get(rest[0], rest[0])
        command = self._find(rest[0])
        if with_subcommand := getattr(command, "with_subcommand", None):
            rest[1:] = with_subcommand(rest[1:])
        behind = 1
        if isinstance(command, click.Group) and rest[1:] and not rest[1].startswith("-"):
            command, behind = command.commands.get(rest[1]), 2
        if command is None:
            return [*rest[:behind], *moved, *rest[behind:]]
        words = [*moved, *([] if rest[0] in _OWN_WORDS else rest[behind:])]
        own = {option for each in command.params for option in each.opts}
        words = self._without_global(list(unbundled(words, command)), own)
        return [*rest[:behind], *words, *(rest[behind:] if rest[0] in _OWN_WORDS else [])]

    def _without_global(self, words: Sequence[str], own: set[str]) -> list[str]:
        """The words without the global options that the command does not have itself; these are put into force."""
        left: list[str] = []
        at = 0
        while at < len(words):
            word, at = words[at], at + 1
            if word == "--":
                return [*left, word, *words[at:]]
            option, has_value, value = _split(word)
            if option in own or option not in (*_VARIABLES, *_SWITCHES, "--workdir", "--loader"):
                left.append(word)
                continue
            if option in _SWITCHES:
                self._set(_SWITCHES[option], "1")
                continue
            if not has_value:
                if at == len(words):
                    raise click.UsageError(f"Option '{option}' requires an argument.")
                value, at = words[at], at + 1
            self._put(option, value)
        return left

    def _put(self, option: str, value: str) -> None:
        if option == "--workdir":
            self._change_directory(value)
        elif option == "--loader":
            click.echo("--loader has no effect: settings come from the app, task modules from its imports.", err=True)
        else:
            self._set(_VARIABLES[option], value)
            if option not in {"-A", "--app"}:
                self._set("BEATD_APP_OPTION", option)  # refused beside a file

    def _set(self, name: str, value: str) -> None:
        before = os.environ.get(name)
        os.environ[name] = value
        self._ctx.call_on_close(
            lambda: os.environ.pop(name, None) if before is None else os.environ.update({name: before})
        )

    def _change_directory(self, path: str) -> None:
        before = os.getcwd()  # noqa: PTH109 - a text is enough
        try:
            os.chdir(path)
        except OSError as error:
            raise click.BadParameter(f"{path!r}: {error.strerror}", param_hint="--workdir") from None
        self._ctx.call_on_close(lambda: os.chdir(before))


def unbundled(words: Iterable[str], command: click.Command) -> Iterator[str]:
    """Yield the words of a command line, in which flags stand alone: ``-Eb URL`` is ``-E -b URL``."""
    options = [each for each in command.params if isinstance(each, click.Option)]
    own = {name for each in options for name in each.opts}
    flags = {name for each in options if each.is_flag for name in each.opts} | set(_SWITCHES) - own
    valued = {name for each in options if not each.is_flag for name in each.opts} | set(VALUES) - own
    rest = iter(words)
    for word in rest:
        while word[:2] in flags and word[2:3].isalpha():
            yield word[:2]
            word = f"-{word[2:]}"  # noqa: PLW2901
        yield word
        if word in valued:
            yield from islice(rest, 1)
        elif word == "--":
            yield from rest


def urls_as_variables(words: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Return a command line without its URLs, and the environment variables that say the same.

    Its words are :func:`unbundled`.

    Everybody on the host can read the command line of a process, only its owner the environment.
    """
    left: list[str] = []
    variables: dict[str, str] = {}
    rest = iter(words)
    for word in rest:
        option, has_value, value = _split(word)
        if option in _URLS:
            variables[_VARIABLES[option]] = value if has_value else next(rest, "")
        else:
            left.append(word)
    return left, variables


def _leading(args: list[str]) -> tuple[list[str], list[str]]:
    """The global options before the command, and the rest."""
    moved: list[str] = []
    while args and (_split(args[0])[0] in (*FLAGS, *VALUES) or args[0][:2] in _SWITCHES):
        if args[0][:2] in _SWITCHES and args[0][2:]:  # -qb URL
            moved, args = [*moved, args[0][:2]], [f"-{args[0][2:]}", *args[1:]]
            continue
        option, has_value, _ = _split(args[0])
        count = 2 if option in VALUES and not has_value else 1
        words = ["--config", *args[1:count]] if args[0] == "-c" else args[:count]  # it is a worker's --concurrency
        moved, args = [*moved, *words], args[count:]
    return moved, args


def _split(word: str) -> tuple[str, bool, str]:
    """An option, True if it has a value in the same word, and that value: ``--app=proj``, ``-Aproj``."""
    if word.startswith("--"):
        option, equals, value = word.partition("=")
        return option, bool(equals), value
    if len(word) > 2 and word[:2] in VALUES:
        return word[:2], True, word[2:].removeprefix("=")
    return word, False, ""
