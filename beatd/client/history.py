"""Past runs for programs: the documents of ``beatd history --json`` and of the status page."""

from __future__ import annotations

from typing import Any

from beatd.states import FAILURE
from beatd.store.held_back import HeldBackEntry
from beatd.store.history import Record
from beatd.store.history_reader import Totals
from beatd.store.run_record import LOST
from beatd.store.runtime_entries import Pause
from beatd.timestamps import iso_ms


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
        "outcome": FAILURE if one.outcome == LOST else one.outcome,
        "runtime_ms": one.runtime_ms,
    }


def held_facts(held: HeldBackEntry) -> dict[str, Any]:
    """An entry that is held back, for programs."""
    return {
        "reason": held.reason,
        "since": _moment(held.since_ms),
        "next_try_at": _moment(held.again_ms),
        "attempts": held.attempts,
    }


def pause_facts(pause: Pause) -> dict[str, Any]:
    """A pause for programs; ``until`` is null for one that somebody has to end."""
    until = None if pause.until_ms is None else iso_ms(pause.until_ms)
    return {"since": iso_ms(pause.since_ms), "by": pause.by, "reason": pause.reason, "until": until}


def _moment(ms: int) -> str | None:
    try:
        return iso_ms(ms)
    except (ValueError, OverflowError):  # what the store has is not ours
        return None


def totals_text(totals: Totals) -> str:
    """The number of an entry's runs in words."""
    counts = {"sent by schedule": totals.scheduled, "triggered": totals.counts["triggered"]}
    counts |= {"backfilled": totals.counts["backfilled"], "refused by the broker": totals.counts["refused"]}
    parts = [f"{count:,} {word}" for word, count in counts.items() if count]
    return f"{totals.runs:,}: {', '.join(parts)}" if len(parts) > 1 else "".join(parts) or "none yet"


def counts(totals: Totals) -> dict[str, int]:
    """The totals of an entry for programs."""
    return {"scheduled": totals.scheduled, **totals.counts}
