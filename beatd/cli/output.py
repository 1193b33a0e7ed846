"""Input and output of commands: tables for people, JSON for programs, moments read, files written.

Moments are ``now``, ``2026-03-29``, ``"2026-03-29 18:00"``, ``+1d``, ``-2h30m``. A file is never overwritten unless the
command was told to, and never half of it is left.
"""

from __future__ import annotations

import json
import math
import os
import re
import stat
import sys
import tempfile
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from beatd.cli.errors import ANSWERED
from beatd.client import moments
from beatd.exceptions import Fault, ScheduleError
from beatd.redaction import printable, printable_lines
from beatd.schedules import duration_ms
from beatd.schedules.literals import quoted

if TYPE_CHECKING:
    from rich.console import Console

_FAULTS_SHOWN = 10

_FOLDED_AT_MOST = 500
"""Rows of a table that is fitted to the terminal; longer tables are for a pager, and would take long."""


def joined(_context: click.Context, _parameter: click.Parameter, values: Sequence[str]) -> str:
    """Read an option with a list of names that may be given several times."""
    return ",".join(values)


def split_names(text: str | None) -> list[str]:
    """Return the names of a list that is written with commas."""
    return [name for part in (text or "").split(",") if (name := part.strip())]


def print_line(text: str, *, err: bool = False) -> None:
    """Print one line; names and reasons in it cannot add lines or control the terminal."""
    click.echo(printable(text), err=err)


def print_lines(text: str) -> None:
    """Print a text of several lines, such as a report, each as :func:`print_line` does."""
    click.echo(printable_lines(text.rstrip()))


def print_text(text: str, *, nl: bool = True) -> None:
    """Print a text that a task, a file or another program has made.

    Programs get it as it is; in a terminal control characters other than tabs are escaped.
    """
    click.echo(re.sub(r"[^\n\t]+", lambda found: printable(found[0]), text) if sys.stdout.isatty() else text, nl=nl)


def print_refused(faults: Sequence[Fault]) -> None:
    """The registrations of the app that are left out, on standard error."""
    for fault in faults[:_FAULTS_SHOWN]:
        print_line(f"! not in force: {fault}", err=True)
    if faults[_FAULTS_SHOWN:]:
        print_line(f"! and {plural(len(faults) - _FAULTS_SHOWN, 'error')} more", err=True)


def print_colored(text: str, color: str | None = None, *, bold: bool = False) -> None:
    """Print one line in a color, where standard output is a terminal and NO_COLOR is not set."""
    click.echo(_colored(printable(text), color, bold=bold))


def _colored(text: str, color: str | None, *, bold: bool = False) -> str:
    return click.style(text, fg=color, bold=bold) if (color or bold) and not os.environ.get("NO_COLOR") else text


def print_json(value: Any) -> None:
    """``value`` as an indented JSON document on standard output; what is not printable is escaped as JSON does it."""
    try:  # json itself takes seconds for ten thousand entries
        text = msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
    except (msgspec.MsgspecError, ValueError, OverflowError, TypeError):  # half of a surrogate pair, a huge number
        text = json.dumps(value, indent=2, ensure_ascii=False)
    if context := click.get_current_context(silent=True):
        context.meta[ANSWERED] = True
    click.echo(text if text.replace("\n", "").isprintable() else "\n".join(map(_escaped_json, text.split("\n"))))


def print_json_line(value: Any) -> None:
    """Print ``value`` as JSON in one line; what JSON has no type for is written as text."""
    click.echo(_escaped_json(json.dumps(value, ensure_ascii=False, default=str)))


def _escaped_json(line: str) -> str:
    """Return a line of JSON in which control characters, such as U+009B, are escaped: they are in strings."""
    if line.isprintable():
        return line
    return "".join(char if char.isprintable() else json.dumps(char)[1:-1] for char in line)


def read_json(text: str, option: str, kind: type[list[Any]] | type[dict[str, Any]]) -> Any:
    """A JSON list or object from the command line; NaN is refused, because JSON has none."""
    expected = "a list such as '[1, \"text\"]'" if kind is list else "an object such as '{\"key\": 1}'"
    try:
        value = json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise click.BadParameter(f"not JSON: {error}; expected {expected}", param_hint=option) from None
    if not isinstance(value, kind):
        raise click.BadParameter(f"expected {expected}, got {text[:40]}", param_hint=option)
    return value


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is not a JSON value")


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table without lines.

    In a pipe each row is one line. In a table that is wider than the terminal the last column is folded, if that leaves
    it enough room; else each row's first cell, its name, is on a line of its own and never folded, with the other cells
    below it.
    """
    cells = [row if _is_plain("".join(row)) else [*map(printable, row)] for row in rows]
    if not sys.stdout.isatty() or len(cells) > _FOLDED_AT_MOST:
        _print_plain(columns, cells)
        return
    from rich import box  # noqa: PLC0415 - only for a terminal: daemons and pipes start faster without it
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    console = Console(highlight=False)
    *widths, last = _widths(columns, cells) if cells else [0]
    spare = console.width - sum(widths) - 3 * len(widths)
    if spare < min(last, _PROSE_MIN):
        _print_stacked(console, columns, cells)
        return
    style = "" if console.no_color else "bold"
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style=style)
    for number, column in enumerate(columns):
        table.add_column(column, overflow="fold", no_wrap=number < len(widths))
    for row in cells:
        table.add_row(*(Text(cell) for cell in row))
    console.print(table)


def _widths(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[int]:
    return [
        max(map(len if "".join(column).isascii() else cell_len, column)) for column in zip(columns, *rows, strict=True)
    ]


def _is_plain(text: str) -> bool:
    """True for printable ASCII, which is most text: asked of a whole row at once, as tables may be long."""
    return text.isascii() and text.isprintable()


def cell_len(text: str) -> int:
    """Columns of a terminal that a text takes: of most texts, its characters."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len as rich_cell_len  # noqa: PLC0415

    return rich_cell_len(text)


_INDENT = 2
_NARROWEST = 10
_PROSE_MIN = 40
"""Columns of a terminal in which sentences can be read."""


def _print_stacked(console: Console, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print each row as its name and, indented, the other cells; the widest columns are folded to fit."""
    widths = _widths(columns[1:], [row[1:] for row in rows])
    spare = console.width - _INDENT - 3 * (len(widths) - 1)
    while sum(widths) > spare and max(widths) > _NARROWEST:
        widths[widths.index(max(widths))] -= 1

    header = "" if console.no_color else "bold"
    _print_block(console, columns, widths, header)
    console.print("─" * console.width)
    for row in rows:
        _print_block(console, row, widths)


def _print_block(console: Console, row: Sequence[str], widths: Sequence[int], style: str = "") -> None:
    from rich.text import Text  # noqa: PLC0415

    console.print(Text(row[0], style), soft_wrap=True)
    cells = list(zip(row[1:], widths, strict=True))
    folded = [Text(cell, style).wrap(console, width, overflow="fold") for cell, width in cells]
    for at in range(max(map(len, folded), default=0)):
        line = Text(" " * _INDENT)
        for lines, (_, width) in zip(folded, cells, strict=True):
            text = lines[at].copy() if at < len(lines) else Text()
            text.truncate(width, pad=True)
            line.append_text(text).append("   ")
        line.rstrip()
        if line.plain:
            console.print(line, soft_wrap=True)


def print_problem(text: str, *, blocks: bool = False) -> None:
    """Print a problem after ``!``; one that blocks runs is red in a terminal."""
    print_folded(f"! {text}", color="red" if blocks else None)


def print_folded(text: str, indent: int = 2, color: str | None = None) -> None:
    """Print a sentence; in a terminal its further lines are indented, and no word is broken."""
    line = printable(text)
    if sys.stdout.isatty():
        from rich.console import Console  # noqa: PLC0415

        width, margin = max(Console().width, 20), " " * indent
        line = textwrap.fill(line, width, subsequent_indent=margin, break_long_words=False, break_on_hyphens=False)
    click.echo(_colored(line, color))


def _print_plain(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print without folding and colour, fast for a hundred thousand rows too."""
    widths = _widths(columns, rows)

    def line(row: Sequence[str]) -> str:
        is_ascii = "".join(row).isascii()
        return "   ".join(map(str.ljust if is_ascii else _padded, row, widths)).rstrip()

    rule = "─" * (sum(widths) + 3 * (len(widths) - 1))
    click.echo("\n".join([line(columns), rule, *map(line, rows)]))


def _padded(cell: str, width: int) -> str:
    return cell + " " * (width - cell_len(cell))


def plural(count: int, noun: str) -> str:
    """``1 entry``, ``2 entries``."""
    if count == 1:
        return f"1 {noun}"
    is_vowel = noun[-2:-1] in {"a", "e", "o", "u"}
    return f"{count:,} {noun[:-1]}ies" if noun.endswith("y") and not is_vowel else f"{count:,} {noun}s"


class Duration(click.ParamType):  # type: ignore[type-arg]
    """Option that is a duration in any notation of the schedule: ``30``, ``"1h30m"``. Its value is in seconds."""

    name = "duration"

    def __init__(self, least: float = 0.0, most: float = math.inf) -> None:
        self._least, self._most = least, most

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the seconds; fails as click's own types do."""
        try:
            seconds = duration_ms(value) / 1000
        except ScheduleError as error:
            self.fail(str(error), param, ctx)
        if not self._least <= seconds <= self._most:
            self.fail(f"{quoted(str(value))}: expected {self._least:g} s to {self._most:g} s", param, ctx)
        return seconds


def read_moment(text: str, *, option: str, timezone: str, base_ms: int, now_ms: int) -> int:
    """The moment that ``text`` means, see :mod:`beatd.client.moments`. Raises click.BadParameter."""
    try:
        return moments.read_moment(text, timezone=timezone, base_ms=base_ms, now_ms=now_ms)
    except ScheduleError as error:
        raise click.BadParameter(str(error), param_hint=option) from None


def write_output(path: Path, text: str, *, kind: str) -> None:
    """Write a file that is made anew each time. Another file than an earlier ``kind`` is left as it is."""
    begin = text.split(maxsplit=1)[0].encode()
    try:
        is_earlier = not path.exists() or (path.is_file() and path.read_bytes().lstrip().startswith(begin))
    except OSError as error:
        raise click.ClickException(f"{path} cannot be read: {error.strerror}") from None
    if not is_earlier:
        raise click.ClickException(f"{path} is there already and is no {kind}; name another file")
    write_file(path, text, force=True)


def confirm(question: str, *, yes: bool) -> None:
    """Ask before something wide. Without a terminal to ask, it is refused: raises click.UsageError, exit code 2."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError(f"{question} Nobody can be asked here: confirm it with --yes")
    click.confirm(printable(question), abort=True, err=True)


def rewrite_file(path: Path, text: str | bytes) -> None:
    """Write all of ``text`` or nothing into a file that is there: behind its links, with its owner and mode."""
    target = path.resolve()
    try:
        facts = target.stat()
    except OSError as error:
        raise click.ClickException(f"{path} cannot be read: {error.strerror}") from None
    owner = (facts.st_uid, facts.st_gid) if (facts.st_uid, facts.st_gid) != (os.geteuid(), os.getegid()) else None
    write_file(target, text, force=True, mode=stat.S_IMODE(facts.st_mode), owner=owner)


def write_file(
    path: Path, text: str | bytes, *, force: bool = False, mode: int = 0o644, owner: tuple[int, int] | None = None
) -> None:
    """Write all of ``text`` or nothing. Raises click.ClickException if the file is there or cannot be written.

    A symbolic link is replaced, not followed. ``owner`` is a user and a group by their numbers.
    """
    if not force and os.path.exists(path):  # noqa: PTH110 - False, no error, where nothing may be looked at
        raise click.ClickException(f"{path} is there already; --force overwrites it")
    handle = None
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as file:
            file.write(text if isinstance(text, bytes) else text.encode())
        if owner is not None:
            os.chown(temporary, *owner)
        Path(temporary).chmod(mode)
        Path(temporary).replace(path)
    except OSError as error:
        if handle is not None:
            Path(temporary).unlink(missing_ok=True)
        raise click.ClickException(f"{path} cannot be written: {error.strerror}") from None
