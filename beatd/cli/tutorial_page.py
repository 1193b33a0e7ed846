"""Pages of Markdown that can be followed: prose, files to write, commands to run, and what these print.

The tutorial in the terminal and the tests of the documentation read pages by this parser, so what is shown is what is
tried. A fenced block with ``title="NAME"`` is a file. In a block ``console``, each line after ``$ `` is a command, and
the lines below it are in its output, in this order; ``…`` stands for any text. A comment just before a block says more:

* ``<!-- in the background -->``: it runs to the end of the page; go on when the output is there, in any order;
* ``<!-- repeat -->``: run it again until the output is there;
* ``<!-- exit 1 -->``: its exit code;
* ``<!-- not run: REASON -->``: only for the reader.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

_FENCE = re.compile(
    r"^(?:<!-- (?P<note>[^\n]*?) -->\n+)?```(?P<kind>\w*)(?: +title=\"(?P<title>[^\"]+)\")?\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_COMMENT = re.compile(r"<!--.*?-->\n?", re.DOTALL)
_PROMPT = re.compile(r"(?P<user>[$#]) (?P<line>(?:.*\\\n)*.*)")

How = Literal["once", "background", "repeat", "not run"]
_HOW: dict[str, How] = {"in the background": "background", "repeat": "repeat"}


@dataclass(frozen=True, slots=True)
class Prose:
    """Markdown between blocks, or a block that is neither a file nor a command."""

    text: str


@dataclass(frozen=True, slots=True)
class TextFile:
    """A file that the reader writes."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class ShellCommand:
    """A command line, the lines of its output, and how it is run."""

    line: str
    output: tuple[str, ...]
    how: How = "once"
    exit_code: int = 0
    reason: str = ""
    """Why it is not run."""


Part = Prose | TextFile | ShellCommand


def parts(markdown: str) -> Iterator[Part]:
    """Yield what is on a page, from its top to its end."""
    end = 0
    for found in _FENCE.finditer(markdown):
        yield from _prose(markdown[end : found.start()])
        end = found.end()
        note = found["note"] or ""
        if found["title"] and not note.startswith("not run"):
            yield TextFile(found["title"], found["text"])
        elif found["kind"] == "console":
            yield from _commands(found["text"], note)
        else:
            yield Prose(found["text"].strip("\n"))
    yield from _prose(markdown[end:])


def _prose(text: str) -> Iterator[Prose]:
    if kept := _COMMENT.sub("", text).strip():
        yield Prose(kept)


def _commands(text: str, note: str) -> Iterator[ShellCommand]:
    found = list(_PROMPT.finditer(text))
    for index, one in enumerate(found):
        end = found[index + 1].start() if index + 1 < len(found) else len(text)
        shown = text[one.end() : end].splitlines()
        yield _command(one["line"], tuple(line.strip() for line in shown if line.strip()), note, one["user"] == "#")


def _command(line: str, output: tuple[str, ...], note: str, as_root: bool) -> ShellCommand:
    word, _, rest = note.partition(" ")
    if note.startswith("not run"):
        return ShellCommand(line, output, "not run", reason=note.partition(": ")[2])
    if as_root:
        return ShellCommand(line, output, "not run", reason="it needs root")
    return ShellCommand(line, output, _HOW.get(note, "once"), int(rest) if word == "exit" else 0)


def missing(expected: tuple[str, ...], output: str, *, ordered: bool = True) -> str | None:
    """Return the first of the expected lines that the output does not have; ``None`` if it has all.

    Runs of spaces count as one: widths of columns change with what is in them. Several processes that share an output
    write in no order.
    """
    seen, at = " ".join(output.split()), 0
    for line in expected:
        pattern = ".*?".join(re.escape(" ".join(part.split())) for part in line.split("…"))
        found = re.compile(pattern, re.DOTALL).search(seen, at)
        if found is None:
            return line
        at = found.end() if ordered else 0
    return None
