"""Runs over time as bars: as text of 80 columns, and as SVG."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from html import escape
from typing import NamedTuple

WIDTH, HEIGHT, MARGIN = 960, 320, 48
"""Of the SVG, in its own units."""

_EIGHTHS = " ▏▎▍▌▋▊▉█"
_BAR = 45


class Bars(NamedTuple):
    """Counts of equal stretches of time, the first of which begins at ``start`` (aware; its zone is the one shown)."""

    start: datetime
    width: timedelta
    counts: Sequence[int]

    def at(self, number: int) -> datetime:
        """When that stretch begins: so much real time after the start, on the clock of the zone."""
        zone = self.start.tzinfo
        return datetime.fromtimestamp(self.start.timestamp() + number * self.width.total_seconds(), zone)

    def joined(self, at_most: int, widths: Sequence[timedelta]) -> Bars:
        """The same in at most so many stretches: several of the old ones to each new one of a width in ``widths``."""
        for width in widths:
            each, rest = divmod(width, self.width)
            if each and not rest and -(-len(self.counts) // each) <= at_most:
                counts = [sum(self.counts[first : first + each]) for first in range(0, len(self.counts), each)]
                return Bars(self.start, width, counts)
        return self


def text_chart(bars: Bars, *, plain: bool = False) -> list[str]:
    """A line for each stretch: when it begins, a bar, the number. ``plain`` keeps to ASCII."""
    most = max(bars.counts, default=0) or 1
    form = "%Y-%m-%d" if bars.width >= timedelta(days=1) else "%Y-%m-%d %H:%M:%S"
    lines = []
    for number, count in enumerate(bars.counts):
        bar = ("#" * round(_BAR * count / most)) if plain else _bar(count / most)
        lines.append(f"{bars.at(number):{form}}  {bar:<{_BAR}} {count:>11,}".rstrip())
    return lines


def _bar(share: float) -> str:
    whole, eighth = divmod(round(share * _BAR * 8), 8)
    return "█" * whole + (_EIGHTHS[eighth] if eighth else "")


def svg_chart(bars: Bars, title: str) -> str:
    """The bars as a document: light or dark as the reader's system is, each bar with its time and number on hover."""
    most = max(bars.counts, default=0) or 1
    inner_width, inner_height = WIDTH - 2 * MARGIN, HEIGHT - 2 * MARGIN
    each = inner_width / max(1, len(bars.counts))
    bottom = HEIGHT - MARGIN
    rects = []
    for number, count in enumerate(bars.counts):
        if count:
            height = max(1.0, inner_height * count / most)
            place = f'x="{MARGIN + number * each:.2f}" y="{bottom - height:.2f}"'
            size = f'width="{max(0.5, each * 0.9):.2f}" height="{height:.2f}"'
            rects.append(f"<rect {place} {size}><title>{bars.at(number):%Y-%m-%d %H:%M:%S}: {count:,}</title></rect>")
    first, last = bars.at(0), bars.at(len(bars.counts))
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif">
<title>{escape(title)}</title>
<style>
  text {{ fill: #333; font-size: 13px }} rect {{ fill: #2b6cb0 }} line {{ stroke: #999 }} svg {{ background: #fff }}
  @media (prefers-color-scheme: dark) {{
    text {{ fill: #ddd }} rect {{ fill: #63b3ed }} svg {{ background: #1a202c }}
  }}
</style>
<text x="{MARGIN}" y="24" font-weight="bold">{escape(title)}</text>
<text x="{MARGIN}" y="{MARGIN - 6}">{most:,}</text>
<line x1="{MARGIN}" y1="{MARGIN}" x2="{WIDTH - MARGIN}" y2="{MARGIN}" stroke-dasharray="2 4"/>
<line x1="{MARGIN}" y1="{bottom}" x2="{WIDTH - MARGIN}" y2="{bottom}"/>
{chr(10).join(rects)}
<text x="{MARGIN}" y="{HEIGHT - 18}">{first:%Y-%m-%d %H:%M %Z}</text>
<text x="{WIDTH - MARGIN}" y="{HEIGHT - 18}" text-anchor="end">{last:%Y-%m-%d %H:%M %Z}</text>
</svg>
"""
