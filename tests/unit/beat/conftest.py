"""A beat in memory: its loop over a fake clock, claims, and queues."""

import logging

import pytest

from beatd.beat.delivery import DirectDelivery
from beatd.beat.dispatcher import Dispatcher
from beatd.beat.heap import DueHeap
from beatd.beat.loop import ShardLoop
from beatd.beat.message_builder import MessageBuilder
from beatd.beat.term import Term
from beatd.metrics.counters import DaemonCounters, Outcome
from beatd.model import Entry, Policies
from beatd.schedules import parse
from tests.fakes import NOW, FakeClock, MemoryClaims


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
        delivery = DirectDelivery(self.queues)
        messages = MessageBuilder("celery", origin="test")
        self.counters = DaemonCounters()
        self.dispatcher = Dispatcher(self.claims, messages, delivery, self.claims, self.clock, counters=self.counters)
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

    def skipped(self, reason):
        """How many runs were not sent for a reason, since the process has started."""
        return self.counters.totals[Outcome("skipped", reason)]

    @property
    def sent(self):
        return [(name, (due - NOW) / 1000) for name, due in self.claims.pushed]


@pytest.fixture
def rig():
    rig = Rig()
    yield rig
    assert rig.claims.overlaps == [], "the end of one run would pass for the end of another"


@pytest.fixture
def claimed_before(caplog):
    """How many runs the store had taken from this leader, or another one, before."""
    caplog.set_level(logging.DEBUG, "beatd.beat.dispatcher")
    return lambda: sum(getattr(record, "event", "") == "run_claimed_before" for record in caplog.records)


@pytest.fixture
def entry():
    def make(name="a", schedule=1.0, *, options=None, **policies):
        kwargs = {"options": options} if options else {}
        return Entry(name=name, task="t", schedule=parse(schedule, name=name), policies=Policies(**policies), **kwargs)

    return make
