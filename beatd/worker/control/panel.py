"""The commands: by name, with what the command line has to know of their arguments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypeVar

Handler = Callable[..., Any]
H = TypeVar("H", bound=Handler)
Kind = Literal["inspect", "control"]


class Command(NamedTuple):
    """One command. Handlers take a :class:`~beatd.worker.control.station.Station` and the sender's keywords."""

    name: str
    kind: Kind
    handler: Handler
    summary: str
    arguments: tuple[tuple[str, Callable[[str], Any]], ...]
    """Names of arguments on a command line, each with what makes a value of its text."""
    variadic: str | None
    """The name of the argument that takes the rest of the line."""
    usage: str
    visible: bool


COMMANDS: dict[str, Command] = {}
ALIASES: dict[str, str] = {}
"""Celery's old names."""


def command(
    kind: Kind,
    *,
    alias: str | None = None,
    arguments: tuple[tuple[str, Callable[[str], Any]], ...] = (),
    variadic: str | None = None,
    usage: str = "",
    visible: bool = True,
) -> Callable[[H], H]:
    """Make a function the command of its name; the first line of its docstring is the summary."""

    def register(handler: H) -> H:
        name = handler.__name__
        summary = (handler.__doc__ or "").strip().partition("\n")[0]
        COMMANDS[name] = Command(name, kind, handler, summary, arguments, variadic, usage, visible)
        if alias:
            ALIASES[alias] = name
        return handler

    return register


def find(name: object) -> Handler:
    """The handler of a command; raises KeyError with the name, which is how Celery's workers answer."""
    known = COMMANDS.get(ALIASES.get(name, name)) if isinstance(name, str) else None
    if known is None:
        raise KeyError(name)
    return known.handler


def truth(text: str) -> bool:
    """A flag as people write it."""
    return text.strip().lower() in {"1", "true", "yes", "on", "y", "t"}
