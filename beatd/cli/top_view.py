"""The screen of ``beatd top``: what is shown of a snapshot, and what keys mean. It reads no clock and does no I/O."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from beatd.cli.output import cell_len
from beatd.client.moments import local_text, moment_text
from beatd.exceptions import ScheduleError
from beatd.redaction import printable
from beatd.schedules import duration_ms

Style = Literal["", "good", "bad", "warn", "dim", "bold", "selected"]
PAGE = 200
"""Entries of a part that is asked for."""
TABS = ("Entries", "Runs", "Workers", "Queues")
NARROWEST, LOWEST = 40, 10
"""Columns and lines that are needed."""
_CHROME = 7
"""Lines above and below the table."""
HELP = """\
up, down, j, k       select; Page Up, Page Down, Home, End as well
1 2 3 4, Tab         entries, runs, workers, queues
/                    filter by words in name, task, zone and tags; Esc ends it
r                    run the selected entry now
p                    pause the selected entry, for some time or until it is resumed
u                    resume it
s                    stop the selected run
q                    quit
Changes are asked about before they are made, and are in "beatd audit"."""
_KEYS = "r run  p pause  u resume  s stop run  / filter  1-4 views  ? help  q quit"


class Row(NamedTuple):
    """A row of a table. ``name``: the entry that it is about; ``run_id``: the run that can be stopped."""

    cells: Sequence[str]
    style: Style = ""
    name: str = ""
    run_id: str = ""
    detail: str = ""


class Table(NamedTuple):
    """Rows of one tab, from the row with the number ``first`` on; ``total`` rows in all."""

    columns: Sequence[str]
    rows: Sequence[Row] = ()
    first: int = 0
    total: int = 0
    problem: str = ""


class Away(NamedTuple):
    """The time (ms) since when the state store does not answer, and why."""

    since_ms: int
    reason: str


class Snapshot(NamedTuple):
    """An installation at one moment, as far as it is shown."""

    now_ms: int
    leader: str
    problems: Sequence[str]
    entries: int
    failing: int
    tab: int
    table: Table
    away: Away | None = None
    timezone: str = "UTC"


class Wanted(NamedTuple):
    """The part of an installation that the screen needs: a tab, a filter, a page of entries (from 1)."""

    tab: int = 0
    query: str = ""
    page: int = 1


class Change(NamedTuple):
    """A change that was confirmed: ``run``, ``resume`` or ``stop`` a subject, or ``pause`` it for some time."""

    verb: Literal["run", "pause", "resume", "stop"]
    subject: str
    length_ms: int | None = None
    reason: str = ""


class Line(NamedTuple):
    """One line of the screen."""

    text: str
    style: Style = ""


class View:
    """State of the screen between two keys."""

    def __init__(self) -> None:
        self.wanted = Wanted()
        self.is_over = False
        self.message = ""
        self._selected = 0
        self._anchor = ""
        self._mode: Literal["", "filter", "confirm", "pause", "help"] = ""
        self._text = ""
        self._asked: Change | None = None
        self._snapshot: Snapshot | None = None
        self._height = 24

    def take(self, snapshot: Snapshot) -> None:
        """Show another snapshot. The selected row stays selected where it goes, if it is among those that are known."""
        self._snapshot = snapshot
        if snapshot.tab != self.wanted.tab:
            return
        table = snapshot.table
        names = [_identity(row) for row in table.rows]
        if self._anchor in names:
            self._selected = table.first + names.index(self._anchor)
        self._select(self._selected)

    def press(self, key: str) -> Change | None:
        """Take a key: a character, or a name such as ``up``, ``enter`` and ``esc``. Returns a change to be made."""
        if self._mode == "help":
            self._mode = ""
        elif self._mode == "filter":
            self._write(key, self._set_filter)
        elif self._mode == "pause":
            return self._answer_pause(key)
        elif self._mode == "confirm":
            return self._confirmed(key)
        else:
            self._command(key)
        return None

    def _command(self, key: str) -> None:
        self.message = ""
        moves = {"up": -1, "k": -1, "down": 1, "j": 1, "pageup": 1 - self._rows, "pagedown": self._rows - 1}
        if key in moves:
            self._select(self._selected + moves[key], moved=True)
        elif key in ("home", "g"):
            self._select(0, moved=True)
        elif key in ("end", "G"):
            self._select(1 << 40, moved=True)
        elif key in ("1", "2", "3", "4", "tab"):
            tab = (self.wanted.tab + 1) % len(TABS) if key == "tab" else int(key) - 1
            self.wanted, self._selected, self._anchor = self.wanted._replace(tab=tab, page=1), 0, ""
        elif key == "/":
            self._mode, self._text, self.wanted = "filter", self.wanted.query, self.wanted._replace(tab=0)
        elif key == "esc":
            self._set_filter("")
        elif key in ("?", "h"):
            self._mode = "help"
        elif key == "q":
            self.is_over = True
        elif key in ("r", "p", "u", "s"):
            self._ask(key)

    def _ask(self, key: str) -> None:
        row = self._row
        if key == "s":
            if row is None or not row.run_id:
                self.message = "No run is selected that can be stopped: see 2, the runs"
                return
            self._asked, self._mode = Change("stop", row.run_id), "confirm"
        elif row is None or not row.name:
            self.message = "No entry is selected"
        elif key == "p":
            self._asked, self._mode, self._text = Change("pause", row.name), "pause", ""
        else:
            self._asked, self._mode = Change("run" if key == "r" else "resume", row.name), "confirm"

    def _confirmed(self, key: str) -> Change | None:
        asked, self._asked, self._mode = self._asked, None, ""
        if key in ("y", "Y"):
            self.message = "…"
            return asked
        self.message = "Nothing was changed"
        return None

    def _answer_pause(self, key: str) -> Change | None:
        if key == "esc":
            return self._confirmed("n")
        if key != "enter":
            self._write(key, lambda _: None)
            return None
        word, _, rest = self._text.strip().partition(" ")
        try:
            length_ms = duration_ms(word) if word else None
        except ScheduleError as error:
            self.message = str(error)
            return None
        assert self._asked is not None  # noqa: S101 - the prompt is about it
        self._asked = self._asked._replace(length_ms=length_ms, reason=rest.strip())
        return self._confirmed("y")

    def _write(self, key: str, changed: Callable[[str], None]) -> None:
        if key in ("enter", "esc"):
            self._mode = ""
            if key == "esc":
                changed("")
            return
        self._text = self._text[:-1] if key == "backspace" else self._text + key if len(key) == 1 else self._text
        self._text = self._text[:200]
        changed(self._text)

    def _set_filter(self, text: str) -> None:
        if text != self.wanted.query:
            self.wanted, self._selected, self._anchor = self.wanted._replace(query=text, page=1), 0, ""

    @property
    def _rows(self) -> int:
        return max(self._height - _CHROME, 1)

    @property
    def _table(self) -> Table:
        shown = self._snapshot
        return shown.table if shown is not None and shown.tab == self.wanted.tab else Table(())

    @property
    def _row(self) -> Row | None:
        place = self._selected - self._table.first
        return self._table.rows[place] if 0 <= place < len(self._table.rows) else None

    def _select(self, number: int, *, moved: bool = False) -> None:
        self._selected = min(max(number, 0), max(self._table.total - 1, 0))
        row = self._row
        if moved or not self._anchor:
            self._anchor = _identity(row) if row is not None else ""
        if self.wanted.tab == 0:
            self.wanted = self.wanted._replace(page=self._selected // PAGE + 1)

    def lines(self, width: int, height: int) -> list[Line]:
        """The lines of the screen, none wider than it."""
        self._height = height
        if width < NARROWEST or height < LOWEST:
            return [Line(f"{NARROWEST} x {LOWEST} needed"[:width])]
        if self._mode == "help":
            body = [Line(text) for text in HELP.splitlines()]
            return [
                Line("beatd top", "bold"),
                *[_fitted(line, width) for line in body][: height - 2],
                Line("any key: back"),
            ]
        found = [*self._head(), *self._body(width)]
        found += [Line("")] * (height - 3 - len(found))
        return [_fitted(line, width) for line in (*found[: height - 3], *self._foot(width))]

    def _head(self) -> list[Line]:
        seen = self._snapshot
        if seen is None:
            return [Line("beatd top", "bold"), Line("Asking the state store …", "dim")]
        time = moment_text(seen.now_ms, seen.timezone)
        counts = f"{seen.entries:,}" + (f", {seen.failing:,} failing" if seen.failing else "")
        tabs = "  ".join(
            f"[{number} {name}]" if number - 1 == self.wanted.tab else f" {number} {name} "
            for number, name in enumerate(TABS, 1)
        ).replace("Entries", f"Entries ({counts})")
        wanted = f"  /{self.wanted.query}" if self.wanted.query else ""
        return [Line(f"beatd top   {time}   {seen.leader}", "bold"), self._problem(seen), Line(tabs + wanted)]

    def _problem(self, seen: Snapshot) -> Line:
        if seen.away is not None:
            since = moment_text(seen.away.since_ms, seen.timezone)
            reason = local_text(seen.away.reason, seen.timezone)
            return Line(f"! The store is away since {since}: {reason}", "bad")
        if not seen.problems:
            return Line("Healthy", "good")
        more = f"   (and {len(seen.problems) - 1} more: beatd status)" if seen.problems[1:] else ""
        return Line(f"! {seen.problems[0]}{more}", "bad")

    def _body(self, width: int) -> list[Line]:
        table, rows = self._table, self._rows
        if table.problem:
            return [Line(""), Line(table.problem, "bad")]
        if not table.rows:
            return [Line(""), Line("…" if not table.columns else "None.", "dim")]
        first = self._selected // rows * rows
        if first < table.first or first >= table.first + len(table.rows):
            return [Line(""), Line("…", "dim")]
        shown = table.rows[first - table.first : first - table.first + rows]
        header, *texts = columns_of(table.columns, [row.cells for row in shown], width)
        selected = self._row
        return [
            Line(header, "bold"),
            *(
                Line(text.ljust(width) if row is selected else text, "selected" if row is selected else row.style)
                for text, row in zip(texts, shown, strict=True)
            ),
        ]

    def _foot(self, width: int) -> list[Line]:
        row, asked = self._row, self._asked
        place = f"{self._selected + 1:,} of {self._table.total:,}  " if row is not None else ""
        detail = Line(f"{place}{row.detail if row is not None else ''}", "dim")
        if self._mode == "filter":
            prompt = Line(f"/{self._text}_", "bold")
        elif self._mode == "pause" and asked is not None:
            ask = f"Pause {asked.subject}; for how long, why (2h migration; empty: until resumed; Esc: no): "
            prompt = Line(f"{self.message or ask[-max(width - len(self._text) - 1, 20) :]}{self._text}_", "warn")
        elif self._mode == "confirm" and asked is not None:
            what = {"run": "Run {} now", "resume": "Resume {}", "stop": "Stop run {}"}[asked.verb]
            prompt = Line(f"y or n: {what.format(asked.subject)}?", "warn")
        else:
            prompt = Line(self.message)
        return [detail, prompt, Line(_KEYS, "dim")]


def _identity(row: Row) -> str:
    return row.run_id or row.name or (row.cells[0] if row.cells else "")


def _fitted(line: Line, width: int) -> Line:
    return Line(cut(printable(line.text), width), line.style)


def cut(text: str, width: int) -> str:
    """The beginning of a text that fits into so many columns; one that is cut ends with an ellipsis."""
    if cell_len(text) <= width:
        return text
    used, kept = 0, 0
    for char in text:
        used += cell_len(char)
        if used > width - 1:
            break
        kept += 1
    return f"{text[:kept]}…" if width > 0 else ""


def columns_of(columns: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> list[str]:
    """Header and rows as lines of a width; the widest columns give way."""
    cells = [columns, *([printable(cell) for cell in row] for row in rows)]
    widths = [max(map(cell_len, column)) for column in zip(*cells, strict=True)]
    while sum(widths) + 2 * (len(widths) - 1) > width and max(widths) > 4:
        widths[widths.index(max(widths))] -= 1
    return ["  ".join(map(padded, row, widths)).rstrip() for row in cells]


def padded(text: str, width: int) -> str:
    """The text cut or filled up to exactly so many columns."""
    shown = cut(text, width)
    return shown + " " * (width - cell_len(shown))
