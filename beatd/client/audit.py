"""The audit for people and programs: the same facts for the command, the page and the API."""

from __future__ import annotations

import json
from typing import Any

from beatd.redaction import printable
from beatd.store.audit import AuditRecord
from beatd.timestamps import iso_ms

_SHOWN = 120
"""Characters of a value that are shown."""


def audit_facts(record: AuditRecord) -> dict[str, Any]:
    """A change for programs."""
    return {
        "at": iso_ms(record.at_ms),
        "action": record.action,
        "subjects": record.subjects,
        "count": record.count,
        "by": record.by or None,
        "via": record.via,
        "before": record.before,
        "after": record.after,
        "detail": record.detail or None,
    }


def change_text(record: AuditRecord) -> str:
    """The change in one line: for a table only the keys that differ, as ``schedule: 30 -> 60``."""
    before, after = record.before, record.after
    if isinstance(before, dict) and isinstance(after, dict):
        keys = [key for key in {**before, **after} if before.get(key) != after.get(key)]
        parts = [f"{key}: {_shown(before.get(key))} -> {_shown(after.get(key))}" for key in keys]
        text = "; ".join(parts)
    elif isinstance(after, dict):
        text = "; ".join(f"{key}: {_shown(value)}" for key, value in after.items() if value not in (None, "", False))
    else:
        values = [_shown(value) for value in (before, after) if value is not None]
        text = " -> ".join(values)
    return printable("; ".join(filter(None, (text, record.detail))))


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"
