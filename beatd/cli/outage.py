"""Outages of the state store as ``beatd status`` tells of them: since when, if a process on this machine knows it."""

from __future__ import annotations

import http.client
import re
from contextlib import suppress
from typing import Any

from beatd.cli.healthcheck import ask
from beatd.clock import SystemClock
from beatd.exceptions import StoreError, StoreUnavailable
from beatd.listen_address import ListenAddress
from beatd.model import Settings
from beatd.planning.problems import problem_facts, store_problem
from beatd.timestamps import iso_ms, utc_text
from beatd.urls import shown

_ASK_S = 4.0
"""A process whose store hangs waits for it, and then answers."""
_DOWN = re.compile(r"^beatd_store_down_seconds ([0-9.e+]{1,20})$", re.MULTILINE)


def with_since(error: StoreError, settings: Settings) -> StoreError:
    """The error, with since when, if the store is away and the process at ``[metrics] listen`` knows that."""
    if not isinstance(error, StoreUnavailable) or settings.metrics.listen is None:
        return error
    with suppress(OSError, ValueError, OverflowError, http.client.HTTPException):
        address = ListenAddress.parse(settings.metrics.listen)
        status, answer = ask(address.for_clients, "/metrics", _ASK_S)
        found = _DOWN.search(answer) if status == 200 else None
        if found is not None and (away_ms := int(float(found[1]) * 1000)):
            since_ms = SystemClock().now_ms() - away_ms
            told = type(error)(f"{error}, since {utc_text(since_ms)}")
            told.since_ms = since_ms
            return told
    return error


def without_store(error: StoreError, settings: Settings) -> dict[str, Any]:
    """The document of ``beatd status --json`` while the store is away, or refuses."""
    url, since_ms = settings.redis.url, error.since_ms if isinstance(error, StoreUnavailable) else None
    return {
        "state_store": {
            "place": shown(url),
            "prefix": settings.redis.prefix,
            "problem": str(error),
            "since": None if since_ms is None else iso_ms(since_ms),
        },
        "ready": False,
        "not_ready": [str(error)],
        "problems": [str(error)],
        "problem_details": [problem_facts(store_problem(error, since_ms))],
    }
