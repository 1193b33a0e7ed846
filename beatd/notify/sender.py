"""Sender: notices go from the outbox to their destinations, each in a thread of its own, one at a time to each.

A failed attempt is repeated with growing pauses, or when the receiver says; the number of attempts is bounded, and
each failure is logged. While a destination pauses or hangs, only its own notices wait.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import NamedTuple

from msgspec import structs

from beatd.clock import Backoff, Clock
from beatd.exceptions import StoreError, TermLost
from beatd.metrics.counters import DaemonCounters
from beatd.model import Entry, NotifyTarget
from beatd.notify import monitors
from beatd.notify.channels import deliver
from beatd.notify.http_request import DeliveryFailed
from beatd.store.notices import Notice, Notices, TakenNotice
from beatd.store.undelivered import Undelivered

log = logging.getLogger("beatd.notify")

THREADS_MAX = 32
"""Notices that are sent at the same time."""
AGAIN_MS = 30_000
"""A notice that was taken comes again after so long, or after the time-outs of its target: its sender may have died."""
_FIRST_MS, _LONGEST_MS = 2_000, 300_000
"""Pauses between attempts."""
ATTEMPTS_MAX: Mapping[str, int] = {"message": 16, "ping": 6, "check_in": 6}
"""Attempts: for a message about an hour, for a ping about a minute."""
PINGS_FOR_MS = 900_000
"""A ping that is older says nothing any more."""
_SETTLE_TRIES = 3


class Directory(NamedTuple):
    """The targets by name, and the entries as they are in force."""

    targets: Mapping[str, NotifyTarget]
    entry: Callable[[str], Entry | None]


class Sender:
    """Sends what is due in the outbox. ``directory`` is asked at each attempt: settings may have changed."""

    def __init__(
        self,
        outbox: Notices,
        undelivered: Undelivered,
        clock: Clock,
        counters: DaemonCounters,
        directory: Callable[[], Directory],
    ) -> None:
        self._outbox, self._undelivered = outbox, undelivered
        self._reached: set[str] = set()
        """Destinations of which it is known that they are not among the undelivered."""
        self._clock = clock
        self._counters = counters
        self._directory = directory
        self._lock, self._taking = threading.Lock(), threading.Lock()
        self._stopped = False
        self._busy: set[str] = set()
        self._pauses: dict[str, float] = {}

    def send_due(self) -> None:
        """Begin to send what is due; raises a :class:`~beatd.exceptions.StoreError`."""
        with self._taking:  # one after the other: nothing is taken for a destination that has just become busy
            now = self._clock.monotonic()
            with self._lock:
                self._pauses = {name: until for name, until in self._pauses.items() if until > now}
                busy, room = self._busy | self._pauses.keys(), THREADS_MAX - len(self._busy)
            if room <= 0:
                return
            for taken in self._outbox.take(room, again_ms=AGAIN_MS, busy=busy):
                with self._lock:
                    self._busy.add(taken.destination)
                try:
                    threading.Thread(target=self._send, args=(taken,), name="notice", daemon=True).start()
                except RuntimeError:  # the process has no more threads; the notice comes again
                    with self._lock:
                        self._busy.discard(taken.destination)
                    raise

    def begin(self) -> None:
        """Forget what is known of destinations: another daemon may have sent to them meanwhile."""
        self._reached.clear()

    def stop(self) -> None:
        """Begin nothing more."""
        self._stopped = True

    @property
    def is_busy(self) -> bool:
        """True while something is being sent."""
        with self._lock:
            return bool(self._busy)

    def _send(self, taken: TakenNotice) -> None:
        try:
            self._attempt(taken)
        except (StoreError, TermLost) as error:
            extra = {"event": "notice_unsettled", "destination": taken.destination}
            log.warning("%s; a notice to %s may be sent twice", error, taken.destination, extra=extra)
        except Exception:
            log.exception("Sending a notice failed in an unexpected way", extra={"event": "notify_error"})
        finally:
            with self._lock:
                self._busy.discard(taken.destination)
        if not self._stopped:
            with suppress(StoreError):  # the notifier will say so
                self.send_due()  # the next one for the destination

    def _attempt(self, taken: TakenNotice) -> None:
        notice, directory = taken.notice, self._directory()
        try:
            way = self._way(notice, directory)
            if way is None:
                self._settle(lambda: self._outbox.remove(taken.id))
                extra = {"event": "notice_without_target", "target": notice.name}
                log.warning("A notice for %s is dropped: it is not in force any more", notice.name, extra=extra)
                return
            if notice.kind == "message":
                self._hold(taken, directory.targets[notice.name])
            _deliver(way, notice)
        except DeliveryFailed as error:
            self._failed(taken, error)
            return
        self._settle(lambda: self._outbox.remove(taken.id))
        self._count(notice, "sent")
        self._note(taken)
        extra = {"event": "notice_sent", "target": notice.name, "kind": notice.kind}
        level = logging.INFO if notice.kind == "message" else logging.DEBUG
        log.log(level, "Sent a %s to %s", notice.kind, notice.name, extra=extra)

    def _way(self, notice: Notice, directory: Directory) -> Callable[[], None] | None:
        """Return the call that delivers a notice; None if its target is gone."""
        now_ms = self._clock.now_ms()
        if notice.kind == "message":
            target = directory.targets.get(notice.name)
            if target is None:
                return None
            return lambda: deliver(target, notice.body, now_ms=now_ms, left=notice.left)
        entry = directory.entry(notice.name)
        if entry is None or abs(now_ms - notice.created_ms) > PINGS_FOR_MS:
            return None
        monitor = entry.policies.sentry
        if notice.kind == "check_in":
            if monitor is None:
                return None
            return lambda: monitors.check_in(entry, monitor, notice.body, now_ms)
        return (lambda: monitors.ping(entry, notice.body, now_ms)) if entry.policies.ping else None

    def _hold(self, taken: TakenNotice, target: NotifyTarget) -> None:
        """Keep the notice from coming again while its target takes its time."""
        longest_ms = target.timeout_ms * max(len(target.urls), 1) + AGAIN_MS
        if longest_ms > AGAIN_MS + 10_000:
            self._outbox.put_back(taken, longest_ms)

    def _failed(self, taken: TakenNotice, error: DeliveryFailed) -> None:
        notice = taken.notice
        attempts = notice.attempts + 1
        self._count(notice, "failed")
        extra = {"event": "notice_failed", "target": notice.name, "kind": notice.kind, "attempt": attempts}
        if not error.passing or attempts >= ATTEMPTS_MAX[notice.kind]:
            self._settle(lambda: self._outbox.remove(taken.id))
            self._note(taken, error, given_up=True)
            extra |= {"event": "notice_given_up"}
            log.error("A %s to %s is given up: %s", notice.kind, notice.name, error, extra=extra)
            return
        pause_ms = max(min(_FIRST_MS << attempts - 1, _LONGEST_MS), int(error.after_s * 1000))
        log.warning(
            "A %s to %s failed: %s; trying again in %g s", notice.kind, notice.name, error, pause_ms / 1000, extra=extra
        )
        with self._lock:
            self._pauses[taken.destination] = self._clock.monotonic() + pause_ms / 1000
        later = TakenNotice(taken.id, structs.replace(notice, attempts=attempts, left=list(error.left)))
        self._settle(lambda: self._outbox.put_back(later, pause_ms))
        self._note(taken, error)

    def _note(self, taken: TakenNotice, error: DeliveryFailed | None = None, *, given_up: bool = False) -> None:
        """Note, for people alone, whether a destination is reached."""
        name = taken.notice.name if taken.notice.kind == "message" else _service(taken.destination)
        with suppress(StoreError):
            if error is not None:
                self._reached.discard(name)
                self._undelivered.failed(name, str(error), self._clock.now_ms(), given_up=given_up)
            elif name not in self._reached:
                self._undelivered.delivered(name)
                self._reached.add(name)

    def _settle(self, settle: Callable[[], None]) -> None:
        """Write the outcome to the outbox; tries again for some seconds, so that the notice is not sent twice."""
        backoff, never = Backoff(0.5, 2.0), threading.Event()
        for _ in range(_SETTLE_TRIES - 1):
            with suppress(StoreError):
                return settle()
            never.wait(backoff.failed())
        return settle()

    def _count(self, notice: Notice, outcome: str) -> None:
        with self._lock:
            name = notice.name if notice.kind == "message" else notice.kind
            self._counters.notices[name, outcome] += 1


def _deliver(way: Callable[[], None], notice: Notice) -> None:
    """Call ``way``. A defect in it is a failed attempt as well: without a bound it would be repeated for ever."""
    try:
        way()
    except DeliveryFailed:
        raise
    except Exception as error:
        kind = type(error).__name__
        shown = RuntimeError(f"{kind} (its text is not shown: it may have an address)")
        extra = {"event": "notify_error", "target": notice.name, "kind": notice.kind}
        text, trace = "Sending a %s to %s failed in an unexpected way", (type(shown), shown, error.__traceback__)
        log.error(text, notice.kind, notice.name, exc_info=trace, extra=extra)  # noqa: TRY400 - with the same trace
        raise DeliveryFailed(f"{kind}; the log of the daemon has more") from None


def _service(destination: str) -> str:
    """The kind and the host of pings: they have several destinations there."""
    kind, _, place = destination.partition(":")
    return f"{kind}:{place.rpartition(':')[0] or place}"
