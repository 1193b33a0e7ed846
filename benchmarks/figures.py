"""Figures of benchmarks: what was measured, as a Markdown table and as SVG pictures.

One :class:`Figure` is one measurement. Those of the same row and contender, from several rounds, become a median and a
spread. A limit is what the server or the machine does in the same minute without any contender.
"""

from __future__ import annotations

import importlib.metadata
import json
import math
import os
import platform
import subprocess
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from statistics import median
from typing import NamedTuple

LIMIT = "limit"
PACKAGES = ("celery", "celery-redbeat", "APScheduler", "dramatiq", "huey", "taskiq", "saq", "kombu", "redis", "cronsim")


class Figure(NamedTuple):
    """One measurement."""

    row: str
    what: str
    who: str
    value: float
    unit: str = "/s"
    more_is_better: bool = True


class Line(NamedTuple):
    """The measurements of one row."""

    row: str
    what: str
    unit: str
    more_is_better: bool
    values: dict[str, list[float]]

    @property
    def ours(self) -> str | None:
        return next((who for who in self.values if who == "beatd"), None)

    @property
    def limit(self) -> str | None:
        return next((who for who in self.values if who.startswith(LIMIT)), None)

    @property
    def best_peer(self) -> str | None:
        peers = [who for who in self.values if not who.startswith((LIMIT, "beatd"))]
        best = max if self.more_is_better else min
        return best(peers, key=lambda who: median(self.values[who]), default=None)


def lines(figures: Iterable[Figure]) -> list[Line]:
    """The figures by row, in the order in which the rows came first."""
    found: dict[tuple[str, str], Line] = {}
    for one in figures:
        line = found.setdefault((one.row, one.what), Line(one.row, one.what, one.unit, one.more_is_better, {}))
        line.values.setdefault(one.who, []).append(one.value)
    return list(found.values())


def number(value: float, unit: str) -> str:
    """A value with three digits that count."""
    if not math.isfinite(value):
        return "–"
    digits = max(0, 2 - math.floor(math.log10(abs(value)))) if value else 0
    text = f"{value:,.0f}" if abs(value) >= 100 else f"{value:.{digits}f}"
    return f"{text}{unit}" if unit.startswith("/") else f"{text} {unit}"


def spread(values: Sequence[float], unit: str) -> str:
    """The median, and the least and the most beside it."""
    text = number(median(values), unit)
    return text if len(values) == 1 else f"{text} ({number(min(values), '').strip()}–{number(max(values), '').strip()})"


def machine() -> list[str]:
    """The machine and the versions."""
    try:
        model = next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line)
        cpu = model.partition(":")[2].strip()
    except (OSError, StopIteration):
        cpu = platform.processor() or platform.machine()
    versions = []
    for name in PACKAGES:
        try:
            versions.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False).stdout
    load = ", ".join(f"{one:.1f}" for one in os.getloadavg())
    return [
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC; commit {commit.strip() or 'unknown'}",
        f"{os.cpu_count()} cores ({cpu}); load averages {load}; {platform.platform(terse=True)}",
        f"Python {platform.python_version()}; {', '.join(versions)}",
    ]


def table(found: Sequence[Line]) -> str:
    """The lines as a Markdown table."""
    rows = [
        "| what | | beatd | best peer | limit | beatd / peer | of the limit |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for line in found:
        cells = [line.row, line.what]
        ours, peer, limit = line.ours, line.best_peer, line.limit
        for who in (ours, peer, limit):
            name = f"{who.removeprefix(LIMIT).strip(': ')} " if who and who != "beatd" else ""
            cells.append(f"{name}{spread(line.values[who], line.unit)}" if who else "")
        cells += (_ratio(line, ours, one, percent=one == limit) if ours and one else "" for one in (peer, limit))
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def _ratio(line: Line, ours: str, other: str, *, percent: bool) -> str:
    mine, theirs = median(line.values[ours]), median(line.values[other])
    if not mine or not theirs or not (math.isfinite(mine) and math.isfinite(theirs)):
        return ""
    ratio = mine / theirs if line.more_is_better else theirs / mine
    return f"{100 * ratio:.0f} %" if percent else f"{ratio:,.1f} ×"


WIDTH, LABELS, BAR, GAP = 760, 190, 20, 8


def bars(line: Line) -> str:
    """The contenders of a line as bars; on a logarithmic scale when they are more than thirty times apart."""
    values = {who: median(each) for who, each in line.values.items()}
    values = {who: value for who, value in values.items() if math.isfinite(value) and value > 0}
    if not values:
        return ""
    top, low = max(values.values()), min(values.values())
    is_log = top / low > 30
    room = WIDTH - LABELS - 190

    def length(value: float) -> float:
        return room * (math.log10(value / low * 3) / math.log10(top / low * 3) if is_log else value / top)

    height = (BAR + GAP) * len(values) + 44
    parts = [_text(8, 20, f"{line.row}: {line.what}" + (" (logarithmic)" if is_log else ""), bold=True)]
    for place, (who, value) in enumerate(values.items()):
        y = 34 + place * (BAR + GAP)
        color = "#2563eb" if who.startswith("beatd") else "#9ca3af" if who.startswith(LIMIT) else "#d97706"
        parts.append(f'<rect x="{LABELS}" y="{y}" width="{max(length(value), 1):.1f}" height="{BAR}" fill="{color}"/>')
        parts.append(_text(LABELS - 8, y + 15, who, anchor="end"))
        parts.append(_text(LABELS + length(value) + 6, y + 15, spread(line.values[who], line.unit)))
    return _svg(WIDTH, height, parts)


def curve(title: str, unit_x: str, unit_y: str, series: dict[str, Sequence[tuple[float, float]]]) -> str:
    """Values over a size, both on logarithmic scales: what grows with the size is a straight line that rises."""
    width, height, left, bottom = 760, 360, 80, 50
    points = [point for each in series.values() for point in each if point[0] > 0 and point[1] > 0]
    (x0, x1), (y0, y1) = (_decades([point[axis] for point in points]) for axis in (0, 1))

    def place(x: float, y: float) -> tuple[float, float]:
        across = (math.log10(x) - x0) / max(x1 - x0, 1)
        up = (math.log10(y) - y0) / max(y1 - y0, 1)
        return left + across * (width - left - 170), 40 + (1 - up) * (height - 40 - bottom)

    parts = [_text(8, 20, title, bold=True), _text(width - 170, height - 12, unit_x, anchor="end")]
    parts.append(_text(8, 38, unit_y))
    for exponent in range(x0, x1 + 1):
        x, y = place(10**exponent, 10**y0)
        parts.append(f'<line x1="{x:.1f}" y1="{y:.1f}" x2="{x:.1f}" y2="40" stroke="#e5e7eb"/>')
        parts.append(_text(x, y + 16, f"{10**exponent:,}", anchor="middle"))
    for exponent in range(y0, y1 + 1):
        x, y = place(10**x0, 10**exponent)
        parts.append(f'<line x1="{x:.1f}" y1="{y:.1f}" x2="{width - 170}" y2="{y:.1f}" stroke="#e5e7eb"/>')
        parts.append(_text(x - 6, y + 4, f"{10.0**exponent:,g}", anchor="end"))
    colors = ("#2563eb", "#d97706", "#059669", "#dc2626", "#7c3aed", "#6b7280")
    for number_, (name, each) in enumerate(series.items()):
        color = colors[number_ % len(colors)]
        places = [place(*point) for point in each if min(point) > 0]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{color}"/>' for x, y in places]
        parts.append(_text(width - 160, 56 + 18 * number_, name, color=color))
    return _svg(width, height, parts)


def _decades(values: Sequence[float]) -> tuple[int, int]:
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    return low, max(high, low + 1)


def _text(x: float, y: float, text: str, *, anchor: str = "start", bold: bool = False, color: str = "#111827") -> str:
    weight = ' font-weight="600"' if bold else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{color}"{weight}>{escape(text)}</text>'


def _svg(width: float, height: float, parts: Sequence[str]) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    ground = '<rect width="100%" height="100%" fill="#ffffff"/>'
    return f'{head} font-family="sans-serif" font-size="12">\n{ground}\n' + "\n".join(parts) + "\n</svg>\n"


def write(figures: Sequence[Figure], folder: Path, name: str, remarks: Sequence[str] = ()) -> Path:
    """Write ``<name>.md``, its pictures, and the figures as JSON; returns the first of them."""
    folder.mkdir(parents=True, exist_ok=True)
    found, pictures = lines(figures), []
    for place, line in enumerate(found):
        if len(line.values) > 1 and (picture := bars(line)):
            file = folder / f"{name}-{place:02}.svg"
            file.write_text(picture)
            pictures.append(f"![{line.row}: {line.what}]({file.name})")
    kept = " ".join(pictures)
    for file in folder.glob(f"{name}-*.svg"):
        if f"({file.name})" not in kept:
            file.unlink()  # of an earlier run
    text = [f"# Benchmarks, {name}", "", *(f"* {line}" for line in (*machine(), *remarks)), ""]
    text += ["A value is the median of its rounds, with the least and the most beside it.", "", table(found), ""]
    (folder / f"{name}.md").write_text("\n".join([*text, *pictures, ""]))
    (folder / f"{name}.json").write_text(json.dumps([one._asdict() for one in figures], indent=1) + "\n")
    return folder / f"{name}.md"


def show(figures: Iterable[Figure]) -> None:
    """Print figures as they come."""
    for one in figures:
        print(f"{one.row:36} {one.what:30} {one.who:34} {number(one.value, one.unit):>16}", flush=True)
