"""Positions of keys in a TOML text: a light scanner that runs only when there is an error to place.

The parser keeps no positions, and keeping them for every value would make each load pay for the rare error. The
scanner trusts that the text has been parsed before; in a text that has not it stops where it is lost.
"""

from __future__ import annotations

import re
from contextlib import suppress
from functools import cached_property
from typing import NamedTuple

KeyPath = tuple[str | int, ...]
"""Keys from the top of the file; a number is a place in an array."""


class Position(NamedTuple):
    """Line and column of a key, both from 1."""

    line: int
    column: int


_BLANK = re.compile(r"(?:[ \t\r\n\ufeff]++|#[^\n]*+)*+")
_SPACE = re.compile(r"[ \t]*")
_KEY = re.compile(r'[A-Za-z0-9_-]+|"((?:[^"\\\n]++|\\.)*+)"|\'([^\'\n]*)\'')
_STRING = re.compile(
    r'"""(?:[^"\\]++|\\.|"(?!""))*+"{3,5}|\'\'\'(?:[^\']++|\'(?!\'\'))*+\'{3,5}|"(?:[^"\\\n]++|\\.)*+"|\'[^\'\n]*\'',
    re.DOTALL,
)
_SCALAR = re.compile(r"[^,\]}#\r\n]+")


class PositionIndex:
    """The positions of the keys of one text."""

    def __init__(self, text: str) -> None:
        self._text = text

    def of(self, path: KeyPath) -> Position | None:
        """The position of ``path``, or of its nearest parent that is written; None if none of them is."""
        known = self._scan.known
        while path:
            if path in known:
                return self._position(*known[path])
            path = path[:-1]
        return None

    def repeated_on(self, line: int) -> KeyPath | None:
        """The path on ``line`` that was written before, if there is one."""
        found = self._scan.repeated.get(line)
        return found[0] if found else None

    def last_repeated(self, line: int) -> Position | None:
        """The position of the last key, up to ``line``, that was written before."""
        repeated = self._scan.repeated
        at = max((each for each in repeated if each <= line), default=None)
        return None if at is None else self._position(at, repeated[at][1])

    def _position(self, line: int, start: int) -> Position:
        return Position(line, start - self._text.rfind("\n", 0, start))

    @cached_property
    def _scan(self) -> _Scan:
        scan = _Scan(self._text)
        with suppress(_LostError):
            scan.statements()
        return scan


class _LostError(Exception):
    """The text is not what the scanner expects here."""


class _Scan:
    """One pass over a text. ``at`` is the offset and ``line`` its line; ``known`` has line and offset of the first
    mention of each path, and ``repeated`` has path and offset of the later ones by line."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.line = 1
        self.known: dict[KeyPath, tuple[int, int]] = {}
        self.counts: dict[KeyPath, int] = {}
        self.repeated: dict[int, tuple[KeyPath, int]] = {}

    def statements(self) -> None:
        table: KeyPath = ()
        while True:
            self.take(_BLANK)
            if self.at >= len(self.text):
                return
            if self.text[self.at] == "[":
                table = self.header()
            else:
                self.pair(table)

    def header(self) -> KeyPath:
        start = self.at
        array = self.text.startswith("[[", self.at)
        self.at += 2 if array else 1
        path = self.inside_arrays(self.keys())
        self.expect("]]" if array else "]")
        if array:
            count = self.counts[path] = self.counts.get(path, -1) + 1
            self.note(path, start)
            path = (*path, count)
        self.note(path, start)
        return path

    def inside_arrays(self, keys: KeyPath) -> KeyPath:
        """``a.b`` names a table in the last element of ``a`` where ``a`` is an array of tables."""
        path: KeyPath = ()
        for key in keys[:-1]:
            path = (*path, key)
            if path in self.counts:
                path = (*path, self.counts[path])
        return path + keys[-1:]

    def pair(self, table: KeyPath) -> None:
        start = self.at
        path = table + self.keys()
        self.expect("=")
        self.note(path, start)
        self.take(_SPACE)
        self.value(path)

    def keys(self) -> KeyPath:
        keys: list[str | int] = []
        while True:
            self.take(_SPACE)
            match = self.take(_KEY)
            keys.append(_unescaped(match))
            self.take(_SPACE)
            if self.text[self.at : self.at + 1] != ".":
                return tuple(keys)
            self.at += 1

    def value(self, path: KeyPath) -> None:
        match self.text[self.at : self.at + 1]:
            case "[":
                self.array(path)
            case "{":
                self.inline_table(path)
            case '"' | "'":
                self.take(_STRING)
            case _:
                self.take(_SCALAR)

    def array(self, path: KeyPath) -> None:
        self.at += 1
        place = 0
        while True:
            self.take(_BLANK)
            if self.skip("]"):
                return
            self.note((*path, place), self.at)
            self.value((*path, place))
            place += 1
            self.take(_BLANK)
            self.skip(",")

    def inline_table(self, path: KeyPath) -> None:
        self.at += 1
        while True:
            self.take(_BLANK)
            if self.skip("}"):
                return
            self.pair(path)
            self.take(_BLANK)
            self.skip(",")

    def note(self, path: KeyPath, start: int) -> None:
        if path in self.known:
            self.repeated[self.line] = path, start
        while path and path not in self.known:
            self.known[path] = self.line, start
            path = path[:-1]

    def take(self, pattern: re.Pattern[str]) -> re.Match[str]:
        match = pattern.match(self.text, self.at)
        if match is None:
            raise _LostError
        self.line += self.text.count("\n", self.at, match.end())
        self.at = match.end()
        return match

    def expect(self, token: str) -> None:
        self.take(_SPACE)
        if not self.skip(token):
            raise _LostError

    def skip(self, token: str) -> bool:
        found = self.text.startswith(token, self.at)
        if found:
            self.at += len(token)
        return found


def _unescaped(match: re.Match[str]) -> str:
    basic, literal = match[1], match[2]
    if literal is not None:
        return literal
    if basic is None:
        return match[0]
    return _ESCAPE.sub(_character, basic) if "\\" in basic else basic


_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|.)")
_SHORT = {"b": "\b", "t": "\t", "n": "\n", "f": "\f", "r": "\r", '"': '"', "\\": "\\"}


def _character(escape: re.Match[str]) -> str:
    code = escape[1]
    if len(code) == 1:
        return _SHORT.get(code, code)
    number = int(code[1:], 16)
    return chr(number) if number < 0x110000 else "\ufffd"
