"""How commands speak: tables for people, JSON for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import click
from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

_FOLDED_AT_MOST = 500
"""Rows of a table that are folded to a terminal's width; longer ones are for a pager, and would take long."""


def printable(text: str) -> str:
    """A text from elsewhere as one line: control characters, line ends and the like are shown as escapes."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def print_line(text: str, *, err: bool = False) -> None:
    """One line that may hold names and reasons from elsewhere: they cannot add lines, nor speak to the terminal."""
    click.echo(printable(text), err=err)


def print_json(value: Any) -> None:
    """``value`` as an indented JSON document on standard output."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table without lines. In a terminal long cells are folded to its width; in a pipe each row stays one line."""
    cells = [[*map(printable, row)] for row in rows]
    if not sys.stdout.isatty() or len(cells) > _FOLDED_AT_MOST:
        _print_plain(columns, cells)
        return
    console = Console(highlight=False)
    style = "" if console.no_color else "bold"
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style=style)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in cells:
        table.add_row(*(Text(cell) for cell in row))
    console.print(table)


def _print_plain(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """The same without folding and colour, at once also for a hundred thousand rows."""
    widths = [max(map(cell_len, column)) for column in zip(columns, *rows, strict=True)]

    def line(row: Sequence[str]) -> str:
        padded = (cell + " " * (width - cell_len(cell)) for cell, width in zip(row, widths, strict=True))
        return "   ".join(padded).rstrip()

    rule = "─" * (sum(widths) + 3 * (len(widths) - 1))
    click.echo("\n".join([line(columns), rule, *map(line, rows)]))


def plural(count: int, noun: str) -> str:
    """``1 entry``, ``2 entries``."""
    if count == 1:
        return f"1 {noun}"
    return f"{count:,} {noun[:-1]}ies" if noun.endswith("y") else f"{count:,} {noun}s"
