"""Entries that are held back: an entry that fails leaves the heap and is tried again later; the others run on time.

Errors raised while one entry is handled come here. :meth:`Held.hold` alone decides whether an error concerns that entry
or all of them. When the pause of a held entry is over, the active schedule puts it into the heap again, as at the
beginning of a term; its catch-up policy decides about the runs that it missed.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass

from beatd.beat.term import Term
from beatd.exceptions import BeatdError, BrokerError, BrokerRefused, StoreError, StoreRefused
from beatd.redaction import redacted_text
from beatd.store.held_back import HeldBack, HeldBackEntry
from beatd.timestamps import iso_ms, span_text, utc_text

log = logging.getLogger("beatd.beat")

PAUSE_MIN_MS, PAUSE_MAX_MS = 1_000, 60_000
"""How long an entry waits after its first failure; after each further one twice as long, up to this."""

AT_ONCE = 200
"""Entries tried again in one turn: others are not to wait for more."""

WRITE_MS, WRITE_AGAIN_MS = 200, 5_000
"""Time after which changes are written to the store; pause after the store has refused them."""

REWRITE_MS = 60_000
"""How often all notes are written again, before they expire."""

SAID_ONE_BY_ONE = 10
"""Entries of one turn that are named in the log; of more, the number."""

REASON_MAX = 300
"""Characters of a reason."""


@dataclass(slots=True)
class _Held:
    reason: str
    cause: str
    by_run: bool
    """Only a run can show that it works again; else it is enough that it can be put into the heap."""
    since_ms: int
    again_ms: int
    attempts: int = 1
    waiting: bool = True
    """False while it is tried."""

    @property
    def note(self) -> HeldBackEntry:
        return HeldBackEntry(self.reason, self.since_ms, self.again_ms, self.attempts)


class Held:
    """The entries of one shard that are held back. ``len()`` may be asked from any thread."""

    def __init__(self, notes: HeldBack | None = None, shard: int = 0) -> None:
        self._notes = notes
        self._shard = shard
        self._held: dict[str, _Held] = {}
        self._by_cause: dict[str, set[str]] = {}
        self._again_ms: int | None = None
        """When the first of them is to be tried again."""
        self._changed: dict[str, None] = {}
        """Entries whose notes in the store are not what they should be, in the order of the changes."""
        self._to_clear = True
        """True until the notes of the term before are out of the store."""
        self._rewrite_at_ms = self._write_at_ms = 0
        self._said = 0
        """Failures in this turn."""

    def __len__(self) -> int:
        return len(self._held)

    def __contains__(self, name: str) -> bool:
        return name in self._held

    def hold(self, name: str, error: Exception, now_ms: int, *, by_run: bool = False) -> None:
        """Hold an entry back for an error, which is raised again if it does not concern this entry alone.

        ``by_run`` says that it failed with a run that was due.
        """
        if isinstance(error, StoreError | BrokerError) and not isinstance(error, StoreRefused | BrokerRefused):
            raise error
        self.hold_for(name, _reason(error), now_ms, by_run=by_run)

    def hold_for(self, name: str, reason: str, now_ms: int, *, cause: str = "", by_run: bool = True) -> None:
        """Hold an entry back for a reason in words.

        ``cause`` is what others may be held back for as well, a queue: all of them are tried when one of them succeeds.
        """
        held = self._held.get(name)
        if held is None:
            held = self._held[name] = _Held(reason, "", by_run, now_ms, now_ms + PAUSE_MIN_MS)
            self._log_failed(name, held)
        elif held.waiting:
            return  # the same failure, met again in a turn that is repeated
        else:
            is_news = held.reason != reason
            held.reason, held.by_run, held.waiting = reason, by_run, True
            held.again_ms = now_ms + min(PAUSE_MIN_MS << min(held.attempts, 10), PAUSE_MAX_MS)
            held.attempts += 1
            if is_news or _is_power_of_4(held.attempts):
                self._log_failed(name, held)
        if held.cause != cause:
            self._by_cause.get(held.cause, set()).discard(name)
            held.cause = cause
        if cause:
            self._by_cause.setdefault(cause, set()).add(name)
        self._again_ms = held.again_ms if self._again_ms is None else min(self._again_ms, held.again_ms)
        self._changed[name] = None

    def succeeded(self, names: Iterable[str], now_ms: int) -> None:
        """Release entries that work again; try at once the others that are held back for the same cause."""
        if not self._held:
            return
        over: set[str] = set()
        for name in names:
            held = self._held.get(name)
            if held is not None and not held.waiting:
                self._drop(name)
                self._log_recovered(name, held, now_ms)
                over.add(held.cause)
        for cause in over:  # each once: thousands may be held back for it
            for other in self._by_cause.get(cause, ()):
                self._held[other].again_ms = now_ms
                self._again_ms = now_ms

    def was_put(self, name: str, due_ms: int | None, now_ms: int) -> None:
        """Release an entry that is in the heap or has no further run, unless only a run can show that it works."""
        held = self._held.get(name)
        if held is None:
            return
        if not held.by_run:
            self.succeeded([name], now_ms)
        elif due_ms is None:
            self._drop(name)
        elif due_ms > now_ms:
            held.again_ms = due_ms
            self._changed[name] = None

    def forget(self, names: Iterable[str]) -> None:
        """Release entries that are not in force any more."""
        for name in names:
            if name in self._held:
                self._drop(name)

    def clear(self) -> None:
        """Forget everything: a term begins."""
        self._held.clear()
        self._by_cause.clear()
        self._changed.clear()
        self._again_ms, self._to_clear = None, True

    def try_all(self) -> None:
        """Mark all entries as being tried: they are put into the heap."""
        self.try_now(self._held)
        self._again_ms = None

    def try_now(self, names: Iterable[str]) -> None:
        """Mark these entries as being tried: they are put into the heap."""
        for name in names:
            if (held := self._held.get(name)) is not None:
                held.waiting = False

    def due(self, now_ms: int) -> list[str]:
        """Return the entries whose next attempt is due, at most :data:`AT_ONCE`, and mark them as being tried."""
        if self._again_ms is None or self._again_ms > now_ms:
            return []
        waiting = {name: held for name, held in self._held.items() if held.waiting}
        names = [name for name, held in waiting.items() if held.again_ms <= now_ms][:AT_ONCE]
        for name in names:
            waiting.pop(name).waiting = False
        self._again_ms = min((held.again_ms for held in waiting.values()), default=None)
        return names

    def pause(self, now_ms: int) -> float:
        """Seconds until an entry is to be tried, or a note to be written."""
        due = [] if self._again_ms is None else [self._again_ms]
        if self._changed and self._notes is not None:
            due.append(self._write_at_ms)
        return max(min(due) - now_ms, 0) / 1000 if due else float("inf")

    def note(self, term: Term, now_ms: int) -> None:
        """Write what has changed to the store, for people. Never raises."""
        if self._said > SAID_ONE_BY_ONE:
            extra = {"event": "entries_failed", "count": self._said}
            log.error("%d entries were held back, or held back again, at once", self._said, extra=extra)
        self._said = 0
        self._write_at_ms = min(self._write_at_ms, now_ms + WRITE_AGAIN_MS)  # the clock may have been set back
        self._rewrite_at_ms = min(self._rewrite_at_ms, now_ms + REWRITE_MS)
        due = self._to_clear or self._changed or (self._held and now_ms >= self._rewrite_at_ms)
        if self._notes is not None and due and now_ms >= self._write_at_ms:
            self._write_at_ms = now_ms + (WRITE_MS if self._write(self._notes, term, now_ms) else WRITE_AGAIN_MS)

    def _write(self, notes: HeldBack, term: Term, now_ms: int) -> bool:
        if self._to_clear and not notes.clear(shard=self._shard, lease_value=term.lease_value):
            return False
        self._to_clear = False
        names = [*self._changed]
        if now_ms >= self._rewrite_at_ms:
            names += self._held
        changes = {name: held.note if (held := self._held.get(name)) else None for name in names}
        if changes and not notes.write(changes, shard=self._shard, lease_value=term.lease_value):
            return False
        self._changed.clear()
        if now_ms >= self._rewrite_at_ms:
            self._rewrite_at_ms = now_ms + REWRITE_MS
        return True

    def _drop(self, name: str) -> None:
        held = self._held.pop(name)
        if names := self._by_cause.get(held.cause):
            names.discard(name)
            if not names:
                del self._by_cause[held.cause]
        self._changed[name] = None

    def _log_failed(self, name: str, held: _Held) -> None:
        self._said += 1
        if self._said > SAID_ONE_BY_ONE:
            return
        extra = {"event": "entry_failed", "entry": name, "reason": held.reason, "attempts": held.attempts}
        extra["again_at"] = iso_ms(held.again_ms)
        text = "%s is held back since %s: %s; next try at %s"
        log.error(text, name, utc_text(held.since_ms), held.reason, utc_text(held.again_ms), extra=extra)

    def _log_recovered(self, name: str, held: _Held, now_ms: int) -> None:
        extra = {"event": "entry_recovered", "entry": name, "attempts": held.attempts}
        held_ms = now_ms - held.since_ms
        extra["seconds"] = held_ms / 1000
        log.info("%s is not held back any more, after %s", name, span_text(held_ms), extra=extra)


def _reason(error: Exception) -> str:
    """Return the text of an error, cut, without secrets."""
    try:
        text = str(error)[: REASON_MAX + 1]
    except Exception:  # noqa: BLE001 - an exception's own text may do anything
        text = ""
    kind = "" if isinstance(error, BeatdError) else type(error).__name__
    text = ": ".join(filter(None, (kind, text))) or "an error without a text"
    return redacted_text(text.encode(errors="backslashreplace").decode(), at_most=REASON_MAX)[:REASON_MAX]


def _is_power_of_4(number: int) -> bool:
    return number & (number - 1) == 0 and number.bit_length() % 2 == 1
