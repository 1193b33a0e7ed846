"""Templates of entries: of a large schedule most entries differ from another one in nothing but name and arguments.

Their text says so, and then it need not be parsed: all else is taken from the entry that was written alike. Arguments
are read as JSON where they are numbers, words and flags, which are written the same way in TOML.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from beatd.config.toml_parser import TomlError, parse
from beatd.model import Entry

_KEPT = 5_000
"""Templates that are kept at most, and words. If so many entries have nothing in common, the others are not tried."""

_HEADER = re.compile(r"\[beat_schedule\.([A-Za-z0-9_-]{1,250})\](?:\n|\Z)")
_ARGUMENTS = "\nargs = "
_PLAIN = re.compile(r'\[(?:[ ,]++|-?\d{1,15}(?:\.\d{1,15})?(?=[ ,\]])|"[^"\\\x00-\x1f\x7f]*+"|true|false)*+\]')
"""Arguments that mean the same in TOML and JSON, if JSON can be read from them."""

_decode = msgspec.json.Decoder(tuple[Any, ...]).decode

_Rest = tuple[str, str, str]
"""All of an entry's text but its header and arguments: the statements before these, their key, what is after them."""


class EntryTemplates:
    """The templates of one file. They hold for texts without variables, and for entries of any name."""

    def __init__(self) -> None:
        self._templates: dict[_Rest, Entry] = {}
        self._words: dict[str, str] = {}
        self._has_matched = False

    @property
    def is_full(self) -> bool:
        """True when there is nothing more to learn."""
        return len(self._templates) >= _KEPT

    def entry(self, text: str, file: str, line: int) -> Entry | None:
        """The entry with this text, if one that is alike has been learned."""
        if self.is_full and not self._has_matched:
            return None
        split = _split(text)
        template = self._templates.get(split[1]) if split else None
        if split is None or template is None:
            return None
        self._has_matched = True
        name, rest, arguments = split
        args = template.args
        if rest[1]:
            if not _PLAIN.fullmatch(arguments):
                return None
            try:
                args = _decode(arguments)
            except msgspec.DecodeError:
                return None
            if '"' in arguments:
                args = tuple(map(self._shared, args))
        return Entry(
            name=name,
            task=template.task,
            schedule=template.schedule,
            args=args,
            kwargs=template.kwargs,
            timezone=template.timezone,
            options=template.options,
            policies=template.policies,
            file=file,
            line=line,
        )

    def _shared(self, argument: Any) -> Any:
        """One object for equal words, for words are often the same: the first ones are remembered."""
        if type(argument) is not str:
            return argument
        if len(self._words) >= _KEPT:
            return self._words.get(argument, argument)
        return self._words.setdefault(argument, argument)

    def learn(self, text: str, entry: Entry) -> None:
        """Learn from an entry and its text."""
        if not self.is_full and (split := _split(text)) and _is_complete(split[1][0]):
            self._templates[split[1]] = entry


def _split(text: str) -> tuple[str, _Rest, str] | None:
    """Name, rest and arguments of an entry's text; None if its header is not a plain one."""
    before, key, behind = text.partition(_ARGUMENTS)
    header = _HEADER.match(before)
    if header is None:
        return None
    arguments, _, after = behind.partition("\n")
    return header[1], (before[header.end() :], key, after), arguments


def _is_complete(statements: str) -> bool:
    """True if the text ends where a statement does: else what follows would be no arguments."""
    try:
        parse(statements)
    except TomlError:
        return False
    return True
