"""Values in error messages: as TOML writes them, on one line, short."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import date, datetime, time, timedelta
from itertools import islice

_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}
_MOST_DIGITS = 40
_MOST_PARTS = 8
_MOST_CHARACTERS = 60


def shown(value: object) -> str:
    """A value as TOML writes it; a table or a list by its kind, as it may be long."""
    match value:
        case str():
            return quoted(value)
        case bool():
            return str(value).lower()
        case int():
            return str(value) if abs(value) < 10**_MOST_DIGITS else f"a number of more than {_MOST_DIGITS} digits"
        case float():
            return str(value)
        case datetime() | date() | time():
            return value.isoformat()
        case timedelta():
            return f"{value.total_seconds():g} s"
        case Mapping():
            return "a table"
        case list() | tuple() | set() | frozenset():
            return "a list"
        case None:
            return "nothing"
    return f"a value of type {type(value).__name__}"


def or_list(words: Collection[str]) -> str:
    """``a, b or c``."""
    *others, last = words
    return f"{', '.join(others)} or {last}" if others else last


def toml(value: object, depth: int = 2) -> str:
    """``shown``, but with what is inside of a table or a list, so far as it is short."""
    match value:
        case Mapping() if depth:
            pairs = ", ".join(f"{key} = {toml(each, depth - 1)}" for key, each in islice(value.items(), _MOST_PARTS))
            return f"{{ {pairs} }}" if len(value) <= _MOST_PARTS else f"{{ {pairs}, … }}"
        case list() | tuple() if depth:
            parts = ", ".join(toml(each, depth - 1) for each in value[:_MOST_PARTS])
            return f"[{parts}]" if len(value) <= _MOST_PARTS else f"[{parts}, …]"
    return shown(value)


def quoted(text: str) -> str:
    """Text in double quotes on one line: control characters escaped, a long tail cut off."""
    cut = text[: _MOST_CHARACTERS + 1]
    written = "".join(char if char.isprintable() and char not in _ESCAPES else escaped(char) for char in cut)
    return f'"{written[:_MOST_CHARACTERS]}…"' if len(written) > _MOST_CHARACTERS else f'"{written}"'


def escaped(char: str) -> str:
    """A character as an escape sequence of TOML."""
    if char in _ESCAPES:
        return _ESCAPES[char]
    return f"\\u{ord(char):04x}" if ord(char) < 0x10000 else f"\\U{ord(char):08x}"
