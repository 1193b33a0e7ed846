"""Registration of periodic entries: ``add_periodic_task`` and ``conf.beat_schedule`` as entries with Celery's keys."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from beatd.app.canvas.signature import Signature

log = logging.getLogger("beatd.app.registration")

Registration = dict[str, Any]
"""``task``, ``schedule``, ``args``, ``kwargs``, ``options``; from ``beat_schedule`` also what else an entry has."""


def registration(
    schedule: Any, call: Any, args: Iterable[Any], kwargs: Mapping[str, Any] | None, options: Mapping[str, Any]
) -> tuple[str, Registration]:
    """Return the entry for a signature or a task, and its default name: the call as text."""
    signature = call.clone(args, kwargs) if isinstance(call, Signature) else call.signature(args, kwargs)
    entry = {
        "task": signature.task,
        "schedule": schedule,
        "args": list(signature.args),
        "kwargs": signature.kwargs,
        "options": {**signature.options, **options},
    }
    return repr(signature), entry


def from_conf(beat_schedule: Mapping[str, Mapping[str, Any]]) -> dict[str, Registration]:
    """Return the entries of a ``beat_schedule`` dict, each with all five keys; missing keys get empty values."""
    entries = {}
    for name, fields in beat_schedule.items():
        if not isinstance(fields, Mapping):
            entries[str(name)] = {"schedule": fields}  # rejected by the reader of the schedule, entry by entry
            continue
        entry = {"args": (), "kwargs": {}, "options": {}, **fields}
        entry["task"] = getattr(entry.get("task"), "name", entry.get("task"))
        entry["args"] = list(entry["args"] or ())
        entry["kwargs"], entry["options"] = dict(entry["kwargs"] or {}), dict(entry["options"] or {})
        entries[str(name)] = entry
    return entries


def warn_of_own_clock(name: str, schedule: Any) -> None:
    """Log that the ``nowfun`` of an entry's schedule has no effect."""
    if getattr(schedule, "nowfun", None) is not None:
        log.warning(
            "%s: the daemon ignores the nowfun of the schedule; for another time zone write crontab(..., timezone=...)",
            name,
            extra={"event": "nowfun_ignored", "entry": name},
        )
