"""What an app registers for the beat: ``conf.beat_schedule`` and ``add_periodic_task``, as plain data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from beatd.app.signature import Signature

Registration = dict[str, Any]
"""``task``, ``schedule``, ``args``, ``kwargs``, ``options``; from ``beat_schedule`` also what else an entry has."""


def registration(
    schedule: Any, call: Any, args: Iterable[Any], kwargs: Mapping[str, Any] | None, options: Mapping[str, Any]
) -> tuple[str, Registration]:
    """The entry for a signature or a task, and the name it gets when it has none: the call in words."""
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
    """The entries of a ``beat_schedule`` dict, each with all five keys. ``options`` that are missing are empty."""
    entries = {}
    for name, fields in beat_schedule.items():
        if not isinstance(fields, Mapping):
            entries[str(name)] = {"schedule": fields}  # refused where it is read, apart from the others
            continue
        entry = {"args": (), "kwargs": {}, "options": {}, **fields}
        entry["task"] = getattr(entry.get("task"), "name", entry.get("task"))
        entry["args"] = list(entry["args"] or ())
        entry["kwargs"], entry["options"] = dict(entry["kwargs"] or {}), dict(entry["options"] or {})
        entries[str(name)] = entry
    return entries
