"""TOML text to tables: by rtoml, or by the parser of the standard library where rtoml has no wheel.

The standard library takes about five times as long. It reads TOML 1.0, rtoml 1.1. Errors have the same form: a message,
and the line and column where the text stops being TOML.
"""

from __future__ import annotations

import re
import tomllib
from importlib.util import find_spec
from typing import Any

from beatd.config.toml_lines import PositionIndex

DUPLICATE_KEY = "duplicate key"
"""The message for a key or table that is defined twice."""

_RTOML_PLACE = re.compile(r"(.*) at line (\d+) column (\d+)", re.DOTALL)
_PLACE = re.compile(r"(.*) \(at (?:line (\d+), column (\d+)|end of document)\)", re.DOTALL)
_TWICE = re.compile(r"Cannot overwrite a value|Cannot declare .* twice|Duplicate inline table key .*", re.DOTALL)


class TomlError(ValueError):
    """Text that is not TOML. ``line`` and ``column`` count from 1; None where the parser names no place."""

    def __init__(self, message: str, line: int | None = None, column: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.line = line
        self.column = column


def parse(text: str) -> dict[str, Any]:
    """The tables of a text; raises :class:`TomlError`."""
    if find_spec("rtoml") is None:
        return parse_without_rtoml(text)
    import rtoml  # noqa: PLC0415 - not everywhere

    try:
        return rtoml.loads(text)
    except rtoml.TomlParsingError as error:
        place = _RTOML_PLACE.fullmatch(str(error))
        raise (TomlError(place[1], int(place[2]), int(place[3])) if place else TomlError(str(error))) from None
    except (ValueError, RecursionError) as error:
        raise TomlError(str(error)) from None


def parse_without_rtoml(text: str) -> dict[str, Any]:
    """Parse with the standard library; raises :class:`TomlError`."""
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise TomlError("nested too deeply") from None
    except ValueError as error:
        raise _placed(str(error), text) from None


def _placed(message: str, text: str) -> TomlError:
    place = _PLACE.fullmatch(message)
    if place is None:
        return TomlError(message)
    if place[2]:
        return _translated(place[1], text, int(place[2]), int(place[3]))
    written = text.rstrip("\n")
    return _translated(place[1], text, written.count("\n") + 1, len(written) - written.rfind("\n"))


def _translated(message: str, text: str, line: int, column: int) -> TomlError:
    """An error of the standard library in the words of rtoml. Its place for a key is behind the key's value."""
    if _TWICE.fullmatch(message):
        where = PositionIndex(text).last_repeated(line)
        return TomlError(DUPLICATE_KEY, where.line if where else line, where.column if where else column)
    for pattern, words in _WORDS:
        if pattern.fullmatch(message):
            return TomlError(words, line, column)
    return TomlError(message[:1].lower() + message[1:], line, column)


_WORDS = [
    (re.compile(pattern, re.DOTALL), words)
    for pattern, words in (
        (
            r"Illegal character '\\n'|Unterminated string|Expected .*['\"]{2,}.*",
            "unclosed string, expected a quote at its end",
        ),
        (r"Unclosed array", "unclosed array, expected `]`"),
        (r"Expected '\]' at the end of a table declaration", "unclosed table, expected `]`"),
        (r"Expected '\]\]' at the end of an array declaration", "unclosed array of tables, expected `]]`"),
        (r"Expected '=' after a key in a key/value pair", "key with no value, expected `=`"),
        (r"Unclosed inline table", "unclosed inline table, expected `}`"),
        (
            r"Expected newline or end of document after a statement",
            "unexpected text after the value, expected newline, `#`",
        ),
        (r"Cannot mutate immutable namespace .*", "an inline table cannot be extended"),
        (r"Unescaped '\\' in a string", "unknown escape sequence in a string; write \\\\ for a backslash"),
    )
]
