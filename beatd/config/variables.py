"""``${NAME}`` in the strings of the file: replaced from the environment, and never shown again.

``${NAME}`` must be set, ``${NAME:-text}`` stands for ``text`` when the variable is missing or empty, and ``$${`` is a
plain ``${``. Keys are not touched. What came from a variable may be a secret, so it stays a :class:`Substituted`
until the file has been read, and messages show the text with the variable's name instead.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from beatd.config.faults import Report, quoted
from beatd.config.lines import Path

_REFERENCE = re.compile(r"\$\$\{|\$\{([^}]*)(\}?)")
_NAME = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?", re.DOTALL)


class Substituted(str):
    """A string with values of variables in it; ``written`` is how the file has it. Its ``repr`` keeps the secret."""

    __slots__ = ("missing", "written")
    written: str
    missing: bool
    """Whether a variable was not there, which has been reported: what the text is then does not matter."""

    def __new__(cls, value: str, written: str, missing: bool = False) -> Substituted:
        made = super().__new__(cls, value)
        made.written = written
        made.missing = missing
        return made

    def __repr__(self) -> str:
        return f"Substituted({self.written!r})"


def substitute(value: Any, env: Mapping[str, str], report: Report, path: Path) -> Any:
    """``value`` with every variable in it replaced; what cannot be is reported and stays as it is."""
    match value:
        case str():
            return _text(value, env, report, path) if "${" in value else value
        case dict():
            return {key: substitute(each, env, report, (*path, key)) for key, each in value.items()}
        case list():
            return [substitute(each, env, report, (*path, place)) for place, each in enumerate(value)]
    return value


def substituted(value: Any) -> Substituted | None:
    """The first text in ``value`` that was made with a variable; one whose variable is missing before all others."""
    match value:
        case Substituted():
            return value
        case dict() | list() | tuple():
            inside = value.values() if isinstance(value, dict) else value
            made = [found for each in inside if (found := substituted(each)) is not None]
            return next((each for each in made if each.missing), made[0] if made else None)
    return None


def plain(value: Any) -> Any:
    """``value`` with ordinary strings for substituted ones: what leaves this package."""
    match value:
        case Substituted():
            return str(value)
        case dict():
            return {key: plain(each) for key, each in value.items()}
        case list():
            return [plain(each) for each in value]
    return value


def escaped(text: str) -> str:
    """The text as a file has it, so that reading it gives ``text`` again."""
    return text.replace("${", "$${")


def has_reference(value: Any) -> bool:
    """Whether there is a ``${VARIABLE}`` in a value as the file has it."""
    match value:
        case str():
            return any(found[0] != "$${" for found in _REFERENCE.finditer(value))
        case dict():
            return any(map(has_reference, value.values()))
        case list():
            return any(map(has_reference, value))
    return False


def _text(text: str, env: Mapping[str, str], report: Report, path: Path) -> str:
    references = missing = 0

    def replaced(match: re.Match[str]) -> str:
        nonlocal references, missing
        if match[0] == "$${":
            return "${"
        references += 1
        value = _lookup(match, env, report, path)
        missing += value is None
        return value or ""

    value = _REFERENCE.sub(replaced, text)
    return Substituted(value, text, bool(missing)) if references else value


def _lookup(match: re.Match[str], env: Mapping[str, str], report: Report, path: Path) -> str | None:
    reference = _NAME.fullmatch(match[1])
    if reference is None or not match[2]:
        right = "write ${NAME}, ${NAME:-default}, or $${ for a plain ${"
        report.add(path, f"{quoted(match[0])} is not a variable: {right}")
        return None
    name, default = reference[1], reference[2]
    value = env.get(name)
    if default is not None:
        return value or default
    if value is None:
        report.add(path, f"the environment variable {name} is not set: set it, or write ${{{name}:-default}}")
    return value
