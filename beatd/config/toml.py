"""Files to TOML tables: reading a file safely, parsing it fast, and putting in its ``${VARIABLES}``.

A file of 100,000 entries is parsed in pieces of some hundred entries. The parser takes three times as long for the
whole at once, and its tree and all the raw tables would have to be in memory together.

``${NAME}`` must be set, ``${NAME:-text}`` stands for ``text`` when the variable is missing or empty, and ``$${`` is a
plain ``${``. Keys are not touched. What came from a variable may be a secret, so it stays a :class:`Substituted`
until the file has been read, and messages show the text with the variable's name instead.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import islice, pairwise
from pathlib import Path as FilePath
from typing import Any, NamedTuple

from beatd.config.errors import ErrorReport, dotted
from beatd.config.toml_blocks import HEADER, Block, cut
from beatd.config.toml_lines import KeyPath, Position, PositionIndex
from beatd.config.toml_parser import DUPLICATE_KEY, TomlError, parse
from beatd.exceptions import ConfigError, Fault
from beatd.schedules.literals import quoted

SCHEDULE = "beat_schedule"
_LARGEST = 256 * 1024 * 1024
PARSED_AT_ONCE = 500
"""Pieces that are parsed together."""


class RawEntry(NamedTuple):
    """A table of the schedule as it stands in the file, and the line of its name."""

    name: str
    fields: Any
    line: int


Piece = tuple[str, int, int]
"""The text of an entry, its mark, and the line of its header. The mark is a hash of the text, 0 with variables."""


class Document:
    """One parsed file: ``settings`` (all but the schedule) and the entries, which are parsed as they are taken."""

    def __init__(self, file: str, text: str, before: Sequence[Block] = ()) -> None:
        self.file = file
        self.text = text
        self.cut = cut(text, before)
        """The entries that differ from those in the blocks ``before``; None if the text is parsed as a whole."""
        self.settings = self._parsed(text[: self.cut.first] if self.cut else text, 1)
        if self.cut and SCHEDULE in self.settings:
            self.cut = None
            self.settings = self._parsed(text, 1)
        self.schedule = self.settings.pop(SCHEDULE, {})
        self._index: tuple[Any, PositionIndex] | None = None

    @cached_property
    def has_variables(self) -> bool:
        """True if there is a variable in the settings, or in an entry that is not in a block as before."""
        if self.cut is None:
            return "${" in self.text
        starts = self.cut.starts
        return "${" in self.text[: self.cut.first] or self.text.find("${", starts[0], starts[-1]) >= 0

    def entries(self) -> Iterator[RawEntry]:
        """The entries in the order of the file. Raises ConfigError at the first piece that is not TOML."""
        pieces = self.pieces()
        while several := list(islice(pieces, PARSED_AT_ONCE)):
            yield from self.tables(several)
        yield from self.whole()

    def whole(self) -> Iterator[RawEntry]:
        """The entries of a text that is not read in pieces."""
        if isinstance(self.schedule, dict):
            for name, fields in self.schedule.items():
                yield RawEntry(name, fields, self.line_of((SCHEDULE, name)) or 1)

    def pieces(self) -> Iterator[Piece]:
        """The entries that are not in blocks as before, of a text that is read in pieces."""
        if self.cut is not None:
            line = self.cut.line(self.text)
            for start, end in pairwise(self.cut.starts):
                text = self.text[start:end]
                yield text, 0 if "${" in text else hash(text), line
                line += text.count("\n")

    def tables(self, pieces: Sequence[Piece]) -> Iterator[RawEntry]:
        """Pieces that follow one another, parsed. Raises ConfigError if they are not TOML."""
        if pieces:
            tables = self._parsed("".join([text for text, _, _ in pieces]), pieces[0][2])[SCHEDULE]
            for (_, _, line), (name, fields) in zip(pieces, tables.items(), strict=True):
                yield RawEntry(name, fields, line)

    def position_of(self, path: KeyPath) -> Position | None:
        """The position of ``path``, or of its nearest parent that is written. Scans only the entry where it can."""
        name = path[1] if len(path) > 1 and path[0] == SCHEDULE else None
        if name not in self._places:
            return self._positions.of(path)
        start, end, line = self._places[name]
        if self._index is None or self._index[0] != name:  # the errors of an entry come one after another
            self._index = name, PositionIndex(self.text[start:end])
        inside = self._index[1].of(path) or Position(1, 1)
        return inside._replace(line=line - 1 + inside.line)

    def line_of(self, path: KeyPath) -> int | None:
        """The line of ``path``, or of its nearest parent that is written."""
        position = self.position_of(path)
        return None if position is None else position.line

    @cached_property
    def _positions(self) -> PositionIndex:
        return PositionIndex(self.text[: self.cut.first] if self.cut else self.text)

    @cached_property
    def _places(self) -> dict[Any, tuple[int, int, int]]:
        """Start, end and line of each entry, for text that is read in pieces."""
        whole = cut(self.text) if self.cut else None
        line = whole.line(self.text) if whole else 1
        places = {}
        for start, end in pairwise(whole.starts if whole else ()):
            header = HEADER.match(self.text, start)
            places[_unquoted(header[1]) if header else None] = (start, end, line)
            line += self.text.count("\n", start, end)
        return places

    def _parsed(self, text: str, first_line: int) -> dict[str, Any]:
        try:
            return parse(text)
        except TomlError as error:
            raise ConfigError([self._fault(error, text, first_line)]) from None

    def _fault(self, error: TomlError, text: str, first_line: int) -> Fault:
        if error.line is None:
            return Fault(self.file, None, "", f"not TOML: {error.message}")
        reason = _reason(error.message, text, error.line, first_line - 1)
        return Fault(self.file, first_line + error.line - 1, "", f"not TOML: {reason}", error.column)


def _reason(message: str, text: str, line: int, lines_before: int) -> str:
    """The parser's message, made clearer for keys that come twice and for values without quotes."""
    if message == DUPLICATE_KEY:
        positions = PositionIndex(text)
        path = positions.repeated_on(line)
        first = positions.of(path) if path else None
        return f"{dotted(path)} is already defined on line {first.line + lines_before}" if path and first else message
    written = text.split("\n", line)[line - 1]
    if _NO_VALUE.match(written):
        return "the value is missing"
    if _BARE_WORD.match(written):
        return 'a string needs quotes, as in "text"'
    return message


_NO_VALUE = re.compile(r"[^=\[\"']+=\s*(#.*)?$")
_BARE_WORD = re.compile(r"[^=\[\"']+=\s*(?!(?:true|false|inf|nan)\b)[A-Za-z_/.$]")


def _unquoted(key: str) -> str:
    return key[1:-1] if key[0] in "\"'" else key


def read(path: FilePath, shown: str) -> str:
    """The text of a file; raises ConfigError, with ``shown`` as the file's name, if it cannot be one of ours."""
    try:
        facts = os.stat(path)  # noqa: PTH116 - one system call for kind and size
        if stat.S_ISDIR(facts.st_mode):
            raise _refused(shown, "is a directory; expected a TOML file")
        if not stat.S_ISREG(facts.st_mode):
            raise _refused(shown, "is not a regular file; expected a TOML file")
        if facts.st_size > _LARGEST:
            raise _refused(shown, f"has {facts.st_size >> 20} MiB; expected at most {_LARGEST >> 20} MiB")
        data = path.read_bytes()
    except FileNotFoundError:
        raise _refused(shown, "no such file") from None
    except (OSError, ValueError) as error:
        raise _refused(shown, f"cannot be read: {getattr(error, 'strerror', None) or error}") from None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        data = error.object  # what was decoded: without the byte order mark
        line = data.count(b"\n", 0, error.start) + 1
        message = f"not UTF-8: byte 0x{data[error.start]:02x}; TOML files are always UTF-8"
        raise ConfigError([Fault(shown, line, "", message)]) from None


def _refused(shown: str, message: str) -> ConfigError:
    return ConfigError([Fault(shown, None, "", message)])


_REFERENCE = re.compile(r"\$\$\{|\$\{([^}]*)(\}?)")
_VARIABLE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?", re.DOTALL)


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


def substitute(value: Any, env: Mapping[str, str], report: ErrorReport, path: KeyPath) -> Any:
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
    """The first text in ``value`` that was made with a variable; one whose variable is missing before all others.

    It is asked about values that are wrong, and so may be nested too deeply, or contain themselves.
    """
    first: Substituted | None = None
    waiting, seen = [value], set[int]()
    while waiting:
        match waiting.pop():
            case Substituted() as made:
                if made.missing:
                    return made
                first = made if first is None else first
            case dict() | list() | tuple() as several if id(several) not in seen:
                seen.add(id(several))
                waiting.extend(reversed([*several.values()] if isinstance(several, dict) else several))
    return first


def degrees(value: Any) -> Any:
    """The number of a text from a variable; anything else as it is."""
    is_number = isinstance(value, Substituted) and re.fullmatch(r"[+-]?[0-9]{1,3}(\.[0-9]{1,18})?", value)
    return float(value) if is_number else value


def truth(value: Any) -> Any:
    """The truth value of a text from a variable; anything else as it is."""
    is_truth = isinstance(value, Substituted) and value.lower() in {"true", "false"}
    return value.lower() == "true" if is_truth else value


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
    """True if a value contains a ``${VARIABLE}`` as the file has it."""
    match value:
        case str():
            return any(found[0] != "$${" for found in _REFERENCE.finditer(value))
        case dict():
            return any(map(has_reference, value.values()))
        case list():
            return any(map(has_reference, value))
    return False


def _text(text: str, env: Mapping[str, str], report: ErrorReport, path: KeyPath) -> str:
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


def _lookup(match: re.Match[str], env: Mapping[str, str], report: ErrorReport, path: KeyPath) -> str | None:
    reference = _VARIABLE.fullmatch(match[1])
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
