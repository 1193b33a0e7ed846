"""A clock that moves when told, and the store's claims in memory: the rules of ``adopt.lua``, ``claim.lua`` and
``pass_over.lua``.

The same rules are tested against real servers in ``tests/integration/store/test_claims.py``.
"""

import pytest

from beatd.beat.delivery import DirectDelivery
from beatd.beat.dispatcher import Dispatcher
from beatd.beat.heap import DueHeap
from beatd.beat.loop import ShardLoop
from beatd.beat.message_builder import MessageBuilder
from beatd.beat.term import Term
from beatd.exceptions import StoreUnavailable, TermLost
from beatd.model import Entry, Policies
from beatd.schedules import parse
from beatd.store.claims import Claimed, EntryState

NOW = 1_790_000_000_000


class FakeClock:
    def __init__(self, now_ms=NOW):
        self.ms = now_ms
        self.mono = 1_000.0

    def now_ms(self):
        return self.ms

    def monotonic(self):
        return self.mono

    def advance(self, seconds):
        self.ms += round(seconds * 1000)
        self.mono += seconds

    def step(self, seconds):
        """The wall clock is set; no time passes."""
        self.ms += round(seconds * 1000)

    def wait(self, event, seconds):
        self.advance(seconds)
        return event.is_set()


class MemoryClaims:
    def __init__(self):
        self.lease_value = ""
        self.states = {}
        self.gaps = {}
        self.running = {}
        self.pushed = []
        self.down = False

    def _check(self, lease_value):
        if self.down:
            raise StoreUnavailable("down")
        if lease_value != self.lease_value:
            raise TermLost("FENCED")

    def adopt(self, entries, *, lease_value, now_ms):
        self._check(lease_value)
        for name, fingerprint in entries:
            state, known = self.states.get(name, (None, ""))
            began = known != fingerprint
            goes_on = state.last_due_ms if state else now_ms
            if name in self.gaps:
                self.gaps[name] = [gap for gap in self.gaps[name] if gap[0] < state.last_due_ms]
            if state and state.last_due_ms > now_ms:
                goes_on = self._behind(name, state, now_ms, began)
            elif began:
                if state and state.last_due_ms < now_ms:
                    self.gaps.setdefault(name, []).append([state.last_due_ms, now_ms + 1])
                goes_on = now_ms
            if began:
                same = state and known.removeprefix("off ") == fingerprint.removeprefix("off ")
                first_seen = state.first_seen_ms if same else now_ms
                last_due = max(now_ms, state.last_due_ms if state else 0)
                state = EntryState(last_due, first_seen, state.runs if state else 0)
                self.states[name] = (state, fingerprint)
            yield name, state._replace(last_due_ms=goes_on)

    def _behind(self, name, state, now_ms, began):
        gaps = self.gaps.setdefault(name, [])
        coming = [gap for gap in gaps if gap[1] > now_ms]
        gap = min(coming, key=lambda gap: gap[1], default=None)
        noted = any(after_ms == 0 for after_ms, _ in gaps)
        if state.first_seen_ms > now_ms and not noted and (gap is None or gap[0] >= state.first_seen_ms):
            gap = [0, state.first_seen_ms + 1]
            gaps.append(gap)
        if gap is None:
            return state.last_due_ms
        if (began or gap[0] == 0) and gap[0] < now_ms:
            gaps.append([now_ms, gap[1]])
            gap[1] = now_ms + 1
            return now_ms
        return gap[0]

    def pass_over(self, gaps, *, lease_value):
        self._check(lease_value)
        for name, after_ms, before_ms in gaps:
            self.gaps.setdefault(name, []).append([after_ms, before_ms])

    def claim(self, batches, *, lease_value):
        for batch in batches:
            self._check(lease_value)
            left_out = set()
            for number, one in enumerate(batch):
                state, fingerprint = self.states[one.name]
                if state.last_due_ms >= one.due_ms and not self._take_from_gap(one.name, one.due_ms):
                    left_out.add(number)
                    continue
                sent = one.queue is not None
                last_due_ms = max(state.last_due_ms, one.due_ms)
                self.states[one.name] = (EntryState(last_due_ms, state.first_seen_ms, state.runs + sent), fingerprint)
                if sent:
                    self.pushed.append((one.name, one.due_ms))
                    self.running[one.name] = one.running
            yield Claimed(frozenset(left_out))

    def _take_from_gap(self, name, due_ms):
        around = [gap for gap in self.gaps.get(name, []) if 0 < gap[0] < due_ms < gap[1]]
        for gap in around:
            gap[0] = due_ms
        return bool(around)

    def look_back(self, *, lease_value):
        self._check(lease_value)

    def sweep(self, names, *, lease_value, now_ms, keep_ms):
        self._check(lease_value)
        return []

    def unfinished(self, names, *, now_ms):
        """Runs that were claimed with a time until which they may run, and that nobody called over."""
        left = {name: int(self.running[name].split()[1]) - now_ms for name in names if self.running.get(name)}
        return frozenset(name for name, ms in left.items() if 0 < ms <= names[name])


class EmptyQueues:
    def __init__(self):
        self.depths = {}

    def depth(self, queue):
        return self.depths.get(queue, 0)


class FakeElector:
    """Leads from the beginning, until told otherwise."""

    def __init__(self, claims):
        self._claims = claims
        self._token = 0
        self.current = None
        self.win()

    def win(self):
        self._token += 1
        self._claims.lease_value = f"d:{self._token}"
        self.current = Term(self._token, self._claims.lease_value, 1e18)

    def term(self):
        return self.current

    def lose(self, term):
        self.current = None


class Rig:
    """A whole beat in memory: ``run_for(seconds)`` turns it, ``sent`` has what left as ``(name, due in s)``."""

    def __init__(self, begin_ms=NOW):
        self.begin_ms = begin_ms
        self.clock = FakeClock(begin_ms)
        self.claims = MemoryClaims()
        self.queues = EmptyQueues()
        self.elector = FakeElector(self.claims)
        self.start()

    def start(self):
        """A fresh process over the same store."""
        outlet = DirectDelivery(self.queues)
        messages = MessageBuilder("celery", origin="test")
        self.dispatcher = Dispatcher(self.claims, messages, outlet, self.claims, self.clock)
        self.heap = DueHeap()
        self.beat = ShardLoop(
            clock=self.clock,
            leadership=self.elector,
            claims=self.claims,
            dispatcher=self.dispatcher,
            heap=self.heap,
        )

    def run_for(self, seconds):
        until = self.clock.mono + seconds
        while self.clock.mono < until:
            pause = self.turn()
            self.clock.advance(min(max(pause, 0.0005), until - self.clock.mono))

    def jump_to(self, until_ms):
        """Turn at every instant at which something fires, up to and with ``until_ms``; in between time is skipped."""
        while True:
            self.turn()
            fires_ms = self.heap.next_fire_ms()
            if fires_ms is not None and fires_ms <= self.clock.ms:
                continue  # a turn does not take all that is due
            step_ms = (until_ms if fires_ms is None else min(fires_ms, until_ms)) - self.clock.ms
            if step_ms <= 0:
                return
            self.clock.ms += step_ms
            self.clock.mono += step_ms / 1000

    def turn(self):
        return self.beat.turn()

    @property
    def sent(self):
        return [(name, (due - NOW) / 1000) for name, due in self.claims.pushed]


@pytest.fixture
def rig():
    return Rig()


@pytest.fixture
def entry():
    def make(name="a", schedule=1.0, *, options=None, **policies):
        kwargs = {"options": options} if options else {}
        return Entry(name=name, task="t", schedule=parse(schedule, name=name), policies=Policies(**policies), **kwargs)

    return make
