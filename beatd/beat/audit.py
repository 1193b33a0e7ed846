"""Audit of schedules in files: the leader records each change of the schedule in force."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from beatd.clock import Clock
from beatd.config import Config
from beatd.model import Entry
from beatd.sources.schedule_diff import differences
from beatd.store.audit import NAMES_MAX, Audit, audit_record


class ScheduleAudit:
    """Compares the schedule of files and app with the one that the audit has recorded last, from any daemon."""

    def __init__(self, audit: Audit, daemon_id: str, config: Config, clock: Clock) -> None:
        self._audit = audit
        self._daemon_id = daemon_id
        self._clock = clock
        self._lock = threading.Lock()
        self._config = config
        self._noted: Config | None = None

    def set_base(self, config: Config) -> None:
        """Set the schedule of files and app. May be called from any thread."""
        with self._lock:
            self._config = config

    def look(self) -> None:
        """Record a new schedule; called while this daemon leads. Raises a :class:`~beatd.exceptions.StoreError`."""
        with self._lock:
            config = self._config
        if self._noted is not None and self._noted.digest == config.digest:
            return
        before = self._audit.swap_digest(config.digest)
        old, self._noted = self._noted, config
        if before is None or before == config.digest:
            return
        names = _signed_names(old.entries, config.entries) if old and old.digest == before else []
        record = audit_record(
            self._clock.now_ms(),
            "schedule",
            [config.settings.file],
            by=self._daemon_id,
            via="file",
            before={"digest": before[:8], **({"entries": len(old.entries)} if old else {})},
            after={"digest": config.digest[:8], "entries": len(config.entries)},
            detail=", ".join(names[:NAMES_MAX])
            + (f", and {len(names) - NAMES_MAX:,} more" if names[NAMES_MAX:] else ""),
        )
        self._audit.note(record)


def _signed_names(before: Sequence[Entry], after: Sequence[Entry]) -> list[str]:
    """Names with ``+``, ``~`` or ``-``: added, changed, removed."""
    found = differences(before, after)
    return [sign + name for sign, group in zip("+~-", found, strict=True) for name in group]
