"""The HTML page: the facts that the template is given, schedules and moments as people read them.

Everything in it is escaped by the template.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from functools import cache
from hashlib import sha256
from importlib.resources import files
from itertools import groupby
from typing import Any, NamedTuple
from urllib.parse import quote

import jinja2
from markupsafe import Markup

import beatd
from beatd.client.entries import kind_of
from beatd.client.moments import with_moments
from beatd.client.outcomes import FAILED, MARKS, EntryOutcome, RunDetail
from beatd.planning.notation import schedule_phrase
from beatd.planning.phrase import in_words
from beatd.planning.preview import WAITS, Outlook
from beatd.schedules import Schedule, zone
from beatd.schedules.interval import Interval
from beatd.timestamps import from_ms, span_text, to_ms
from beatd.web.access import Person
from beatd.web.routing import name_in_path

MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000


class Moment(NamedTuple):
    """A moment: from now, on the clocks of a zone, in UTC (empty for a zone that shows the same), and in short."""

    relative: str
    local: str
    utc: str
    iso: str
    short: str = ""


def relative(ms: int) -> str:
    """``in 4 s``, ``12 min ago``: two units at most. Negative is past."""
    if abs(ms) < 1000:
        return "now"
    text = span_text(abs(ms))
    return f"in {text}" if ms > 0 else f"{text} ago"


def moment(ms: int, timezone: str, now_ms: int) -> Moment:
    """The moment as somebody reads it at ``now_ms``. The day is left out where it is today, in UTC where it is the
    same as in the zone."""
    info = zone(timezone).info
    at, now = from_ms(ms), from_ms(now_ms)
    local = at.astimezone(info)
    shown = f"{_clock(local, now.astimezone(info))} {local:%Z}"
    utc = "" if not local.utcoffset() else f"{_clock(at, local)} UTC"
    short = re.sub(r"(\d\d:\d\d):00\b", r"\1", re.sub(r"\.\d{3}", "", shown))
    return Moment(relative(ms - now_ms), shown, utc, at.isoformat(timespec="milliseconds"), short)


def _clock(at: datetime, now: datetime) -> str:
    time = f"{at:%H:%M:%S}" + (f".{at.microsecond // 1000:03}" if at.microsecond else "")
    if at.date() == now.date():
        return time
    return f"{at:%d %b} {time}" if at.year == now.year else f"{at:%d %b %Y} {time}"


def count(number: int, one: str, many: str) -> str:
    """``1 entry``, ``1,200 entries``."""
    return f"{number:,} {one if number == 1 else many}"


def in_zone(text: str, timezone: str) -> str:
    """An instant on the clocks of a zone, to the second."""
    return f"{instant(text).astimezone(zone(timezone).info):%a %d %b %H:%M:%S %Z}"


def moments_in(text: str, timezone: str, now_ms: int) -> str:
    """A text with its moments on the clocks of a zone; after "since" also how long ago that is."""

    def shown(since: str, ms: int) -> str:
        at = moment(ms, timezone, now_ms)
        return f"since {at.short}, {at.relative}" if since else at.short

    return with_moments(text, shown)


def instant(text: str) -> datetime:
    """An instant that was written in ISO 8601, with its offset."""
    return datetime.fromisoformat(text)


def milliseconds(ms: int) -> str:
    """A difference of clocks with its sign: ``+12 ms``, ``−3.4 s``."""
    sign = "−" if ms < 0 else "+" if ms else ""
    return f"{sign}{span_text(abs(ms))}"


class Frame(NamedTuple):
    """Frame of every page: the reader, what they may do, and what was done just now."""

    person: Person
    now_ms: int
    note: str = ""
    can_log_in: bool = False
    place: str = ""
    back: str = "/"


@cache
def shared_page() -> Page:
    """The page of this process."""
    return Page()


class Page:
    """Renders the page; the template, its style and its script are read once."""

    def __init__(self) -> None:
        folder = files("beatd.web").joinpath("assets")
        style, script = (folder.joinpath(name).read_text() for name in ("page.css", "page.js"))
        pages = sorted(each.name for each in folder.iterdir() if each.name.endswith(".html"))
        environment = jinja2.Environment(
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            loader=jinja2.DictLoader({name: folder.joinpath(name).read_text() for name in pages}),
        )
        environment.filters |= {
            "offset": milliseconds,
            "path": quote,
            "name_in_path": name_in_path,
            "duration": span_text,
            "count": count,
            "ago": lambda text, now_ms: relative(to_ms(instant(text)) - now_ms),
            "in_zone": in_zone,
            "moments": moments_in,
        }
        self._templates = {name: environment.get_template(name) for name in pages}
        self._fixed = {"style": Markup(style), "script": Markup(script), "version": beatd.__version__}  # noqa: S704
        self.policy = (
            f"default-src 'none'; style-src '{_hashed(style)}'; script-src '{_hashed(script)}'; connect-src 'self'; "
            "img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
        )
        """The Content-Security-Policy: this style and this script, and nothing else."""

    def render(self, template: str, frame: Frame, **facts: Any) -> str:
        """A page as HTML."""
        fixed = {**self._fixed, "frame": frame, "now_ms": frame.now_ms, "now": from_ms(frame.now_ms)}
        return self._templates[template].render(fixed, **facts)


def _hashed(text: str) -> str:
    return "sha256-" + base64.b64encode(sha256(text.encode()).digest()).decode()


def daemon_rows(status: Mapping[str, Any], now_ms: int) -> Iterator[dict[str, Any]]:
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
        elif not daemon["eligible"]:
            role = "not eligible"
        started_ms = to_ms(instant(daemon["started_at"]))
        yield {**daemon, "role": role, "kind": kind, "up": span_text(max(now_ms - started_ms, 0))}


def spread(median_ms: int | None, p95_ms: int | None) -> str:
    return "–" if median_ms is None or p95_ms is None else f"{span_text(median_ms)} ({span_text(p95_ms)})"


def run_row(run: RunDetail, zone: str, now_ms: int) -> dict[str, Any]:
    record, last = run.record, run.last
    return {
        "record": record,
        "word": run.word,
        "is_bad": run.word in FAILED,
        "due": moment(record.due_ms, zone, now_ms),
        "took": "" if record.runtime_ms is None else span_text(record.runtime_ms),
        "late": span_text(record.late_ms) if record.kind == "scheduled" and record.late_ms >= 1000 else "",
        "by_hand": record.kind if record.sent and record.kind != "scheduled" else "",
        "reason": record.reason or "",
        "error": last if last is not None and last.type and run.word != "success" else None,
        "last": last,
        "worker": run.started.worker if run.started else last.worker if last else "",
    }


def entry_row(each: Outlook, now_ms: int, outcome: EntryOutcome) -> dict[str, Any]:
    zone = each.entry.timezone
    return {
        "outcome": outcome,
        "marks": [(MARKS.get(word, "?") * len(list(same)), word) for word, same in groupby(outcome.words)],
        "is_bad": outcome.word in FAILED or outcome.failing_since_ms is not None,
        "entry": each.entry,
        "schedule": schedule_phrase(each.entry.schedule),
        "words": _words(each.entry.schedule),
        "name": each.entry.name,
        "kind": kind_of(each.entry),
        "runs": outcome.runs,
        "last": None if each.last_due_ms is None else moment(each.last_due_ms, zone, now_ms),
        "next": None if each.next_due_ms is None else moment(each.next_due_ms, zone, now_ms),
        "leaves": _leaves(each, now_ms),
        "note": each.note,
        "held": each.held is not None and each.next_due_ms is not None,
        "retry": relative(each.held.again_ms - now_ms) if each.held else "",
    }


_ZONE = re.compile(r", [\w/+-]+ time(?=;|$)")


def _words(schedule: Schedule) -> str:
    """The schedule in plain words, without its zone; what cannot be said so is shown as it is written."""
    if isinstance(schedule, Interval):
        return schedule_phrase(schedule).text
    try:
        return _ZONE.sub("", in_words(schedule))
    except Exception:  # noqa: BLE001 - one schedule that cannot be said must not hide the page
        return schedule_phrase(schedule).text


def _leaves(each: Outlook, now_ms: int) -> str:
    """When the next run leaves, where that is not when it is due, or why it has not left."""
    if each.note == WAITS:
        return each.note
    if each.next_fire_ms is None or each.next_due_ms is None or each.next_fire_ms == each.next_due_ms:
        return ""
    if each.next_fire_ms <= now_ms:
        return "overdue"
    if each.next_due_ms <= now_ms:
        return f"leaves {relative(each.next_fire_ms - now_ms)}"
    return f"leaves {span_text(each.next_fire_ms - each.next_due_ms)} later"
