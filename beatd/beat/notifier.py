"""Notifier: tells targets of problems, in a thread of its own.

Every two seconds the leader of shard 0 compares the conditions of now with the marks of what each target was told. It
puts one message for all changes into the outbox, together with new marks. Changes that still grow are waited for, half
a minute at most: a herd of failures is one message. The next message to a target comes after its ``interval``, and
when the last one has left.

Nobody leads: if shard 0 is without a leader for longer than a lease lasts, the first of the live daemons tells that,
and sends what is in the outbox; the next leader tells for how long nobody led, unless that was told. While the state
store is away there is no outbox: the daemon that led last tells its targets directly, once.
"""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from beatd.beat.conditions import Conditions, is_free, subject_of
from beatd.beat.pings import PingPlanner
from beatd.beat.term import Leadership
from beatd.clock import Clock
from beatd.exceptions import StoreError, TermLost
from beatd.model import Entry, NotifyTarget
from beatd.notify.channels import deliver
from beatd.notify.http_request import DeliveryFailed
from beatd.notify.message import listed, message
from beatd.notify.sender import Directory, Sender
from beatd.planning.alerts import BriefFailure, Changes, Condition, Subject, ToldCondition, changes
from beatd.store.daemon_registry import FleetView
from beatd.store.keys import shard_of
from beatd.store.notices import Notice, Notices
from beatd.store.server_check import NodeCheck
from beatd.timestamps import span_text

log = logging.getLogger("beatd.beat.notifier")

LOOK_S = 2.0
"""Seconds between two looks; more when a look takes long."""
_SHARE, _REST_MAX_S = 20, 60.0
"""A look is followed by a rest that is at least so many times as long, and at most so many seconds: a process that was
stopped for an hour in the middle of a look is not to be silent for a day."""
GROW_S = 30.0
"""Seconds for which changes that still grow are waited for."""
_KEEP_EVERY_S = 3_600.0
_FOUND_ANEW: frozenset[str] = frozenset({"overdue", "too_long", "held"})
_FIND_S = 15.0
"""Kinds of conditions that a new leader finds out by itself, and seconds for that: until then a missing one does not
count as over."""
_AWAY_S = 30.0
_RECOVERED = "recovered"
"""Name of the mark that holds ``noted`` of the last recovery that was reported, or need not be."""
_STOP_S = 1.0


@dataclass
class _TargetState:
    """Progress with one target. Moments on the monotonic clock."""

    told: dict[Subject, ToldCondition] = field(default_factory=dict)
    waiting_since: float | None = None
    count: int = 0
    """Changes at the last look."""
    sent_at: float | None = None
    recovered: int = 0
    """``noted`` of the last recovery that was reported to the target, or need not be."""


class FleetSight(NamedTuple):
    """Access to the fleet: this daemon's id, the leadership of shard 0, and the fleet as last seen."""

    daemon_id: str
    leadership: Leadership
    fleet: Callable[[], FleetView | None]
    shards: int
    ttl_s: float


class Notifier:
    """``entry`` finds an entry in force by its name."""

    def __init__(
        self,
        sight: FleetSight,
        conditions: Conditions,
        pings: PingPlanner,
        notices: Notices,
        sender: Callable[[Callable[[], Directory]], Sender],
        *,
        entry: Callable[[str], Entry | None],
        place: str,
        clock: Clock,
        check_nodes: NodeCheck,
    ) -> None:
        self._check_nodes = check_nodes
        self._sight, self._conditions, self._pings = sight, conditions, pings
        self._notices, self._entry, self._place, self._clock = notices, entry, place, clock
        self._sender = sender(self._directory)
        self._targets: Mapping[str, NotifyTarget] = {}
        self._monitored: dict[str, Entry] = {}
        self._states: dict[str, _TargetState] = {}
        self._token: int | None = None
        self._began_at = 0.0
        self._unled_at: dict[int, float] = {}
        """When shards were last seen without a leader, or their node away."""
        self._free_since: float | None = None
        self._reached_at: float | None = None
        """When this daemon last led with the store in reach."""
        self._away_told = False
        self._kept_at = clock.monotonic()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="notifier", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread; returns when nothing is being sent any more, or after a second."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(_STOP_S)

    def set_targets(self, targets: Sequence[NotifyTarget]) -> None:
        """Set the targets. May be called from any thread."""
        self._targets = {target.name: target for target in targets}

    def set_entries(self, entries: Iterable[Entry]) -> None:
        """Watch the runs of monitored entries among these, and of no others. From any thread."""
        self._monitored = {one.name: one for one in entries if one.policies.ping or one.policies.sentry}

    def change_entries(self, put: Mapping[str, Entry], gone: Collection[str]) -> None:
        """Watch the runs of monitored entries among these, too, and of some no more. From any thread."""
        kept = {name: one for name, one in self._monitored.items() if name not in gone and name not in put}
        new = {name: one for name, one in put.items() if one.policies.ping or one.policies.sentry}
        self._monitored = {**kept, **new}

    def _directory(self) -> Directory:
        return Directory(self._targets, self._entry)

    def _run(self) -> None:
        pause = LOOK_S
        while not self._stopping.wait(pause):
            started = self._clock.monotonic()
            try:
                self._look_once()
            except Exception:
                log.exception("Looking for news failed in an unexpected way", extra={"event": "notify_error"})
            pause = min(max(LOOK_S, _SHARE * (self._clock.monotonic() - started)), _REST_MAX_S)
        self._sender.stop()
        until = self._clock.monotonic() + _STOP_S / 2
        while self._sender.is_busy and self._clock.monotonic() < until:
            self._clock.wait(threading.Event(), 0.05)

    def _look_once(self) -> None:
        try:
            self.look()
        except TermLost:
            self._token = None
        except StoreError as error:
            self._store_is_away(error)

    def look(self) -> None:
        """Look once, as the leader or in place of one. Raises a :class:`~beatd.exceptions.StoreError`."""
        if not (self._targets or self._monitored):
            self._token = None
            return
        term = self._sight.leadership.term()
        if term is not None:
            if term.token != self._token:
                self._begin(term.token, term.lease_value)
            self._look_at_shards()
            self._tell(term.lease_value)
            self._ping(term.lease_value)
            self._notices.note_led()
            self._reached_at, self._away_told = self._clock.monotonic(), False
        else:
            self._token = None
            self._look_for_the_store()
            if not self._stands_in():
                return
            self._tell_nobody_leads()
        self._sender.send_due()

    # As the leader.

    def _begin(self, token: int, lease_value: str) -> None:
        """Begin a term: read what was reported, and report for how long nobody led."""
        self._states = {}
        self._pings.begin()
        self._sender.begin()
        away_ms = self._notices.led_ms_ago()
        if away_ms is not None and away_ms > 2_000 * self._sight.ttl_s:
            self._tell_of_gap(away_ms, lease_value)
        self._token, self._began_at = token, self._clock.monotonic()

    def _look_at_shards(self) -> None:
        """Find out about which shards nothing can be known now, or too little yet."""
        self._check_nodes()
        fleet, now = self._sight.fleet(), self._clock.monotonic()
        for shard in range(self._sight.shards):
            if shard in self._check_nodes.keys.away or (fleet is not None and is_free(fleet, shard)):
                self._unled_at[shard] = now

    def _is_unknown(self, subject: Subject) -> bool:
        """True if a condition may be there though it was not seen."""
        if subject.kind in self._conditions.unknown:
            return True
        if not subject.is_of_entry:
            return False
        shard = shard_of(subject.name, self._sight.shards)
        led_since = max(self._began_at, self._unled_at.get(shard, self._began_at))
        is_found = subject.kind not in _FOUND_ANEW or self._clock.monotonic() - led_since >= _FIND_S
        return not is_found or self._check_nodes.keys.is_away(subject.name)

    def _state(self, name: str, lease_value: str) -> _TargetState:
        if name not in self._states:
            marks = self._notices.marks(name)
            recovered = marks.pop(_RECOVERED, "")
            told = {Subject.of(mark): ToldCondition.of(text) for mark, text in marks.items()}
            noted = int(recovered) if recovered.isdigit() else self._conditions.last_noted()
            if not recovered.isdigit():  # for the next leader: from here on
                self._notices.put([], name, {_RECOVERED: str(noted)}, lease_value=lease_value)
            self._states[name] = _TargetState(told, recovered=noted)
        return self._states[name]

    def _tell(self, lease_value: str) -> None:
        targets = self._targets
        kinds = {kind for target in targets.values() for kind in target.on}
        self._states = {name: state for name, state in self._states.items() if name in targets}
        if not targets:
            return
        found = self._conditions.look(kinds, shards=self._sight.shards, ttl_s=self._sight.ttl_s)
        for name, target in targets.items():
            self._tell_target(target, self._state(name, lease_value), found, lease_value)
        if self._clock.monotonic() - self._kept_at > _KEEP_EVERY_S:
            self._kept_at = self._clock.monotonic()
            self._notices.keep(["", *targets])

    def _tell_target(
        self, target: NotifyTarget, state: _TargetState, found: Mapping[Subject, Condition], lease_value: str
    ) -> None:
        now_ms = self._clock.now_ms()
        noted = self._conditions.recoveries(state.recovered) if "failure" in target.on else []
        recovered = [(one.entry, BriefFailure(one.since_ms, one.end_ms, one.failures)) for one in noted]
        news = changes(
            target,
            found,
            state.told,
            entry=self._entry,
            now_ms=now_ms,
            is_unknown=self._is_unknown,
            recovered=recovered,
        )
        known = max([state.recovered, *(one.noted for one in noted)])
        if not news.number:
            state.waiting_since = None
            state.recovered = known
            if news.forgotten:
                self._put(target, state, news, None, lease_value, known=known)
            return
        if not self._is_time(target, state, news.number):
            return
        reasons = self._conditions.reasons(listed(news))
        body = message(target, news, now_ms, reasons, self._place)
        notice = Notice(kind="message", name=target.name, body=body, created_ms=now_ms)
        self._put(target, state, news, notice, lease_value, known=known)
        state.waiting_since, state.sent_at = None, self._clock.monotonic()

    def _is_time(self, target: NotifyTarget, state: _TargetState, count: int) -> bool:
        """True if the changes have settled, and the last message is long enough ago and has left."""
        now = self._clock.monotonic()
        is_first, grows = state.waiting_since is None, count != state.count
        state.waiting_since, state.count = now if state.waiting_since is None else state.waiting_since, count
        if is_first or (grows and now - state.waiting_since < GROW_S):
            return False
        if state.sent_at is not None and now - state.sent_at < target.interval_ms / 1000:
            return False
        return _destination(target) not in self._notices.destinations()

    def _put(
        self,
        target: NotifyTarget,
        state: _TargetState,
        news: Changes,
        notice: Notice | None,
        lease_value: str,
        *,
        known: int,
    ) -> None:
        now_ms = self._clock.now_ms()
        told = {subject: ToldCondition(one.since_ms, now_ms) for subject, one in {**news.begun, **news.lasting}.items()}
        gone = [*news.over, *news.forgotten]
        marks = {subject.field: one.text for subject, one in told.items()} | {one.field: "" for one in gone}
        marks[_RECOVERED] = str(known)
        notices = [(self._id(target), notice)] if notice else []
        self._note_dropped(self._notices.put(notices, target.name, marks, lease_value=lease_value))
        state.recovered = known
        state.told |= told
        for subject in gone:
            state.told.pop(subject, None)

    def _tell_of_gap(self, away_ms: int, lease_value: str) -> None:
        now_ms = self._clock.now_ms()
        text = f"it had no leader for {span_text(away_ms)}; {self._sight.daemon_id} leads now"
        begun = {subject_of(0): Condition(now_ms - away_ms, text=text)}
        for target in self._targets.values():
            if "nobody_leads" in target.on and subject_of(0) not in self._state(target.name, lease_value).told:
                body = message(target, Changes(begun, {}, {}, frozenset()), now_ms, {}, self._place)
                notice = Notice(kind="message", name=target.name, body=body, created_ms=now_ms)
                self._notices.put([(self._id(target), notice)], target.name, {}, lease_value=lease_value)
        self._notices.note_led()

    def _ping(self, lease_value: str) -> None:
        self._note_dropped(self._pings.look(self._monitored, lease_value))

    def _note_dropped(self, count: int) -> None:
        if count > 0:
            extra = {"event": "notices_dropped", "count": count}
            log.error("Notices dropped, as too many wait for their targets: %d", count, extra=extra)

    # Without a leader.

    def _look_for_the_store(self) -> None:
        """Raise a StoreError if this daemon led last, and the store is away. Nothing else here asks the store then."""
        if self._reached_at is None:
            return
        led_ms_ago = self._notices.led_ms_ago()
        since_s = self._clock.monotonic() - self._reached_at
        if led_ms_ago is not None and led_ms_ago / 1000 < since_s - LOOK_S:  # another daemon has led since
            self._reached_at = None

    def _stands_in(self) -> bool:
        """True if nobody has led shard 0 for longer than a lease lasts, and this is the first of the live daemons."""
        fleet, now = self._sight.fleet(), self._clock.monotonic()
        if fleet is None or not is_free(fleet, 0):
            self._free_since = None
            return False
        if self._free_since is None:
            self._free_since = now
        return now - self._free_since > self._sight.ttl_s and self._sight.daemon_id == min(fleet.alive, default="")

    def _tell_nobody_leads(self) -> None:
        now_ms = self._clock.now_ms()
        since_ms = now_ms - int((self._clock.monotonic() - (self._free_since or 0.0)) * 1000)
        begun = {subject_of(0): Condition(since_ms, text="no run is sent; see beatd status")}
        for target in self._targets.values():
            if "nobody_leads" in target.on:
                body = message(target, Changes(begun, {}, {}, frozenset()), now_ms, {}, self._place)
                notice = Notice(kind="message", name=target.name, body=body, created_ms=now_ms)
                marks = {subject_of(0).field: ToldCondition(since_ms, now_ms).text}
                self._notices.put([(self._id(target), notice)], target.name, marks, lease_value="")

    def _store_is_away(self, error: StoreError) -> None:
        """Tell directly, once, if this daemon led last: there is no outbox now."""
        self._token = None
        if self._reached_at is None or self._away_told:
            return
        away_s = self._clock.monotonic() - self._reached_at
        if away_s < max(2 * self._sight.ttl_s, _AWAY_S):
            return
        self._away_told = True
        now_ms = self._clock.now_ms()
        begun = {subject_of(0): Condition(now_ms - int(away_s * 1000), text=f"no run is sent: {error}")}
        for target in self._targets.values():
            if "nobody_leads" in target.on:
                body = message(target, Changes(begun, {}, {}, frozenset()), now_ms, {}, self._place)
                threading.Thread(target=_deliver_once, args=(target, body, now_ms), name="notice", daemon=True).start()

    def _id(self, target: NotifyTarget) -> str:
        return f"{_destination(target)}|{self._clock.now_ms():013}-{secrets.token_hex(3)}"


def _destination(target: NotifyTarget) -> str:
    return f"message:{target.name}"


def _deliver_once(target: NotifyTarget, body: Mapping[str, object], now_ms: int) -> None:
    extra = {"event": "notice_given_up", "target": target.name, "kind": "message"}
    try:
        deliver(target, body, now_ms=now_ms)
    except DeliveryFailed as error:
        log.error("A message to %s is given up: %s", target.name, error, extra=extra)  # noqa: TRY400 - no traceback
