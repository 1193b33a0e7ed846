"""The HTML page: the facts that the template is given, schedules and moments as people read them.

Everything in it is escaped by the template.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from hashlib import sha256
from importlib.resources import files
from itertools import groupby
from types import MappingProxyType
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

import jinja2
from markupsafe import Markup

import beatd
from beatd.client.outcomes import FAILED, MARKS, EntryOutcome, RunDetail, Statistics
from beatd.planning.notation import schedule_phrase
from beatd.planning.preview import Outlook
from beatd.schedules import zone
from beatd.store.history import Totals
from beatd.timestamps import from_ms, to_ms

MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000


class Moment(NamedTuple):
    """A moment three times: from now, on the clocks of a zone, and in UTC (empty for a zone that shows the same)."""

    relative: str
    local: str
    utc: str
    iso: str


def relative(ms: int) -> str:
    """``in 4 s``, ``12 min ago``: two units at most. Negative is past."""
    if abs(ms) < 1000:
        return "now"
    text = length(abs(ms))
    return f"in {text}" if ms > 0 else f"{text} ago"


def length(ms: int) -> str:
    """``15 ms``, ``4 s``, ``12 min``, ``3 h 10 min``, ``5 days``."""
    if ms < 1000:
        return f"{ms} ms"
    if ms < MINUTE:
        return f"{ms // 1000} s"
    if ms < HOUR:
        return f"{ms // MINUTE} min"
    if ms < 2 * DAY:
        hours, minutes = ms // HOUR, ms % HOUR // MINUTE
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    return f"{ms // DAY} days"


def moment(ms: int, timezone: str, now_ms: int) -> Moment:
    """The moment as somebody reads it at ``now_ms``. The day is left out where it is today, in UTC where it is the
    same as in the zone."""
    info = zone(timezone).info
    at, now = from_ms(ms), from_ms(now_ms)
    local = at.astimezone(info)
    shown = f"{_clock(local, now.astimezone(info))} {local:%Z}"
    utc = "" if not local.utcoffset() else f"{_clock(at, local)} UTC"
    return Moment(relative(ms - now_ms), shown, utc, at.isoformat(timespec="milliseconds"))


def _clock(at: datetime, now: datetime) -> str:
    time = f"{at:%H:%M:%S}" + (f".{at.microsecond // 1000:03}" if at.microsecond else "")
    if at.date() == now.date():
        return time
    return f"{at:%d %b} {time}" if at.year == now.year else f"{at:%d %b %Y} {time}"


def instant(text: str) -> datetime:
    """An instant that was written in ISO 8601, with its offset."""
    return datetime.fromisoformat(text)


def milliseconds(ms: int) -> str:
    """A difference of clocks with its sign: ``+12 ms``, ``−3.4 s``."""
    sign = "−" if ms < 0 else "+" if ms else ""
    return f"{sign}{abs(ms)} ms" if abs(ms) < 1000 else f"{sign}{abs(ms) / 1000:.1f} s"


MISMATCH_AFTER_S = 20.0
"""Seconds for which the file may differ from what the daemons have: a change reaches all within some seconds."""


FILTERS = {"failing": "Failing", "overdue": "Overdue", "paused": "Paused", "held": "Held back"}
ORDERS = {"name": "Name", "last": "Last run", "failures": "Failures"}


class View(NamedTuple):
    """A filter of :data:`FILTERS`, or none, and an order of :data:`ORDERS`."""

    only: str = ""
    sort: str = "name"


class Slice(NamedTuple):
    """The part of the entries that is shown. Pages count from 1."""

    outlooks: Sequence[Outlook]
    query: str
    page: int
    pages: int
    matching: int
    total: int
    view: View = View()
    outcomes: Mapping[str, EntryOutcome] = MappingProxyType({})

    def outcome(self, name: str) -> EntryOutcome:
        """The outcomes of an entry that is shown."""
        return self.outcomes.get(name, EntryOutcome(None, ()))

    def link(self, page: int = 1, *, only: str | None = None, sort: str | None = None) -> str:
        """The query string of another page, filter or order of the same search."""
        only, sort = self.view.only if only is None else only, sort or self.view.sort
        wanted = {"q": self.query, "only": only, "sort": "" if sort == "name" else sort}
        return "?" + urlencode({key: value for key, value in wanted.items() if value} | {"page": str(page)})


class Page:
    """Renders the page; the template, its style and its script are read once."""

    def __init__(self) -> None:
        folder = files("beatd.web").joinpath("assets")
        style, script = (folder.joinpath(name).read_text() for name in ("page.css", "page.js"))
        pages = ("base.html", "macros.html", "page.html", "entry.html", "run.html")
        environment = jinja2.Environment(
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            loader=jinja2.DictLoader({name: folder.joinpath(name).read_text() for name in pages}),
        )
        environment.filters["offset"] = milliseconds
        environment.filters["path"] = quote
        self._templates = {name: environment.get_template(name) for name in pages}
        self._fixed = {"style": Markup(style), "script": Markup(script), "version": beatd.__version__}  # noqa: S704
        self.policy = (
            f"default-src 'none'; style-src '{_hashed(style)}'; script-src '{_hashed(script)}'; connect-src 'self'; "
            "img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
        )
        """The Content-Security-Policy: this style and this script, and nothing else."""

    def render(
        self, *, file: str, now_ms: int, part: Slice, status: Mapping[str, Any] | None, problems: Sequence[str]
    ) -> str:
        """The page as HTML. ``status`` as ``beatd status --json`` has it, ``None`` while the store cannot be asked."""
        return self._templates["page.html"].render(
            self._fixed,
            filters=FILTERS,
            orders=ORDERS,
            file=file,
            now_ms=now_ms,
            now=from_ms(now_ms),
            status=status,
            daemons=list(_daemons(status, now_ms)) if status else [],
            problems=problems,
            part=part,
            rows=[_row(each, now_ms, part.outcome(each.entry.name)) for each in part.outlooks],
        )

    def render_entry(
        self,
        *,
        look: Outlook,
        outcome: EntryOutcome,
        runs: Sequence[RunDetail],
        totals: Totals,
        numbers: Statistics,
        now_ms: int,
        is_failed_only: bool,
    ) -> str:
        """The page of an entry."""
        zone = look.entry.timezone
        since = {
            "failing": outcome.failing_since_ms,
            "overdue": outcome.overdue_since_ms,
            "success": outcome.last_success_ms,
        }
        return self._templates["entry.html"].render(
            self._fixed,
            title=look.entry.name,
            now_ms=now_ms,
            now=from_ms(now_ms),
            row=_row(look, now_ms, outcome),
            outcome=outcome,
            since={name: None if ms is None else moment(ms, zone, now_ms) for name, ms in since.items()},
            runs=[_run(run, zone, now_ms) for run in runs],
            totals=totals,
            duration=_spread(numbers.duration_median_ms, numbers.duration_p95_ms),
            lateness=_spread(numbers.lateness_median_ms, numbers.lateness_p95_ms),
            is_failed_only=is_failed_only,
        )

    def render_run(self, run: RunDetail, *, now_ms: int) -> str:
        """The page of a run."""
        return self._templates["run.html"].render(
            self._fixed,
            title=f"{run.record.entry}, run {(run.record.run_id or '')[:8]}",
            now_ms=now_ms,
            now=from_ms(now_ms),
            run=_run(run, "UTC", now_ms),
            attempts=[
                {
                    "attempt": attempt,
                    "start": None if attempt.start_ms is None else moment(attempt.start_ms, "UTC", now_ms),
                    "end": moment(attempt.end_ms, "UTC", now_ms) if attempt.end_ms else None,
                }
                for attempt in run.attempts
            ],
        )


def mismatch(status: Mapping[str, Any], digest: str, age: float) -> bool:
    """True if the file of this page, read ``age`` seconds ago, is not what any of the daemons has."""
    digests = {daemon["digest"] for daemon in status["daemons"] if daemon["alive"]}
    return bool(digests) and digest not in digests and age > MISMATCH_AFTER_S


def _hashed(text: str) -> str:
    return "sha256-" + base64.b64encode(sha256(text.encode()).digest()).decode()


def _daemons(status: Mapping[str, Any], now_ms: int) -> Iterator[dict[str, Any]]:
    """The daemons, those that are alive first, each with what it does in words."""
    sharded = len(status["shards"]) > 1
    for daemon in sorted(status["daemons"], key=lambda one: (not one["alive"], one["started_at"], one["id"])):
        led = daemon["shards"]
        role, kind = "standby", "idle"
        if not daemon["alive"]:
            role, kind = f"gone; last heartbeat {relative(-daemon['seen_ms_ago'])}", "gone"
        elif led:
            parts = (f"{one['shard']} (term {one['term']})" for one in led)
            role = f"leads {', '.join(parts)}" if sharded else f"leads, term {led[0]['term']}"
            kind = "leads"
        started_ms = to_ms(instant(daemon["started_at"]))
        yield {**daemon, "role": role, "kind": kind, "up": length(max(now_ms - started_ms, 0))}


def _spread(median_ms: int | None, p95_ms: int | None) -> str:
    return "–" if median_ms is None or p95_ms is None else f"{length(median_ms)} ({length(p95_ms)})"


def _run(run: RunDetail, zone: str, now_ms: int) -> dict[str, Any]:
    record, last = run.record, run.last
    return {
        "record": record,
        "word": run.word,
        "is_bad": run.word in FAILED,
        "due": moment(record.due_ms, zone, now_ms),
        "took": "" if record.runtime_ms is None else length(record.runtime_ms),
        "late": length(record.late_ms) if record.sent and record.late_ms >= 1000 else "",
        "reason": record.reason or "",
        "error": last if last is not None and last.type and run.word != "success" else None,
        "last": last,
        "worker": run.started.worker if run.started else last.worker if last else "",
    }


def _row(each: Outlook, now_ms: int, outcome: EntryOutcome) -> dict[str, Any]:
    zone = each.entry.timezone
    return {
        "outcome": outcome,
        "marks": [(MARKS.get(word, "?") * len(list(same)), word) for word, same in groupby(outcome.words)],
        "is_bad": outcome.word in FAILED or outcome.failing_since_ms is not None,
        "entry": each.entry,
        "schedule": schedule_phrase(each.entry.schedule),
        "runs": each.runs,
        "last": None if each.last_due_ms is None else moment(each.last_due_ms, zone, now_ms),
        "next": None if each.next_due_ms is None else moment(each.next_due_ms, zone, now_ms),
        "leaves": _leaves(each, now_ms),
        "note": each.note,
        "held": each.held is not None and each.next_due_ms is not None,
        "retry": relative(each.held.again_ms - now_ms) if each.held else "",
    }


def _leaves(each: Outlook, now_ms: int) -> str:
    """When the next run leaves, where that is not when it is due."""
    if each.next_fire_ms is None or each.next_due_ms is None or each.next_fire_ms == each.next_due_ms:
        return ""
    if each.next_fire_ms <= now_ms:
        return "overdue"
    if each.next_due_ms <= now_ms:
        return f"leaves {relative(each.next_fire_ms - now_ms)}"
    return f"leaves {length(each.next_fire_ms - each.next_due_ms)} later"
