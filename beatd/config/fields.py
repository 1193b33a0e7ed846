"""The settings by name: which attribute each fills and how it is read. What is not listed here is not a setting."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from msgspec import UNSET

from beatd.config import payload, values
from beatd.config.faults import Report, near, quoted
from beatd.config.lines import Path
from beatd.config.values import Reader, Wrong, choice, duration, seconds, whole
from beatd.config.variables import substituted
from beatd.exceptions import ScheduleError
from beatd.schedules import parse_blackout


class Field(NamedTuple):
    """One setting: the attribute of the struct that it fills, and its reader."""

    into: str
    read: Reader


Fields = Mapping[str, Field]


def _same(**readers: Reader) -> dict[str, Field]:
    return {name: Field(name, reader) for name, reader in readers.items()}


OPTIONS: Fields = {
    **_same(
        queue=values.text,
        exchange=values.text,
        routing_key=values.text,
        priority=whole(0, 255),
        expires=values.expires,
        headers=payload.table,
        serializer=choice("json"),
        time_limit=seconds,
        soft_time_limit=seconds,
        ignore_result=values.flag,
        shadow=values.text,
        link=payload.signatures,
        link_error=payload.signatures,
    ),
    "countdown": Field("countdown_ms", duration()),
}
"""The keywords of ``apply_async``: directly in the entry, or in its ``options`` table as Celery has it."""

POLICIES: Fields = {
    **_same(
        enabled=values.flag,
        start=values.moment,
        end=values.moment,
        max_runs=whole(1),
        blackout=lambda value, timezone: parse_blackout(value, timezone=timezone),
        catch_up=choice("latest", "all", "none"),
        catch_up_max=whole(1),
        overlap=choice("allow", "skip", "queue_one"),
        max_queue_depth=whole(1),
    ),
    "jitter": Field("jitter_ms", duration()),
    "catch_up_window": Field("catch_up_window_ms", duration()),
    "max_runtime": Field("max_runtime_ms", duration(1)),
}

SECTIONS: Mapping[str, Fields] = {
    "redis": {
        "url": Field("url", values.url("redis", "rediss", "unix", "sentinel", also="embedded")),
        "prefix": Field("prefix", values.text),
        "timeout": Field("timeout_ms", duration(10)),
        "wait_replicas": Field("wait_replicas", whole(0, 100)),
        "wait_timeout": Field("wait_timeout_ms", duration(1)),
    },
    "broker": _same(url=values.url(), default_queue=values.text),
    "leader": {
        "ttl": Field("ttl_ms", duration(1)),
        "renew": Field("renew_ms", duration(1)),
        "shards": Field("shards", whole(1, 1024)),
    },
    "log": _same(level=choice("debug", "info", "warning", "error"), format=choice("text", "json")),
}
"""The tables of the file beside ``[defaults]`` and the schedule."""


Where = Callable[[str], Path]
"""The path of a key, for messages."""


def read_fields(raw: Mapping[str, Any], fields: Fields, timezone: str, report: Report, where: Where) -> dict[str, Any]:
    """The attributes that ``raw`` sets, among ``fields``; what cannot be read is reported and left out."""
    read: dict[str, Any] = {}
    for name, value in raw.items():
        if field := fields.get(name):
            result = read_value(field.read, value, timezone, report, where(name))
            if result is not UNSET:
                read[field.into] = result
    return read


def read_value(read: Reader, value: Any, timezone: str, report: Report, path: Path) -> Any:
    """What ``read`` makes of ``value``; UNSET, and a fault at ``path``, if it cannot be read."""
    try:
        return read(value, timezone)
    except RecursionError:
        report.add(path, "nested too deeply, or inside of itself")
    except Wrong as error:
        made = substituted(value)
        if made is None or not made.missing:  # what is missing has been reported already
            report.add((*path, *error.inside), str(error))
    except ScheduleError as error:
        made = substituted(value)
        if made is None:
            report.add(path, str(error))
        elif not made.missing:
            report.add(path, f"what {quoted(made.written)} stands for cannot be used here")
    return UNSET


def refuse_unknown(raw: Mapping[str, Any], known: Mapping[str, Any], report: Report, where: Where) -> list[str]:
    """Report each key of ``raw`` that is none of ``known``, and return them."""
    unknown = [name for name in raw if name not in known]
    for name in unknown:
        report.add(where(name), f"unknown setting {quoted(name)}{near(name, known) or _listed(known)}")
    return unknown


def _listed(known: Mapping[str, Any]) -> str:
    return "; known are " + ", ".join(sorted(known)) if len(known) <= 12 else ""
