"""Fakes that tests share: a clock that moves when told, and the store's claims in memory.

``tests/integration/store/test_claims_conformance.py`` runs the same tests against :class:`MemoryClaims` and the Lua
scripts on a real server, and compares the two after random sequences of calls.
"""

from __future__ import annotations

import bisect
import copy
import re
from types import MappingProxyType

from beatd.exceptions import StoreRolledBack, StoreUnavailable, TermLost
from beatd.model import EntryState
from beatd.store.claims import Claimed
from beatd.store.entry_state import UnfinishedRun, kept_from_running_until_ms

NOW = 1_790_000_000_000
"""2026-09-21T14:13:20Z"""

GAPS_MAX = 8


class FakeClock:
    """A clock that moves when told: ``advance`` lets time pass, ``step`` sets the wall clock, and ``wait`` returns at
    once, after the time that it was to wait; without ``waits`` it fails the test."""

    def __init__(self, now_ms: int = NOW, *, waits: bool = True) -> None:
        self.ms = now_ms
        self.mono = 1_000.0
        self._rest_ms = 0.0
        self._waits = waits

    def now_ms(self):
        return self.ms

    def seconds_until(self, instant_ms):
        return (instant_ms - self.ms - self._rest_ms) / 1000

    def monotonic(self):
        return self.mono

    def advance(self, seconds):
        exact_ms = self._rest_ms + seconds * 1000
        self.ms += round(exact_ms)
        self._rest_ms = exact_ms - round(exact_ms)
        self.mono += seconds

    def step(self, seconds):
        """The wall clock is set; no time passes."""
        self.ms += round(seconds * 1000)

    def wait(self, event, seconds):
        assert self._waits, "nothing here waits"
        self.advance(seconds)
        return event.is_set()


class SentMessages:
    """A publisher that only keeps what is sent: ``App(publisher=SentMessages())``."""

    batch = 1

    def __init__(self):
        self.messages = []

    def publish(self, message, **_to):
        self.messages.append(message)

    def publish_many(self, messages):
        self.messages += [outgoing.message for outgoing in messages]
        return []


class MemoryClaims:
    """The claimed state of one shard's entries, by the rules of ``load_entries.lua``, ``claim.lua``, ``pass_over.lua``
    and ``sweep.lua``; without what only a server can do: refuse a key. Gaps are lists ``[after_ms, before_ms]``."""

    def __init__(self):
        self.lease_value = ""
        self.states = {}
        """Entry name → (state, fingerprint); the fingerprint of an entry that was never adopted is None."""
        self.limits = {}
        self.gaps = {}
        self.running = {}
        self.gone = {}
        self.count = 0
        self.pushed = []
        self.stretches = {}
        """Entry name → due times of the runs that were sent, and from where on each was the first; both in order."""
        self.overlaps = []
        """Messages by which the end of one run would pass for the end of another."""
        self.down = False
        self._confirmed = 0

    def snapshot(self):
        return copy.deepcopy((self.states, self.limits, self.gaps, self.running, self.gone, self.count))

    def restore(self, snapshot):
        """The store loses the writes since then."""
        self.states, self.limits, self.gaps, self.running, self.gone, self.count = copy.deepcopy(snapshot)

    def _check(self, lease_value):
        if self.down:
            raise StoreUnavailable("down")
        if lease_value != self.lease_value:
            raise TermLost("FENCED")

    def load_entries(self, entries, *, lease_value, now_ms, limits=MappingProxyType({})):
        self._check(lease_value)
        states = [(name, self._load(name, fingerprint, limits.get(name), now_ms)) for name, fingerprint in entries]
        self._confirmed = self.count
        yield from states

    def _load(self, name, fingerprint, limits, now_ms):
        state, known = self.states.get(name, (None, None))
        last_due_ms, first_seen_ms, runs = state or (None, now_ms, 0)
        gaps = self.gaps.setdefault(name, [])
        if state is not None:
            gaps[:] = [gap for gap in gaps if gap[0] < last_due_ms]
        begins_ms, goes_on_ms = now_ms if known != fingerprint else None, last_due_ms
        noted = self.limits.get(name)
        if begins_ms is None and noted is not None and noted != limits:
            begins_ms = kept_from_running_until_ms(noted, last_due_ms=last_due_ms, runs=runs, now_ms=now_ms)
        self.limits |= {name: limits}
        began = begins_ms is not None
        if state is not None and last_due_ms > now_ms:
            goes_on_ms = self._behind(gaps, last_due_ms, first_seen_ms if known is not None else now_ms, now_ms, began)
        elif began:
            gaps[:] = [[after_ms, min(before_ms, now_ms + 1)] for after_ms, before_ms in gaps]
            if state is not None and last_due_ms != begins_ms:
                self._add_gap(gaps, last_due_ms, begins_ms + 1)
            goes_on_ms = last_due_ms = begins_ms
        if began:
            if known is None or known.removeprefix("off ") != fingerprint.removeprefix("off "):
                first_seen_ms = now_ms
            self.count += 1
        self.states[name] = (EntryState(last_due_ms, first_seen_ms, runs), fingerprint)
        return EntryState(goes_on_ms, first_seen_ms, runs)

    def _behind(self, gaps, last_due_ms, first_seen_ms, now_ms, began):
        opened = None
        for gap in gaps:
            if gap[1] > now_ms and not (opened and opened[1] < gap[1]):
                opened = gap
        noted = bool(gaps) and gaps[0][0] == 0
        is_later = opened is None or opened[0] >= first_seen_ms
        if is_later and first_seen_ms > now_ms and not noted and len(gaps) < GAPS_MAX:
            opened = [0, first_seen_ms + 1]
            gaps.insert(0, opened)
        if opened is None:
            return last_due_ms
        after_ms, before_ms = opened
        if (began or after_ms == 0) and after_ms < now_ms:
            opened[1] = now_ms + 1
            self._add_gap(gaps, now_ms, before_ms)
            return now_ms
        return after_ms

    def _add_gap(self, gaps, after_ms, before_ms):
        if [after_ms, before_ms] not in gaps:
            gaps.append([after_ms, before_ms])
        while len(gaps) > GAPS_MAX:
            del gaps[1 if gaps[0][0] == 0 else 0]

    def pass_over(self, gaps, *, lease_value):
        self._check(lease_value)
        for name, after_ms, before_ms, decided_ms in gaps:
            self._add_gap(self.gaps.setdefault(name, []), after_ms, before_ms)
            state, fingerprint = self.states.get(name, (None, None))
            if decided_ms is not None and state is not None and state.last_due_ms == after_ms:
                self.states[name] = state._replace(last_due_ms=decided_ms), fingerprint

    def claim(self, batches, *, lease_value):
        for batch in batches:
            self._check(lease_value)
            if self.count < self._confirmed:
                self._confirmed = 0
                raise StoreRolledBack("ROLLBACK")
            left_out, names = set[int](), set[str]()
            for number, claim in enumerate(batch):
                is_dropped = claim.queue is None and claim.running
                if (is_dropped and claim.name in names) or not self._take(claim):
                    left_out.add(number)
                    names.add(claim.name)
            self._confirmed = self.count
            yield Claimed(frozenset(left_out))

    def _take(self, claim):
        """Claim one run; False if it had been claimed."""
        state, fingerprint = self.states.get(claim.name, (EntryState(0, 0, 0), None))
        if claim.due_ms <= state.last_due_ms and not self._take_from_gap(claim.name, claim.due_ms):
            return False
        sent = claim.queue is not None
        last_due_ms = max(state.last_due_ms, claim.due_ms)
        self.states[claim.name] = (state._replace(last_due_ms=last_due_ms, runs=state.runs + sent), fingerprint)
        self.count += 1
        if sent:
            self.pushed.append((claim.name, claim.due_ms))
            self._note_stretch(claim)
            if claim.running:
                self.running[claim.name] = claim.running
        return True

    def _note_stretch(self, claim):
        after = re.search(rb'"beatd-after": ?(\d+)', claim.message)
        if after is None:
            return
        after_ms, (dues, afters) = int(after[1]), self.stretches.setdefault(claim.name, ([], []))
        if claim.due_ms in dues[-1_000:]:  # the store forgot that it was claimed
            return
        place = bisect.bisect(dues, claim.due_ms)
        is_first = place == 0 or dues[place - 1] <= after_ms
        if not (is_first and (place == len(dues) or claim.due_ms <= afters[place])):
            self.overlaps.append((claim.name, after_ms, claim.due_ms))
        dues.insert(place, claim.due_ms)
        afters.insert(place, after_ms)

    def _take_from_gap(self, name, due_ms):
        around = [gap for gap in self.gaps.get(name, []) if 0 < gap[0] < due_ms < gap[1]]
        for gap in around:
            gap[0] = due_ms
        return bool(around)

    def verify_term(self, *, lease_value):
        for _ in self.claim([()], lease_value=lease_value):
            pass

    def sweep(self, names, *, lease_value, now_ms, keep_ms, unloaded=0):
        self._check(lease_value)
        present = frozenset(names)
        forgotten = [name for name, at_ms in self.gone.items() if name not in present and at_ms < now_ms - keep_ms]
        for name in forgotten:
            for fields in (self.gone, self.states, self.limits, self.gaps, self.running):
                fields.pop(name, None)
        known = {name for name, (_, fingerprint) in self.states.items() if fingerprint is not None}
        back = self.gone.keys() & present
        self.note_absence(known - present, back, lease_value=lease_value, now_ms=now_ms)
        return forgotten

    def note_absence(self, gone, back, *, lease_value, now_ms):
        if gone or back:
            self._check(lease_value)
        for name in gone:
            state, known = self.states.get(name, (None, None))
            if known is not None:
                self.gone.setdefault(name, now_ms)
                self.states[name] = state, known if known.startswith("off ") else f"off {known}"
        for name in back:
            self.gone.pop(name, None)

    def unfinished(self, names, *, now_ms):
        """Runs that were claimed with a time until which they may run, and that nobody called over."""
        runs = {name: UnfinishedRun(*self.running[name].split()) for name in names if self.running.get(name)}
        runs = {name: run._replace(until_ms=int(run.until_ms)) for name, run in runs.items()}
        return {name: run for name, run in runs.items() if 0 < run.until_ms - now_ms <= names[name]}
