"""Rows of the admin's tables: entries and runs as its templates show them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from django.contrib.admin.utils import quote, unquote
from django.utils.timezone import get_current_timezone

from beatd.client.entries import Description, kind_of
from beatd.client.history import totals_text
from beatd.client.moments import with_moments
from beatd.client.outcomes import FAILED, EntryOutcome, RunDetail, bounds_text
from beatd.planning.notation import schedule_phrase
from beatd.planning.phrase import in_words
from beatd.planning.preview import Outlook
from beatd.schedules import Schedule
from beatd.timestamps import from_ms, span_text
from beatd.web.routing import NameConvertor

_NAMES = NameConvertor()


def moment(ms: int) -> datetime:
    """The moment in Django's current time zone: without ``USE_TZ`` templates show moments as they are."""
    return from_ms(ms).astimezone(get_current_timezone())


def in_current_zone(text: str) -> str:
    """A text in which moments are written in UTC, with these in Django's current time zone."""
    return with_moments(text, lambda since, ms: f"{since}{moment(ms):%Y-%m-%d %H:%M:%S %Z}")


def id_of(name: str) -> str:
    """The name of an entry as the admin's paths have it: names such as ``..`` survive a browser, too."""
    return str(quote(_NAMES.to_string(name)))


def name_of(object_id: str) -> str:
    """The name of the entry that a path names."""
    return _NAMES.convert(unquote(object_id))


def entry_row(look: Outlook, outcome: EntryOutcome) -> dict[str, Any]:
    """An entry of the list."""
    entry = look.entry
    return {
        "name": entry.name,
        "id": id_of(entry.name),
        "task": entry.task,
        "words": words_of(entry.schedule),
        "zone": entry.timezone,
        "kind": kind_of(entry),
        "place": entry.source,
        "outcome": outcome.word or "",
        "marks": outcome.marks,
        "is_bad": outcome.word in FAILED or outcome.failing_since_ms is not None,
        "error": outcome.error,
        "last": _moment(look.last_due_ms),
        "next": _moment(look.next_due_ms),
        "note": in_current_zone(look.note) or ("held back" if look.held else ""),
    }


def words_of(schedule: Schedule) -> str:
    """The schedule in words; one that cannot be said is shown as it is written."""
    try:
        return in_words(schedule)
    except Exception:  # noqa: BLE001 - one schedule that cannot be said must not hide the page
        return schedule_phrase(schedule).text


def run_row(run: RunDetail) -> dict[str, Any]:
    """A run of a history."""
    record, last = run.record, run.last
    return {
        "due": moment(record.due_ms),
        "word": run.word,
        "is_bad": run.word in FAILED,
        "reason": record.reason or "",
        "kind": record.kind,
        "late": span_text(record.late_ms) if record.kind == "scheduled" and record.late_ms >= 1000 else "",
        "took": "" if record.runtime_ms is None else span_text(record.runtime_ms),
        "id": record.run_id or "",
        "error": last if last is not None and last.type and run.word != "success" else None,
        "worker": run.started.worker if run.started else last.worker if last else "",
    }


def facts_of(seen: Description) -> list[tuple[str, Any]]:
    """The facts of an entry, each with its label."""
    return list(_facts(seen))


def _facts(seen: Description) -> Iterator[tuple[str, Any]]:
    entry, outcome, numbers = seen.entry, seen.outcome, seen.statistics
    yield "Task", entry.task
    yield "Schedule", words_of(entry.schedule)
    yield "Written", entry.schedule.notation
    yield "Time zone", entry.timezone
    yield "Place", entry.source
    yield "State", in_current_zone(seen.state)
    yield "Last outcome", f"{outcome.word or 'no run yet'} {outcome.marks}".rstrip()
    if outcome.failing_since_ms is not None:
        yield "Failing since", moment(outcome.failing_since_ms)
    if outcome.overdue_since_ms is not None:
        yield "Overdue since", moment(outcome.overdue_since_ms)
    if outcome.last_success_ms is not None:
        yield "Last success", moment(outcome.last_success_ms)
    yield "Runs", totals_text(seen.totals)
    if numbers.duration_median_ms is not None and numbers.duration_p95_ms is not None:
        median, most = span_text(numbers.duration_median_ms), span_text(numbers.duration_p95_ms)
        yield "Duration", f"median {median}, 95 % within {most}"
    yield "Bounds", bounds_text(seen.bounds)


def _moment(ms: int | None) -> Any:
    return None if ms is None else moment(ms)
