"""RedBeat's keys: a sorted set of entries, and a hash with the definition of each."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from typing import Any, Protocol

from beatd.importers.report import FoundSchedule, Note
from beatd.schedules import zone
from beatd.timestamps import to_ms


class Reader(Protocol):
    """The two commands that are needed, of a client of the state store."""

    def zrange(self, name: str, start: int, end: int, /) -> Any: ...

    def hget(self, name: str, key: str, /) -> Any: ...


def read_redbeat(client: Reader, *, prefix: str = "redbeat:", timezone: str | None = None) -> FoundSchedule:
    """All entries under RedBeat's ``redbeat_key_prefix``. ``timezone`` is that of the Celery app; default: UTC."""
    entries: dict[str, dict[str, Any]] = {}
    notes: list[Note] = []
    last_runs: dict[str, int] = {}
    for raw_key in client.zrange(f"{prefix}:schedule", 0, -1):
        key = _text(raw_key)
        name = key.removeprefix(prefix)
        try:
            definition = _definition(client.hget(key, "definition"))
            own_name = str(definition.pop("name", name))
            entries[own_name] = _fields(definition)
            if (ran := _last_run(client.hget(key, "meta"))) is not None:
                last_runs[own_name] = ran
        except ValueError as error:
            notes.append(Note(name, "", str(error)))
    schedules = [fields["schedule"] for fields in entries.values()]
    if timezone is None and any(isinstance(one, dict) and "every" not in one for one in schedules):
        why = "times are taken as UTC; --timezone names the zone of the Celery app"
        notes.append(Note(prefix, "timezone", why))
    return FoundSchedule(entries, tuple(notes), timezone or "UTC", last_runs)


def _last_run(raw: Any) -> int | None:
    """When an entry last ran (ms); None if it has not, or if that cannot be read."""
    try:
        moment = json.loads(_text(raw), object_hook=_revive).get("last_run_at") if raw else None
        return None if not isinstance(moment, datetime) else to_ms(moment)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError):
        return None


def _definition(raw: Any) -> dict[str, Any]:
    if raw is None:
        raise ValueError("it has no definition: the hash is gone, evicted perhaps")
    try:
        return dict(json.loads(_text(raw), object_hook=_revive))
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"its definition cannot be read: {error}") from None


def _fields(definition: Mapping[str, Any]) -> dict[str, Any]:
    fields = {name: definition.get(name) for name in ("task", "args", "kwargs", "options")}
    fields["schedule"] = _schedule(definition.get("schedule"))
    fields["enabled"] = None if definition.get("enabled", True) else False
    return fields


def _schedule(found: Any) -> Any:
    match found:
        case {"__type__": "interval", "every": seconds}:
            return {"every": seconds, "relative": True} if found.get("relative") else seconds
        case {"__type__": "crontab"}:
            return {name: spec for name, spec in found.items() if name != "__type__" and spec != "*"} or {"minute": "*"}
        case {"__type__": kind}:
            raise ValueError(f"a schedule of the kind {kind} has no counterpart")
    raise ValueError("it has no schedule")


def _revive(found: dict[str, Any]) -> Any:
    """Moments as moments; schedules stay the tables that they are."""
    if found.get("__type__") != "datetime":
        return found
    parts = {key: value for key, value in found.items() if key not in {"__type__", "timezone"}}
    where = found.get("timezone", "UTC")
    offset = timezone(timedelta(seconds=where)) if isinstance(where, int | float) else zone(where).info
    return datetime(**parts, tzinfo=offset)


def _text(raw: Any) -> str:
    return raw.decode("utf-8", "replace") if isinstance(raw, bytes) else str(raw)
