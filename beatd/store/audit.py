"""The audit: each change by a command, the page, a program or a file, with who, when, and what was before and after.

It is a record for people: a change is made although it cannot be recorded, and the record is written after the change.
"""

from __future__ import annotations

import getpass
import logging
import socket
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Any, Literal

import msgspec
import redis

from beatd.exceptions import StoreError
from beatd.redaction import encodable, redacted, redacted_text
from beatd.store.client import translate_errors
from beatd.store.keys import Keys

log = logging.getLogger("beatd.store")

RECORDS_MAX = 5_000
VALUE_MAX, NAMES_MAX, TEXT_MAX = 1_000, 20, 300
"""Bounds of one record: characters of a value before or after, subjects that are named, characters of other texts."""
_BATCH = 500

Via = Literal["command", "page", "client", "file"]


class AuditRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One change. Values before and after are JSON; secrets in them are hidden."""

    at_ms: int
    action: str
    """``pause``, ``resume``, ``trigger``, ``backfill``, ``add``, ``change``, ``remove``, ``reload``, ``step-down``,
    ``requeue``, ``purge``, ``stop-run``, ``control`` or ``schedule``."""
    subjects: list[str] = []
    """Names of entries, ids of runs, queues or daemons: the first ones."""
    count: int = 1
    """Number of all subjects."""
    by: str = ""
    """User and host, the name of a token, or the id of a daemon."""
    via: Via = "command"
    before: Any = None
    after: Any = None
    detail: str = ""


def audit_record(
    at_ms: int,
    action: str,
    subjects: Sequence[str],
    *,
    by: str,
    via: Via,
    before: Any = None,
    after: Any = None,
    detail: str = "",
    count: int | None = None,
) -> AuditRecord:
    """Return a record within the bounds. ``count``: of all subjects, when ``subjects`` has only some."""
    return AuditRecord(
        at_ms=at_ms,
        action=action,
        subjects=[encodable(name[:TEXT_MAX]) for name in subjects[:NAMES_MAX]],
        count=len(subjects) if count is None else count,
        by=by[:TEXT_MAX],
        via=via,
        before=_bounded(before),
        after=_bounded(after),
        detail=redacted_text(detail, at_most=TEXT_MAX),
    )


def _bounded(value: Any) -> Any:
    """The value as plain JSON; one that is too large is cut and becomes text."""
    if value is None:
        return None
    shown = redacted(value, at_most=4 * VALUE_MAX)
    try:
        text = msgspec.json.encode(shown, enc_hook=str).decode()
        return msgspec.json.decode(text) if len(text) <= VALUE_MAX else f"{text[:VALUE_MAX]}…"
    except (TypeError, ValueError, RecursionError):
        return redacted_text(repr(shown), at_most=VALUE_MAX)


def whoami() -> str:
    """Return the user and host that make a change, for others to see."""
    try:
        return f"{getpass.getuser()}@{socket.gethostname()}"
    except (OSError, KeyError):  # a user without a name, as in many containers
        return socket.gethostname()


class Audit:
    """Reading raises :class:`~beatd.exceptions.StoreUnavailable` or :class:`~beatd.exceptions.StoreRefused`."""

    def __init__(self, client: redis.Redis, keys: Keys) -> None:
        self._client = client
        self._key, self._digest = keys.audit, keys.audited_digest

    def note(self, *records: AuditRecord) -> bool:
        """Add records; False, and a line in the log, if the store does not take them."""
        if not records:
            return True
        try:
            with translate_errors(self._client), self._client.pipeline(transaction=False) as pipeline:
                pipeline.lpush(self._key, *map(msgspec.json.encode, records))
                pipeline.ltrim(self._key, 0, RECORDS_MAX - 1)
                pipeline.execute()
        except StoreError as error:
            text = "A change by %s was made but could not be recorded in the audit: %s"
            log.warning(text, records[0].by or "an unnamed program", error, extra={"event": "audit_unwritten"})
            return False
        return True

    def read(self, limit: int, *, since_ms: int = 0, subject: str = "*", action: str = "*") -> list[AuditRecord]:
        """The newest records that match, the newest first; ``subject`` and ``action`` are patterns."""
        found: list[AuditRecord] = []
        for record in self._all():
            if record.at_ms < since_ms or len(found) >= limit:
                break
            names = record.subjects or [""]
            if fnmatchcase(record.action, action) and any(fnmatchcase(name, subject) for name in names):
                found.append(record)
        return found

    def _all(self) -> Iterator[AuditRecord]:
        for start in range(0, RECORDS_MAX, _BATCH):
            with translate_errors(self._client):
                raws: Any = self._client.lrange(self._key, start, start + _BATCH - 1)
            for raw in raws:
                try:
                    yield msgspec.json.decode(raw, type=AuditRecord)
                except msgspec.MsgspecError:  # of a later version, or not beatd's
                    continue
            if len(raws) < _BATCH:
                return

    def swap_digest(self, digest: str) -> str | None:
        """Remember the digest of the files' schedule that is in force now; returns the one before."""
        with translate_errors(self._client):
            raw: Any = self._client.set(self._digest, digest, get=True)
        return None if raw is None else raw.decode(errors="replace")
