"""The one HTML page: what the template is given, and how it is made. Everything in it is escaped by the template."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from importlib.resources import files
from typing import Any, NamedTuple
from urllib.parse import urlencode

import jinja2
from markupsafe import Markup

import beatd
from beatd.epoch import from_ms, to_ms
from beatd.web import words
from beatd.web.outlook import Outlook

MISMATCH_AFTER_S = 20.0
"""Seconds for which the file may differ from what the daemons have: a change reaches all within some seconds."""


class Slice(NamedTuple):
    """The part of the entries that is shown. Pages count from 1."""

    outlooks: Sequence[Outlook]
    query: str
    page: int
    pages: int
    matching: int
    total: int

    def link(self, page: int) -> str:
        """The query string of another page of the same search."""
        wanted = {"q": self.query} if self.query else {}
        return "?" + urlencode(wanted | {"page": str(page)})


class Page:
    """Renders the page; the template, its style and its script are read once."""

    def __init__(self) -> None:
        folder = files("beatd.web").joinpath("assets")
        style, script, template = (folder.joinpath(name).read_text() for name in ("page.css", "page.js", "page.html"))
        environment = jinja2.Environment(
            autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
        )
        environment.filters["offset"] = words.milliseconds
        self._template = environment.from_string(template)
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
        return self._template.render(
            self._fixed,
            file=file,
            now_ms=now_ms,
            now=from_ms(now_ms),
            status=status,
            daemons=list(_daemons(status, now_ms)) if status else [],
            problems=problems,
            part=part,
            rows=[_row(each, now_ms) for each in part.outlooks],
        )


def mismatch(status: Mapping[str, Any], digest: str, age: float) -> bool:
    """Whether the file of this page, read ``age`` seconds ago, is not what any of the daemons has."""
    digests = {daemon["digest"] for daemon in status["daemons"] if daemon["alive"]}
    return bool(digests) and digest not in digests and age > MISMATCH_AFTER_S


def _hashed(text: str) -> str:
    return "sha256-" + base64.b64encode(sha256(text.encode()).digest()).decode()


def _daemons(status: Mapping[str, Any], now_ms: int) -> Iterator[dict[str, Any]]:
    """The daemons, those that are alive first, each with what it does in words."""
    sharded = len(status["shards"]) > 1
    for daemon in sorted(status["daemons"], key=lambda one: (not one["alive"], one["started_at"], one["id"])):
        led = daemon["shards"]
        role, kind = "standing by", "idle"
        if not daemon["alive"]:
            role, kind = f"gone; heard of {words.relative(-daemon['seen_ms_ago'])}", "gone"
        elif led:
            parts = (f"{one['shard']} (term {one['term']})" for one in led)
            role = f"leads {', '.join(parts)}" if sharded else f"leads, term {led[0]['term']}"
            kind = "leads"
        started_ms = to_ms(words.instant(daemon["started_at"]))
        yield {**daemon, "role": role, "kind": kind, "up": words.length(max(now_ms - started_ms, 0))}


def _row(each: Outlook, now_ms: int) -> dict[str, Any]:
    zone = each.entry.timezone
    return {
        "entry": each.entry,
        "schedule": words.schedule_phrase(each.entry.schedule),
        "runs": each.runs,
        "last": None if each.last_due_ms is None else words.moment(each.last_due_ms, zone, now_ms),
        "next": None if each.next_due_ms is None else words.moment(each.next_due_ms, zone, now_ms),
        "leaves": _leaves(each, now_ms),
        "note": each.note,
        "held": each.held is not None and each.next_due_ms is not None,
    }


def _leaves(each: Outlook, now_ms: int) -> str:
    """When the next run leaves, where that is not when it is due."""
    if each.next_fire_ms is None or each.next_due_ms is None or each.next_fire_ms == each.next_due_ms:
        return ""
    if each.next_due_ms <= now_ms:
        return f"leaves {words.relative(each.next_fire_ms - now_ms)}"
    return f"leaves {words.length(each.next_fire_ms - each.next_due_ms)} later"
