"""Error reports: everything that is wrong with a file, collected in one pass."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from difflib import get_close_matches

from beatd.config.toml_lines import KeyPath, Position
from beatd.exceptions import Fault
from beatd.schedules.literals import escaped, or_list, quoted

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_LONGEST = 800
"""Characters of a message: it may repeat what is in the file."""
_MOST = 1000
"""Errors that are kept of one file: a hundred thousand lines of output help nobody."""


class ErrorReport:
    """The errors of one file, each at a path of keys. Positions are looked up at the end, if there is an error."""

    def __init__(self) -> None:
        self._found: list[tuple[KeyPath, str]] = []
        self._left_out = 0

    def __bool__(self) -> bool:
        return bool(self._found)

    def __iter__(self) -> Iterator[tuple[KeyPath, str]]:
        return iter(self._found)

    def add(self, path: KeyPath, message: str) -> None:
        """Something at ``path`` is wrong; ``message`` says what, and what would be right. It becomes one line."""
        if len(self._found) < _MOST:
            self._found.append((path, _one_line(message)))
        else:
            self._left_out += 1

    def faults(self, file: str, position_of: Callable[[KeyPath], Position | None]) -> list[Fault]:
        """Return the errors, in the order of the lines that ``position_of`` gives."""
        errors = [_at(file, position_of(path), dotted(path), message) for path, message in self._found]
        errors.sort(key=lambda error: error.line or 0)
        if self._left_out:
            more = "and 1 more error" if self._left_out == 1 else f"and {self._left_out} more errors"
            errors.append(Fault(file, None, "", more))
        return errors


def _at(file: str, position: Position | None, path: str, message: str) -> Fault:
    line, column = position or (None, None)
    return Fault(file, line, path, message, column)


def _one_line(message: str) -> str:
    if not message.isprintable():
        message = "".join(char if char.isprintable() else escaped(char) for char in message)
    return message if len(message) <= _LONGEST else f"{message[: _LONGEST // 2]} … {message[-_LONGEST // 2 :]}"


def dotted(path: KeyPath) -> str:
    """A path as one writes it in TOML: ``beat_schedule."my entry".args[0]``."""
    text = ""
    for key in path:
        if isinstance(key, int):
            text += f"[{key}]"
        else:
            text += ("." if text else "") + (key if _BARE.fullmatch(key) else quoted(key))
    return text


def near(word: str, known: Iterable[str]) -> str:
    """``; did you mean "queue"?`` or nothing: the end of a message about a word that is not known."""
    close = nearest(word, known)
    return f"; did you mean {or_list([*map(quoted, close)])}?" if close else ""


def nearest(word: str, known: Iterable[str], at_most: int = 2) -> list[str]:
    """The known words that ``word`` may be a slip for, the nearest first."""
    folded = {each.casefold().replace("-", "_"): each for each in known}
    return [folded[each] for each in get_close_matches(word.casefold().replace("-", "_"), folded, at_most, 0.7)]
