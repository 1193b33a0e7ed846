"""From the words after ``beatd multi start`` to nodes: names, ranges, options for all and options for some."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import NamedTuple

import click

from beatd.cli.global_options import unbundled

_RANGE = re.compile(r"(\d+)-(\d+)")
_MOST = 1000
"""Nodes of one range: more is a slip."""
_PLACEHOLDER = re.compile(r"%([nNhd%])")

Options = Mapping[str, str | None]
"""Long name of an option of the worker (``--concurrency``) → its value; ``None`` for a flag."""


class Words(NamedTuple):
    """The command line, taken apart."""

    names: tuple[str, ...]
    options: Options
    for_some: Mapping[str, Options]
    """Node number, name, or list of these with commas and ranges → options for these nodes only."""

    def options_of(self, node: Node) -> dict[str, str | None]:
        """The options of one node, with ``%n`` and the like filled in."""
        merged = dict(self.options)
        for some, options in self.for_some.items():
            if node.is_among(some):
                merged |= options
        return {name: None if value is None else node.fill_in(value) for name, value in merged.items()}


class Node(NamedTuple):
    """One worker: its number, counted from 1, and its full name, ``celery1@host``."""

    number: int
    name: str

    def is_among(self, some: str) -> bool:
        """True if ``some`` (``1``, ``1-3``, ``web,mail``) means this node."""
        short = self.name.partition("@")[0]
        return any(part in {str(self.number), short, self.name} for part in _parts(some))

    def fill_in(self, text: str) -> str:
        """``%n`` the name before the ``@``, ``%N`` all of it, ``%h`` the host, ``%d`` its domain, ``%%`` a ``%``.

        ``%i`` and ``%I`` are left to the worker: they differ from process to process.
        """
        short, _, host = self.name.partition("@")
        values = {"n": short, "N": self.name, "h": host, "d": host.partition(".")[2], "%": "%"}
        return _PLACEHOLDER.sub(lambda found: values[found[1]], text)


def nodes(names: Sequence[str], *, prefix: str = "celery", host: str | None = None) -> list[Node]:
    """The nodes that are meant: ``3`` alone is three of them, ``1-3`` too, else each word is a name.

    Numbers are prefixed: node 1 is ``celery1@host``, which is what Celery calls it. Raises click.UsageError.
    """
    if len(names) == 1 and names[0].isdigit():
        names = [f"1-{names[0]}"] if int(names[0]) else []
    each = [part for name in names for part in _parts(name)]
    if len(each) > _MOST:
        raise click.UsageError(f"{len(each)} nodes are meant; at most {_MOST} are started at once")
    here = host or socket.gethostname()
    full = [f"{prefix}{name}" if name.isdigit() else name for name in each]
    full = [name if "@" in name else f"{name}@{here}" for name in full]
    if twice := {name for name in full if full.count(name) > 1}:
        raise click.UsageError(f"{', '.join(sorted(twice))}: named twice")
    return [Node(number, name) for number, name in enumerate(full, 1)]


def _parts(text: str) -> Iterator[str]:
    for part in text.split(","):
        if (found := _RANGE.fullmatch(part)) is None:
            yield from filter(None, [part])
            continue
        first, last = int(found[1]), int(found[2])
        if last < first or last - first >= _MOST:
            raise click.UsageError(f'"{part}": a range goes up, by at most {_MOST}')
        yield from map(str, range(first, last + 1))


def read_words(words: Iterable[str], known: click.Command) -> Words:
    """Take names and options apart; ``known`` is the worker's command, which says which options take a value.

    ``-c:1-3 10`` and ``--queues:web=mail`` are for some nodes. Raises click.UsageError.
    """
    spellings = {spelling: option for option in known.params for spelling in option.opts}
    names: list[str] = []
    options: dict[str, str | None] = {}
    for_some: dict[str, dict[str, str | None]] = {}
    left = list(unbundled(words, known))
    while left:
        word = left.pop(0)
        if not word.startswith("-"):
            names.append(word)
            continue
        spelling, some, value = _split(word, spellings)
        option = spellings.get(spelling)
        if not isinstance(option, click.Option):
            near = get_close_matches(spelling, spellings, n=1)
            raise click.UsageError(f"a worker has no option {spelling}{f'; did you mean {near[0]}?' if near else ''}")
        if not option.is_flag and value is None:
            if not left:
                raise click.UsageError(f"{spelling} needs a value")
            value = left.pop(0)
        target = options if some is None else for_some.setdefault(some, {})
        target[max(option.opts, key=len)] = value
    return Words(tuple(names), options, for_some)


def _split(word: str, spellings: Mapping[str, object]) -> tuple[str, str | None, str | None]:
    """``--name:some=value`` as its three parts; ``-c3`` has its value attached."""
    name, equals, value = word.partition("=")
    name, colon, some = name.partition(":")
    if not name.startswith("--") and len(name) > 2 and name not in spellings and name[:2] in spellings:
        return name[:2], None, word[2:]
    return name, some if colon else None, value if equals else None


def as_arguments(options: Options) -> list[str]:
    """The options as words of a command line."""
    return [name if value is None else f"{name}={value}" for name, value in options.items()]
