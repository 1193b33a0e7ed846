"""Heat map of a timeline: rows of cells with a level of load each, as the page draws them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from math import ceil, log
from statistics import median
from typing import Any, NamedTuple

from beatd.client.moments import local_time
from beatd.timestamps import to_ms

LEVELS = 5


class Cell(NamedTuple):
    """A stretch of time with runs, or in a blackout. ``level`` is 0 to 5."""

    column: int
    level: int
    text: str


class Row(NamedTuple):
    """An hour or a day; spans of blackouts and changes of clocks as columns."""

    label: str
    about: str
    cells: list[Cell]
    closed: list[tuple[float, float]]
    changes: list[float]


class HeatMap(NamedTuple):
    """``columns`` of each row; ``marks`` are the labels above some of them."""

    rows: list[Row]
    columns: int
    marks: list[str]
    most: int


def heat_map(document: Mapping[str, Any], timezone: str) -> HeatMap:
    """The map of a timeline's document: hours by minutes of a day, days by quarters of a week."""
    step_ms, counts, start_ms = document["step_ms"], document["counts"], _ms(document["from"])
    is_day = step_ms == 60_000
    columns = 60 if is_day else 96
    marks = [":00", ":15", ":30", ":45"] if is_day else ["+0 h", "+6 h", "+12 h", "+18 h"]
    most, usual = max(counts, default=0), median([count for count in counts if count] or [0])
    spans = [(_ms(span["from"]), _ms(span["to"])) for one in document["blackouts"] for span in one["spans"]]
    changes = [_ms(one["at"]) for one in document["clock_changes"]]
    rows = []
    offset = local_time(start_ms, timezone).minute if is_day else 0  # some zones are off by half an hour
    first_ms = start_ms - offset * step_ms
    padded = [0] * offset + list(counts)
    for first in range(0, len(padded), columns):
        row_ms, part = first_ms + first * step_ms, padded[first : first + columns]
        end_ms = row_ms + columns * step_ms
        label = local_time(row_ms, timezone).strftime("%H:%M" if is_day else "%a %d %H:%M")
        cells = [
            Cell(column, _level(count, usual, most), f"{_clock(row_ms + column * step_ms, timezone)}: {_runs(count)}")
            for column, count in enumerate(part)
            if count
        ]
        rows.append(
            Row(
                label,
                _about(label, part, row_ms, step_ms, timezone),
                cells,
                [_columns(span, row_ms, step_ms, columns) for span in spans if span[0] < end_ms and span[1] > row_ms],
                [(at - row_ms) / step_ms for at in changes if row_ms <= at < end_ms],
            )
        )
    return HeatMap(rows, columns, marks, most)


class Herd(NamedTuple):
    """Busy seconds in which the same entries run: the first of them, and how many."""

    at: str
    runs: int
    entries: list[dict[str, Any]]
    times: int


HERDS_SHOWN = 8


def herds(document: Mapping[str, Any]) -> list[Herd]:
    """The busiest seconds of a timeline's document, those of the same entries together."""
    alike: dict[tuple[int, str], list[Mapping[str, Any]]] = {}
    for one in document["busiest"]:
        names = ",".join(sorted(each["entry"] for each in one["entries"]))
        alike.setdefault((one["runs"], names), []).append(one)
    found = [
        Herd(min(one["at"] for one in same), same[0]["runs"], same[0]["entries"], len(same)) for same in alike.values()
    ]
    return sorted(found, key=lambda herd: (-herd.runs, herd.at))[:HERDS_SHOWN]


class Bar(NamedTuple):
    """A quarter of an hour of the past: heights of 0 to 100."""

    column: int
    planned: float
    sent: float
    failed: float
    text: str


def past_bars(past: Mapping[str, Any], timezone: str) -> list[Bar]:
    """The bars of what ran, above what was planned."""
    start_ms, step_ms, planned = _ms(past["from"]), past["step_ms"], past["planned"] or [0] * len(past["sent"])
    most = max([*planned, *past["sent"], 1])
    return [
        Bar(
            column,
            100 * plan / most,
            100 * sent / most,
            100 * failed / most,
            f"{_clock(start_ms + column * step_ms, timezone)}: {plan:,} planned, {sent:,} sent, {failed:,} failed,"
            f" {skipped:,} left out",
        )
        for column, (plan, sent, failed, skipped) in enumerate(
            zip(planned, past["sent"], past["failed"], past["skipped"], strict=False)
        )
        if plan or sent or skipped
    ]


def _about(label: str, part: Sequence[int], row_ms: int, step_ms: int, timezone: str) -> str:
    if not any(part):
        return f"{label}: no run"
    most = max(part)
    at = _clock(row_ms + part.index(most) * step_ms, timezone)
    return f"{label}: {_runs(sum(part))}, most at {at}: {most:,}"


def _runs(count: int) -> str:
    return "1 run" if count == 1 else f"{count:,} runs"


def _level(count: int, usual: float, most: int) -> int:
    """The usual load is pale, twice as much or the most of all is dark: herds stand out, an even load does not."""
    if count <= usual:
        return 1
    return min(LEVELS, 1 + ceil((LEVELS - 1) * log(count / usual) / log(max(most / usual, 2))))


def _columns(span: tuple[int, int], row_ms: int, step_ms: int, columns: int) -> tuple[float, float]:
    first = max((span[0] - row_ms) / step_ms, 0)
    return first, min((span[1] - row_ms) / step_ms, columns) - first


def _ms(text: str) -> int:
    return to_ms(datetime.fromisoformat(text))


def _clock(ms: int, timezone: str) -> str:
    return f"{local_time(ms, timezone):%a %H:%M}"
