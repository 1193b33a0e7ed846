"""Monitors of entries: dead-man pings (healthchecks.io and alike), and check-ins of Sentry's crons."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Literal
from urllib.parse import quote, unquote, urlencode, urlsplit, urlunsplit

from beatd.model import Entry, SentryMonitor
from beatd.notify.http_request import host_of, request
from beatd.redaction import printable, redacted_text
from beatd.schedules.cron import Cron
from beatd.schedules.interval import Interval, Relative

Event = Literal["start", "success", "fail"]
_STATUS: Mapping[str, str] = {"start": "in_progress", "success": "ok", "fail": "error"}
TIMEOUT_S = 10.0
_FIRST_LINE_MAX = 500
_MINUTE_MS = 60_000
_PLAIN_CRON = re.compile(r"\s*(?:[\d*/,\-a-zA-Z]+\s+){4}[\d*/,\-a-zA-Z]+\s*")
"""Five fields without L, W, # and H, which Sentry reads as cron does."""
_UNITS = (("week", 604_800_000), ("day", 86_400_000), ("hour", 3_600_000), ("minute", _MINUTE_MS))


def ping(entry: Entry, body: Mapping[str, Any], now_ms: int) -> None:
    """Ping the URL of an entry: ``/start``, the URL itself, or ``/fail`` with the error's first line.

    The run id goes with it as ``rid``, so that runs that overlap are told apart. Raises DeliveryFailed.
    """
    event: Event = body["what"]
    parts = urlsplit(entry.policies.ping or "")
    path = parts.path if event == "success" else f"{parts.path.rstrip('/')}/{event}"
    rid = urlencode({"rid": body["run_id"]})
    query = f"{parts.query}&{rid}" if parts.query else rid
    url = urlunsplit(parts._replace(path=path, query=query))
    first_line = " ".join(str(body.get("error") or "").strip().partition("\n")[0].split())
    error = printable(redacted_text(first_line, at_most=_FIRST_LINE_MAX))
    text = (error or "failed").encode() if event == "fail" else None
    request(url, now_ms=now_ms, timeout_s=TIMEOUT_S, body=text, headers={"Content-Type": "text/plain; charset=utf-8"})


def check_in(entry: Entry, monitor: SentryMonitor, body: Mapping[str, Any], now_ms: int) -> None:
    """Send a check-in to Sentry; raises DeliveryFailed."""
    parts = urlsplit(monitor.dsn)
    folder, _, project = parts.path.rpartition("/")
    slug = monitor.monitor or slug_of(entry.name)
    host = parts.netloc.rpartition("@")[2]
    path = f"{folder}/api/{project}/cron/{slug}/{quote(unquote(parts.username or ''), safe='')}/"
    sent: dict[str, Any] = {
        "check_in_id": str(body["run_id"]).replace("-", ""),
        "monitor_slug": slug,
        "status": _STATUS[body["what"]],
        "environment": monitor.environment or "production",
    }
    if body.get("runtime_ms") is not None:
        sent["duration"] = body["runtime_ms"] / 1000
    if config := _monitor_config(entry):
        sent["monitor_config"] = config
    url = urlunsplit((parts.scheme, host, path, "", ""))
    request(url, now_ms=now_ms, timeout_s=TIMEOUT_S, body=json.dumps(sent).encode())


def host(url: str) -> str:
    """The host that is asked, for a queue of its own."""
    return host_of(url)


def slug_of(name: str) -> str:
    """The slug of a monitor from the name of an entry."""
    return re.sub(r"[^a-z0-9_-]+", "-", name.lower()).strip("-_")[:50] or "beatd"


def _monitor_config(entry: Entry) -> dict[str, Any] | None:
    """The monitor's settings, so that Sentry makes it; None for schedules that Sentry does not know."""
    schedule: dict[str, Any]
    match entry.schedule:
        case Cron(notation=str(notation)) if _PLAIN_CRON.fullmatch(notation):
            schedule = {"type": "crontab", "value": notation}
        case Interval() | Relative():
            unit = next((one for one in _UNITS if entry.schedule.every_ms % one[1] == 0), None)
            if unit is None:
                return None
            schedule = {"type": "interval", "value": entry.schedule.every_ms // unit[1], "unit": unit[0]}
        case _:
            return None
    policies = entry.policies
    config: dict[str, Any] = {"schedule": schedule, "timezone": entry.timezone}
    if policies.overdue_after_ms:
        config["checkin_margin"] = max(policies.overdue_after_ms // _MINUTE_MS, 1)
    if policies.expect_within_ms:
        config["max_runtime"] = max(policies.expect_within_ms // _MINUTE_MS, 1)
    return config
