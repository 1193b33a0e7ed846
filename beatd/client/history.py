"""Past runs for programs: the documents of ``beatd history --json`` and of the status page."""

from __future__ import annotations

from typing import Any

from beatd.epoch import iso_ms
from beatd.store.history import Totals
from beatd.store.records import Record


def facts(one: Record) -> dict[str, Any]:
    """A record for programs."""
    if one.kind == "missed":
        span = {"after": iso_ms(one.due_ms), "before": iso_ms(one.at_ms)}
        return {"entry": one.entry, "kind": one.kind, **span}
    return {
        "entry": one.entry,
        "kind": one.kind,
        "due_at": iso_ms(one.due_ms),
        "dispatched_at" if one.sent else "skipped_at": iso_ms(one.at_ms),
        "lateness_ms": one.late_ms,
        "run_id": one.run_id,
        "reason": one.reason,
        "outcome": one.outcome,
        "runtime_ms": one.runtime_ms,
    }


def counts(totals: Totals) -> dict[str, int]:
    """The totals of an entry for programs."""
    return {"scheduled": totals.scheduled, **totals.counts}
