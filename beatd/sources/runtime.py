"""Runtime source: entries and pauses in the state store, followed. A change is in force within moments.

While the store does not answer, what was read last stays in force.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from beatd.clock import Backoff, SystemClock, monotonic
from beatd.config import Config
from beatd.exceptions import StoreError, StoreRefused
from beatd.model import Entry
from beatd.sources.merge import InForce, MergedSchedule, ScheduleChange
from beatd.store.daemon_commands import ASKED, CHANGED, ORDERED, OnNotification, subscribe
from beatd.store.keys import Keys
from beatd.store.runtime_entries import Runtime, read_pause
from beatd.store.runtime_replica import RuntimeChanges, RuntimeReplica

if TYPE_CHECKING:
    import redis

log = logging.getLogger("beatd.sources.store")

LOOK_S = 1.0
"""How often the store is looked at although nothing was heard."""
SLICE_S = 0.25
"""Seconds of listening at a stretch; so long may a stop be kept waiting."""
REST_S = 0.1
"""Changes in quick succession are taken together: seconds between two looks, more when a look takes long."""
RETRY_MIN, RETRY_MAX = 0.1, 2.0
"""Seconds between attempts while the store does not answer."""
_NAMES_SHOWN, _FAULTY_SHOWN = 10, 100


class ScheduleReceiver(Protocol):
    """Receiver of the merged schedule and of what else is heard from the store: the daemon.

    All but :meth:`replace_schedule` and :meth:`runtime_faults` are called by the thread of the source alone.
    """

    def replace_schedule(self, schedule: InForce) -> None:
        """Put a whole schedule in force: files or app have changed."""

    def change_schedule(self, change: ScheduleChange) -> None:
        """Put a change in force: the store has changed."""

    def runtime_entries_read(self, revision: int) -> None:
        """Note that the store was looked at, and is in force as of ``revision``."""

    def runtime_faults(self, names: Sequence[str]) -> None:
        """Note the names of runtime entries that are wrong, and so not in force."""

    def look_for_commands(self) -> None:
        """Look for commands to daemons: there may be one."""

    def look_for_run_requests(self) -> None:
        """Look for requests for runs: there may be one."""


class RuntimeSource:
    """Source of runtime entries and pauses: merges them with what files and app say, and hands that to ``receiver``.

    ``client`` is its own; ``changes`` are those that ``replica`` has just read, if it has.
    """

    def __init__(
        self,
        client: redis.Redis,
        keys: Keys,
        config: Config,
        receiver: ScheduleReceiver,
        *,
        replica: RuntimeReplica | None = None,
        changes: RuntimeChanges | None = None,
    ) -> None:
        self._client = client
        self._keys = keys
        self._receiver = receiver
        self._replica = replica or RuntimeReplica(client, keys)
        self._changes = changes
        self._runtime = Runtime(client, keys)
        self._untold: dict[str, Entry | None] = {}
        """Entries as they were before changes with which the receiver failed."""
        self._pause_ends: dict[str, int] = {}
        """When the pauses end that do so by themselves (ms since the epoch), by name."""
        self._merged = MergedSchedule(config)
        self._changing = threading.Lock()
        self._said: dict[str, str] = {}
        self._overruled: dict[str, str] = {}
        """What was said of faulty entries, and the places of those that count instead of others."""
        self._backoff = Backoff(RETRY_MIN, RETRY_MAX)
        self._unended = Backoff(LOOK_S, LOOK_S)
        self.read = threading.Event()
        """Set when the store has been read for the first time, or has refused to be."""
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="store-source", daemon=True)

    def start(self) -> None:
        """Follow the store from now on."""
        self._thread.start()

    def stop(self) -> None:
        """End the following; returns when the thread has ended, or after a second."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(1)

    def set_base(self, config: Config) -> None:
        """Merge with other files, or another app, from now on. May be called from any thread."""
        with self._changing:
            self._merged.set_base(config)
            self._receiver.replace_schedule(self._merged.in_force())
            self._say_faults()

    def _run(self) -> None:
        anew = False
        while not self._stopping.is_set():
            try:
                if not self.read.is_set():
                    self._look()  # before it subscribes: all wait for this
                with subscribe(self._client, self._keys) as hear:
                    self._follow(hear, anew=anew)
            except StoreError as error:
                self._stopping.wait(self._back_off(error))
            except Exception:
                log.exception("Following the store failed in an unexpected way", extra={"event": "store_source_error"})
                self._stopping.wait(RETRY_MAX)
            anew = True

    def _follow(self, hear: OnNotification, *, anew: bool) -> None:
        """Look, and look again whenever something is heard, and now and then: a connection may be dead and not know.

        ``anew`` after it was disconnected: it may have missed something.
        """
        self._look(anew=anew)
        self._receiver.look_for_commands()
        self._receiver.look_for_run_requests()
        rested_at = look_at = 0.0
        words: frozenset[str] = frozenset()
        while not self._stopping.is_set():
            now = monotonic()
            if (CHANGED in words and now >= rested_at) or now >= look_at:
                self._look()
                look_at = monotonic() + LOOK_S
                rested_at = monotonic() + max(REST_S, 2 * (monotonic() - now))
                words -= {CHANGED}
                self._receiver.look_for_commands()
            elif ORDERED in words:
                self._receiver.look_for_commands()
            wait = rested_at - now if CHANGED in words else look_at - now
            if ASKED in words:
                self._receiver.look_for_run_requests()
            words = words & {CHANGED} | hear(min(max(wait, 0.01), SLICE_S))

    def _look(self, *, anew: bool = False) -> None:
        news, self._changes = self._changes or self._replica.refresh(anew=anew), None
        if self._backoff.attempts:
            log.info("Runtime entries can be read again", extra={"event": "runtime_readable"})
        self._backoff.succeeded()
        with self._changing:
            if news.before or news.went_back or self._untold:
                self._take_in(news)
                self._say_faults()
        self._receiver.runtime_entries_read(self._replica.revision)
        self.read.set()
        self._end_pauses()

    def _end_pauses(self) -> None:
        """Resume the entries whose pauses are over; the next look finds the change, here and in the other daemons."""
        now_ms = SystemClock().now_ms()
        ended = [name for name, until_ms in self._pause_ends.items() if until_ms <= now_ms]
        try:
            over = self._runtime.end_pauses(ended) if ended else []
        except StoreError as error:  # it can be read, and takes no writes: what was read is in force
            self._unended.failed()
            text = "%d pauses that are over cannot be ended%s, and are tried again: %s"
            extra = {"event": "pause_not_ended", "count": len(ended)}
            log.log(self._unended.level, text, len(ended), self._unended.since_text, error, extra=extra)
            return
        self._unended.succeeded()
        for name in over:
            log.info("The pause of %s is over", name, extra={"event": "pause_ended", "entry": name})

    def _take_in(self, news: RuntimeChanges) -> None:
        merged, replica = self._merged, self._replica
        before = self._untold = {name: merged.of(name) for name in news.before} | self._untold
        merged.change({name: replica.tables.get(name) for name in before})
        merged.pause(replica.pauses)
        notes = ((name, read_pause(raw)) for name, raw in replica.pauses.items())
        self._pause_ends = {name: note.until_ms for name, note in notes if note.until_ms is not None}
        after = {name: merged.of(name) for name in before}
        # One that is as it was may have been paused and resumed between two looks: the leader is to look at it anew.
        put = {name: entry for name, entry in after.items() if entry is not None}
        gone = frozenset(name for name, entry in after.items() if entry is None and before[name] is not None)
        self._receiver.change_schedule(ScheduleChange(put, gone, *merged.counts()))
        self._untold = {}
        if self.read.is_set():
            self._say(news, before, after)
        else:
            entries, pauses = len(replica.tables), len(replica.pauses)
            extra = {"event": "runtime_read", "entries": entries, "pauses": pauses, "revision": replica.revision}
            log.info("The state store adds %d entries, and %d are paused", entries, pauses, extra=extra)

    def _say(self, news: RuntimeChanges, before: dict[str, Entry | None], after: dict[str, Entry | None]) -> None:
        if news.went_back:
            log.warning(
                "The state store has forgotten runtime changes: it was flushed, lost writes, or was changed by hand",
                extra={"event": "runtime_went_back", "revision": self._replica.revision},
            )
        paused = self._replica.pauses
        became = {name: _sign(before[name], after[name], is_paused=name in paused) for name in sorted(before)}
        signs = [sign + name for name, sign in became.items() if sign]
        if signs:
            more = f", and {len(signs) - _NAMES_SHOWN} more" if signs[_NAMES_SHOWN:] else ""
            extra = {"event": "runtime_changed", "changes": len(signs), "revision": self._replica.revision}
            log.info("Runtime changes: %s%s", ", ".join(signs[:_NAMES_SHOWN]), more, extra=extra)

    def _say_faults(self) -> None:
        """Say once what is wrong with an entry, and which entries do not count; of very many the first."""
        self._receiver.runtime_faults(sorted(self._merged.faults))
        said = {name: "\n".join(map(str, faults)) for name, faults in self._merged.faults.items()}
        new = [name for name, text in said.items() if self._said.get(name) != text]
        for name in new[:_FAULTY_SHOWN]:
            for fault in self._merged.faults[name]:
                extra = {"event": "runtime_entry_broken", "entry": name, "key": self._keys.runtime().schedules}
                log.error("%s; the entry is not in force", fault, extra=extra)
        if new[_FAULTY_SHOWN:]:
            text = "%d entries in the state store are wrong and not in force"
            log.error(text, len(new), extra={"event": "runtime_entries_broken", "count": len(new)})
        conflicts = {other.name: other.source for other in self._merged.conflicts()}
        for name in [name for name, source in conflicts.items() if self._overruled.get(name) != source][:_FAULTY_SHOWN]:
            text = "Entry %s is in %s and in the state store; the first counts"
            log.warning(text, name, conflicts[name], extra={"event": "entry_overruled", "entry": name})
        self._said, self._overruled = said, conflicts

    def _back_off(self, error: StoreError) -> float:
        """Keep what is in force, as the store failed; returns the seconds until the next attempt."""
        if self._stopping.is_set():
            return 0.0
        if isinstance(error, StoreRefused):
            self.read.set()  # not a matter of time: go on without
        pause = self._backoff.failed()
        log.log(
            self._backoff.level,
            "Runtime entries cannot be read%s, and stay as they were: %s; trying again in %.1f s",
            self._backoff.since_text,
            error,
            pause,
            extra={"event": "runtime_unreadable", "attempt": self._backoff.attempts, "since": self._backoff.since},
        )
        return pause


def _sign(before: Entry | None, after: Entry | None, *, is_paused: bool) -> str:
    """Return the sign of a change as the log has it before an entry's name."""
    if before is None or after is None:
        return "" if before is after else "+" if before is None else "−"
    if before.means(after):
        return ""
    if before.policies.enabled != after.policies.enabled == (not is_paused):
        return "paused " if is_paused else "resumed "
    return "~"
