"""Messages to targets: text for people, and fields for programs."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from beatd.model import NotifyTarget
from beatd.planning.alerts import BriefFailure, Changes, Condition, Subject
from beatd.redaction import printable, redacted_text
from beatd.timestamps import iso_ms, span_text, utc_text

LISTED, FIELDS = 10, 100
"""Items that are named in the text, and in the fields."""
_REASON_MAX = 500
_ONE = {
    "failure": "{} fails",
    "overdue": "{} is overdue",
    "missed": "{} missed runs",
    "held": "{} is held back",
    "too_long": "{} runs too long",
    "nobody_leads": "nobody leads {}",
    "config": "{} has a configuration problem",
}
_MANY = {
    "failure": "{:,} entries fail",
    "overdue": "{:,} entries are overdue",
    "missed": "{:,} entries missed runs",
    "held": "{:,} entries are held back",
    "too_long": "{:,} entries run too long",
    "nobody_leads": "nobody leads {:,} shards",
    "config": "{:,} daemons have configuration problems",
}
_OVER = {
    "failure": "{} succeeded",
    "overdue": "{} is not overdue any more",
    "held": "{} is not held back any more",
    "too_long": "{} does not run too long any more",
    "nobody_leads": "{} has a leader",
    "config": "{} has no configuration problem any more",
}


def message(
    target: NotifyTarget, found: Changes, now_ms: int, reasons: Mapping[str, str], place: str
) -> dict[str, Any]:
    """The body of a notice.

    ``reasons`` are the last errors of the entries that are :func:`listed`; ``place`` is the prefix of the store.
    """
    problems = [*found.begun.items(), *found.lasting.items()]
    over, brief = list(found.over.items()), list(found.brief.items())
    lines = [_line(subject, one, reasons, again=subject in found.lasting) for subject, one in problems[:LISTED]]
    lines += _more(len(problems), "; see beatd status")
    lines += [_brief_line(subject, one, reasons) for subject, one in brief[:LISTED]]
    lines += _more(len(brief), " failed and succeeded again")
    lines += [_over_line(subject, told.since_ms, now_ms) for subject, told in over[:LISTED]]
    lines += _more(len(over), " are over")
    title = _title(found)
    return {
        "title": title,
        "text": "\n".join([title, *lines]) if len(lines) > 1 or not lines else lines[0],
        "kind": "problem" if problems else "recovery",
        "at": iso_ms(now_ms),
        "target": target.name,
        "installation": place,
        "host": socket.gethostname(),
        "problems": [_fields(subject, one, reasons) for subject, one in problems[:FIELDS]],
        "problems_count": len(problems),
        "recovered": [
            *(_fields(subject, Condition(one.since_ms, one.failures), reasons) for subject, one in brief[:FIELDS]),
            *(_fields(subject, Condition(told.since_ms), {}) for subject, told in over[: FIELDS - len(brief[:FIELDS])]),
        ],
        "recovered_count": len(over) + len(brief),
    }


def trial(target: NotifyTarget, now_ms: int, place: str) -> dict[str, Any]:
    """The body of a message that tries a target."""
    text = f"test message of beatd to the target {target.name}"
    body = message(target, Changes({}, {}, {}, frozenset()), now_ms, {}, place)
    return {**body, "title": text, "text": text, "kind": "test"}


def listed(found: Changes) -> list[str]:
    """The failing entries whose errors are shown."""
    failing = (subject.name for subject in (*found.begun, *found.lasting) if subject.kind == "failure")
    brief = (subject.name for subject in found.brief)
    return [*islice(failing, LISTED), *islice(brief, LISTED)]


def _title(found: Changes) -> str:
    by_kind: dict[str, list[str]] = {}
    for subject in (*found.begun, *found.lasting):
        by_kind.setdefault(subject.kind, []).append(subject.name)
    parts = [
        _ONE[kind].format(printable(names[0])) if len(names) == 1 else _MANY[kind].format(len(names))
        for kind, names in by_kind.items()
    ]
    if len(found.brief) == 1:
        [subject] = found.brief
        parts.append(f"{printable(subject.name)} failed and succeeded again")
    elif found.brief:
        parts.append(f"{len(found.brief):,} entries failed and succeeded again")
    if len(found.over) == 1:
        [subject] = found.over
        parts.append(_OVER[subject.kind].format(printable(subject.name)))
    elif found.over:
        parts.append(f"{len(found.over):,} problems are over")
    return "beatd: " + "; ".join(parts)


def _line(subject: Subject, one: Condition, reasons: Mapping[str, str], *, again: bool) -> str:
    text = _ONE[subject.kind].format(printable(subject.name))
    row = f" ({one.failures:,} in a row)" if one.failures > 1 else ""
    reason = _reason(subject, one, reasons)
    still = ", still" if again else ""
    return f"{text} since {utc_text(one.since_ms)}{row}{still}{f': {reason}' if reason else ''}"


def _brief_line(subject: Subject, one: BriefFailure, reasons: Mapping[str, str]) -> str:
    row = f" {one.failures:,} times in a row" if one.failures > 1 else ""
    reason = _reason(subject, Condition(one.since_ms), reasons)
    text = f"{printable(subject.name)} failed{row} at {utc_text(one.since_ms)} and succeeded at {utc_text(one.end_ms)}"
    return f"{text}{f': {reason}' if reason else ''}"


def _over_line(subject: Subject, since_ms: int, now_ms: int) -> str:
    lasted = max(now_ms - since_ms, 0)
    return f"{_OVER[subject.kind].format(printable(subject.name))}; it lasted {span_text(lasted)}"


def _reason(subject: Subject, one: Condition, reasons: Mapping[str, str]) -> str:
    text = reasons.get(subject.name, "") if subject.kind == "failure" else one.text
    return printable(redacted_text(" ".join(text.split()), at_most=_REASON_MAX))


def _fields(subject: Subject, one: Condition, reasons: Mapping[str, str]) -> dict[str, Any]:
    return {
        "kind": subject.kind,
        "subject": subject.name,
        "since": iso_ms(one.since_ms),
        "failures": one.failures if subject.kind == "failure" else None,
        "reason": _reason(subject, one, reasons) or None,
    }


def _more(count: int, end: str) -> Iterator[str]:
    if count > LISTED:
        yield f"and {count - LISTED:,} more{end}"
