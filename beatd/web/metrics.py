"""``/metrics``: the Prometheus text format, version 0.0.4."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
HELD_NAMED = 100
"""Entries that are held back, each with a sample of its own."""

BY_ENTRY = 1_000
"""With so many entries or more, only the sum of their runs is told: each label value is a time series for ever."""


class Family(NamedTuple):
    """One metric with its samples: labels and value."""

    name: str
    kind: str
    help: str
    samples: Sequence[tuple[Mapping[str, str], float]]


def families(status: Mapping[str, Any], names: Sequence[str], runs: Sequence[int]) -> Iterator[Family]:
    """The metrics of the installation. ``status`` as ``beatd status --json`` has it; ``runs`` of each of the names."""
    daemons = [daemon for daemon in status["daemons"] if daemon["alive"]]
    shards = status["shards"]
    led = [(_of(daemon), len(daemon["shards"])) for daemon in daemons]
    turned = [
        (_of(daemon), (daemon["turned_ms_ago"] + daemon["seen_ms_ago"]) / 1000)
        for daemon in daemons
        if daemon["turned_ms_ago"] is not None
    ]
    broken = [(_of(daemon), int(daemon["config"] == "broken")) for daemon in daemons]
    offsets = [(_of(each), each["clock_offset_ms"] / 1000) for each in daemons if each["clock_offset_ms"] is not None]
    outbox = [({"shard": str(each["shard"])}, each["outbox"]) for each in shards]
    differ = int(not status["same_schedule"])
    counted = list(zip(({"entry": name} for name in names), runs, strict=True)) if len(names) < BY_ENTRY else None
    late = [(_of(each), each["late_ms"] / 1000) for each in daemons]
    yield _store_up(1)
    yield _gauge("beatd_late_seconds", "How late the oldest run is that a daemon should have sent.", late)
    yield _gauge("beatd_held_back_entries", "Entries that are held back.", [({}, status["held_back_count"])])
    held = [({"entry": each["entry"]}, 1) for each in status["held_back"][:HELD_NAMED]]
    yield _gauge("beatd_entry_held_back", f"1 for each entry that is held back, at most {HELD_NAMED}.", held)
    yield _gauge("beatd_daemons", "Daemons that are alive.", [({}, len(daemons))])
    yield _gauge("beatd_shards", "Number of shards.", [({}, len(shards))])
    yield _gauge("beatd_leading_shards", "Shards that a daemon leads; the sum is beatd_shards when all is well.", led)
    yield _gauge("beatd_config_mismatch", "1 when daemons differ in their schedule.", [({}, differ)])
    yield _gauge("beatd_config_broken", "1 when a daemon's files have errors.", broken)
    yield _gauge("beatd_last_turn_seconds", "Seconds since a daemon's loop got on.", turned)
    yield _gauge("beatd_clock_offset_seconds", "How far a daemon's clock is ahead of the state store's.", offsets)
    yield _gauge("beatd_outbox_length", "Messages that the broker has not confirmed yet.", outbox)
    yield _entries(len(names))
    runtime = status["runtime"]
    yield _gauge("beatd_runtime_entries", "Entries in the state store.", [({}, runtime["entries"])])
    yield _gauge("beatd_paused_entries", "Entries that are paused.", [({}, runtime["pauses"])])
    yield Family("beatd_runs_total", "counter", "Runs that were sent.", counted or [({}, sum(runs))])


def without_store(entries: int) -> Iterator[Family]:
    """The metrics while the state store cannot be asked."""
    yield _store_up(0)
    yield _entries(entries)


def _store_up(up: int) -> Family:
    return _gauge("beatd_store_up", "1 while the state store answers.", [({}, up)])


def _entries(count: int) -> Family:
    return _gauge("beatd_entries", "Entries in force, as the status page reads them.", [({}, count)])


def text(metrics: Iterable[Family]) -> str:
    """The metrics as Prometheus reads them; one without samples is left out."""
    lines = []
    for name, kind, told, samples in metrics:
        if samples:
            lines += [f"# HELP {name} {told}", f"# TYPE {name} {kind}"]
            lines += [f"{name}{_labels(labels)} {float(value):.15g}" for labels, value in samples]
    return "\n".join(lines) + "\n"


def _gauge(name: str, told: str, samples: Sequence[tuple[Mapping[str, str], float]]) -> Family:
    return Family(name, "gauge", told, samples)


def _of(daemon: Mapping[str, Any]) -> dict[str, str]:
    return {"daemon": daemon["id"]}


def _labels(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    pairs = (f'{name}="{_escaped(value)}"' for name, value in labels.items())
    return "{" + ",".join(pairs) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
