"""Leadership against a store in memory and a clock that moves when told: what a term may be trusted for, and how long.

The same store for real is in ``tests/integration``; what a leader's end means for runs in ``tests/acceptance``.
"""

import logging
import threading
from contextlib import contextmanager

import pytest

from beatd.beat.elector import RETRY_MAX, Elector
from beatd.exceptions import StoreUnavailable
from beatd.store.daemon_registry import FleetView, LeaseOwner, Member, Status
from beatd.store.lease import Renewed

TTL, RENEW = 15.0, 5.0
MARGIN = 1.0


class Store:
    """Leases and the fleet in memory. ``down``: nothing answers; ``slow``: seconds that every answer takes."""

    def __init__(self, clock):
        self.clock = clock
        self.leases = {}
        self.tokens = {}
        self.daemons = {}
        self.present = set()
        self.down = False
        self.slow = 0.0
        self.calls = []
        self.offset_ms = 0

    def call(self, name):
        self.calls.append(name)
        self.clock.advance(self.slow)
        if self.down:
            raise StoreUnavailable("down")

    def holder(self, shard):
        value, ends = self.leases.get(shard, ("", 0.0))
        return value if self.clock.monotonic() < ends else ""


class MemoryLeases:
    def __init__(self, store, me):
        self.store, self.me = store, me
        self.listening = 0
        self.present = False
        self.refused = ""

    def key(self, shard):
        return f"{shard}:lease"

    def value(self, token):
        return f"{self.me}:{token}"

    def take(self, shards, known, gone):
        now = self.store.clock.monotonic()
        taken = {}
        for shard in shards:
            holder = self.store.holder(shard)
            if holder.partition(":")[0] in {"", self.me} or holder == gone.get(shard):
                taken[shard] = max(self.store.tokens.get(shard, 0), known.get(shard, 0)) + 1
                self.store.tokens[shard] = taken[shard]
                self.store.leases[shard] = (self.value(taken[shard]), now + TTL)
        self.store.call("take")
        return taken

    def renew(self, tokens):
        now = self.store.clock.monotonic()
        renewed = {shard for shard, token in tokens.items() if self.store.holder(shard) == self.value(token)}
        self.store.call("renew")
        for shard in renewed:
            self.store.leases[shard] = (self.store.leases[shard][0], now + TTL)
        return Renewed(frozenset(renewed), {})

    def release(self, tokens):
        self.store.call("release")
        for shard in tokens:
            del self.store.leases[shard]
        return len(tokens)

    @contextmanager
    def listen(self):
        self.store.call("listen")
        self.listening += 1
        self.store.present.add(self.me)
        self.present = True
        yield self.store.clock.advance
        self.listening -= 1
        self.store.present.discard(self.me)
        self.present = False

    def absent(self, daemon_ids):
        self.store.call("look")
        return set(daemon_ids) - self.store.present


class MemoryRegistry:
    def __init__(self, store):
        self.store = store

    def heartbeat(self, status, *, shards):
        self.store.call("fleet")
        now = self.store.clock.monotonic()
        self.store.daemons[status.id] = status, now
        return self.look()

    def look(self):
        now = self.store.clock.monotonic()
        daemons = {name: Member(one, int((now - seen) * 1000)) for name, (one, seen) in self.store.daemons.items()}
        leases = {
            shard: LeaseOwner(value.partition(":")[0], int(value.partition(":")[2]), int((ends - now) * 1000))
            for shard, (value, ends) in self.store.leases.items()
            if self.store.holder(shard)
        }
        return FleetView(self.store.clock.now_ms() - self.store.offset_ms, daemons, leases)

    def leave(self, daemon_id):
        self.store.call("leave")
        self.store.daemons.pop(daemon_id, None)


class Campaign:
    """One daemon's elector, turned by hand: ``run_for(seconds)`` does what its thread would."""

    def __init__(self, store, clock, me, *, shards=1, fleet=None):
        self.clock = clock
        self.changes = []
        self.leases = MemoryLeases(store, me)
        self.status = Status(id=me, entries=1, shards=shards)
        self.elector = Elector(
            self.leases,
            MemoryRegistry(store),
            clock,
            shards=shards,
            ttl_ms=int(TTL * 1000),
            renew_ms=int(RENEW * 1000),
            status=lambda: self.status,
            on_change=lambda: self.changes.append(clock.monotonic()),
            fleet=fleet,
        )
        self.pause = 0.0

    def turn(self):
        """A turn, and the failure of one, as the thread takes them."""
        try:
            self.pause = self.elector.turn()
        except StoreUnavailable as error:
            self.pause = self.elector._back_off(error)
        return self.pause

    def run_for(self, seconds):
        until = self.clock.monotonic() + seconds
        while self.clock.monotonic() < until:
            self.turn()
            self.clock.advance(min(max(self.pause, 0.01), max(until - self.clock.monotonic(), 0.0)))

    @property
    def term(self):
        return self.elector.leaderships[0].term()

    @property
    def led(self):
        return [leadership.shard for leadership in self.elector.leaderships if leadership.term()]


@pytest.fixture
def clock(rig):
    return rig.clock


@pytest.fixture
def store(clock):
    return Store(clock)


@pytest.fixture
def a(store, clock):
    return Campaign(store, clock, "a")


@pytest.fixture
def b(store, clock):
    return Campaign(store, clock, "b")


def test_a_daemon_alone_leads_at_once(a):
    a.turn()
    assert a.term.token == 1
    assert a.term.lease_value == "a:1"
    assert len(a.changes) == 1


def test_who_was_alone_at_the_start_takes_the_lease_before_the_heartbeat(store, clock):
    a = Campaign(store, clock, "a", shards=2, fleet=MemoryRegistry(store).look())
    store.calls.clear()
    a.turn()
    assert store.calls[:2] == ["take", "fleet"]
    assert a.led == [0, 1]
    a.run_for(RENEW)
    assert store.calls.count("take") == 1


def test_who_saw_others_at_the_start_asks_before_it_takes(store, clock, a):
    a.turn()
    b = Campaign(store, clock, "b", fleet=MemoryRegistry(store).look())
    store.calls.clear()
    b.run_for(RENEW)
    assert "take" not in store.calls


def test_who_seemed_to_be_alone_at_the_start_and_is_not_stands_by(store, clock, a):
    b = Campaign(store, clock, "b", fleet=MemoryRegistry(store).look())
    a.turn()
    b.run_for(RENEW)
    assert a.led == [0]
    assert b.led == []


def test_no_token_comes_again_although_the_store_forgets_all_of_them(a, b, store):
    def forget():
        store.tokens.clear()
        store.leases.clear()

    a.turn()
    b.turn()
    forget()
    b.run_for(RENEW + 3)
    assert b.term.token == 2, "1 was that of a, of whose term b has heard"
    a.run_for(RENEW + 3)
    forget()
    a.run_for(RENEW + 3)
    assert a.term.token == 3


def test_trust_ends_before_the_lease_does(a, store, clock):
    a.turn()
    store.down = True
    clock.advance(TTL - MARGIN - 0.01)
    assert a.term
    clock.advance(0.02)
    assert a.term is None
    assert store.holder(0) == "a:1"


def test_a_slow_success_does_not_extend_trust(a, store, clock):
    store.slow = 4.0
    started = clock.monotonic() + store.slow  # it answers the heartbeat first
    a.turn()
    assert a.term.trusted_until == started + TTL - MARGIN
    assert clock.monotonic() == started + 2 * store.slow, "the lease, then the subscription"


def test_a_slow_renewal_does_not_extend_trust(a, store, clock):
    a.turn()
    clock.advance(RENEW)
    store.slow = 3.0
    started = clock.monotonic()
    a.turn()
    assert a.term.trusted_until == started + TTL - MARGIN


def test_an_answer_that_comes_after_the_trust_it_would_give_gives_none(a, store):
    store.slow = TTL
    a.turn()
    assert a.term is None


def test_renewals_keep_a_term_for_ever(a, clock):
    for _ in range(1_000):
        clock.advance(a.turn())
        assert a.term.token == 1
    assert len(a.changes) == 1


def test_the_term_is_renewed_in_time(a, store):
    a.run_for(60)
    assert 11 <= store.calls.count("renew") <= 13


def test_renewal_failures_exhaust_trust(a, store, clock, caplog):
    a.turn()
    store.down = True
    a.run_for(TTL - MARGIN - 0.5)
    assert a.term, "a failed renewal alone ends no term"
    a.run_for(0.5 + RETRY_MAX)
    assert a.term is None
    assert a.elector.leaderships[0].token is None
    ended = [record for record in caplog.records if record.event == "term_ended"]
    assert [record.reason for record in ended] == ["the store could not be reached in time to renew the lease"]
    assert len(a.changes) >= 2


def test_a_failure_that_passes_costs_nothing(a, store):
    a.turn()
    store.down = True
    a.run_for(TTL / 2)
    store.down = False
    a.run_for(30)
    assert a.term.token == 1


def test_campaigns_for_ever(a, store, caplog):
    caplog.set_level(logging.DEBUG)
    store.down = True
    a.run_for(3_600)
    attempts = [record for record in caplog.records if record.event == "store_unavailable"]
    assert len(attempts) > 3_600 / RETRY_MAX - 10, "it never stops trying"
    assert len(attempts) < 2 * 3_600 / RETRY_MAX, "nor does it hammer"
    assert len([one for one in attempts if one.levelno >= logging.WARNING]) < 70, "nor fill the log"
    store.down = False
    a.turn()
    assert a.term


def test_a_lease_whose_answer_was_lost_is_taken_again_at_once(a, store, clock):
    take = a.leases.take

    def answer_lost(*args):
        a.leases.take = take
        take(*args)
        raise StoreUnavailable("timeout")

    a.leases.take = answer_lost
    a.turn()
    assert a.term is None
    assert store.holder(0) == "a:1"
    a.turn()
    assert a.term.token == 2


def test_a_lost_term_is_followed_by_another(a, store, clock):
    a.turn()
    first = a.term
    store.leases.clear()  # a store that lost its data
    a.elector.leaderships[0].lose(first)
    assert a.term is None
    a.turn()
    assert a.term.token == 2


def test_losing_an_older_term_changes_nothing(a, store):
    a.turn()
    older = a.term
    store.leases.clear()
    a.run_for(RENEW + 1)
    assert a.term.token == 2
    a.elector.leaderships[0].lose(older)
    assert a.term.token == 2


def test_a_term_that_is_over_in_the_store_ends(a, store, clock, caplog):
    a.turn()
    store.leases[0] = ("b:7", clock.monotonic() + TTL)
    a.run_for(RENEW + 0.5)
    assert a.term is None
    assert "the lease was gone" in caplog.text


def test_standbys_do_not_lead(a, b):
    a.turn()
    b.run_for(1.0)
    assert b.term is None
    assert b.leases.listening


def test_a_standby_takes_over_when_the_lease_ends(a, b, store, clock):
    a.turn()
    died = clock.monotonic()
    b.turn()
    while b.term is None:
        clock.advance(b.pause)
        b.turn()
    assert clock.monotonic() < died + TTL + 0.1
    assert b.term.token == 2
    assert a.term is None, "the old leader distrusted itself before"


def test_who_departs_is_followed_at_once(a, b, store, clock):
    a.turn()
    b.turn()
    a.elector._shut_down()
    assert store.calls[-2:] == ["leave", "release"], "the heirs must not find it in the fleet"
    b.turn()
    assert b.term.token == 2


def test_a_departure_without_a_store_is_no_error(a, store, caplog):
    a.turn()
    store.down = True
    a.elector._shut_down()
    assert caplog.records[-1].event == "lease_left"


def test_the_departing_trusts_itself_no_longer_when_the_lease_is_let_go(a, store):
    a.turn()
    seen = []
    release = a.leases.release
    a.leases.release = lambda tokens: seen.append(a.term) or release(tokens)
    a.elector._shut_down()
    assert seen == [None]


def test_a_release_wakes_standbys(a, b, clock):
    a.turn()
    b.turn()
    started = clock.monotonic()
    b.elector._released_within = lambda seconds: clock.advance(0.001) or True
    assert b.elector._wait(60) is False
    assert clock.monotonic() - started < 0.1


def test_a_leader_of_everything_is_present_and_looks_for_nobody(a, store):
    a.run_for(10)
    assert a.leases.listening
    assert store.daemons["a"][0].present
    assert "look" not in store.calls


def test_two_daemons_share_the_shards(store, clock):
    a, b = Campaign(store, clock, "a", shards=6), Campaign(store, clock, "b", shards=6)
    a.turn()
    assert a.led == [0, 1, 2, 3, 4, 5]
    for _ in range(40):
        a.run_for(0.1)
        b.run_for(0.1)
        assert not set(a.led) & set(b.led)
    assert (len(a.led), len(b.led)) == (3, 3)
    assert sorted(a.led + b.led) == [0, 1, 2, 3, 4, 5]


def test_all_terms_are_renewed_in_one_call(store, clock):
    a = Campaign(store, clock, "a", shards=64)
    a.run_for(60)
    assert len(a.led) == 64
    assert store.calls.count("renew") <= 13
    assert store.calls.count("take") == 1


def test_the_offset_of_the_clock_is_measured_in_the_middle_of_the_heartbeat(a, store):
    store.offset_ms = -2_500
    store.slow = 0.2
    a.turn()
    assert a.elector.clock_offset_ms == -2_600  # the answer is made at its end here; half of 200 ms is the best guess


def test_a_slow_heartbeat_says_nothing_about_the_clock(a, store):
    store.slow = 0.6
    a.turn()
    assert a.elector.clock_offset_ms is None


def test_a_lease_that_never_ends_is_said_and_left(a, store, clock, caplog):
    store.leases[0] = ("somebody else's", float("inf"))
    heartbeat = MemoryRegistry.heartbeat

    class Odd(MemoryRegistry):
        def heartbeat(self, status, *, shards):
            self.store.leases.clear()
            return heartbeat(self, status, shards=shards)._replace(leases={0: LeaseOwner("somebody else's", 0, -1)})

    a.elector._registry = Odd(store)
    assert a.turn() == 0.0, "it listens from now on, and looks at once"
    assert a.turn() > 0.2, "it does not spin"
    assert "0:lease has a value that is not beatd's" in caplog.text
    assert a.term is None


def test_the_thread_starts_and_ends(a, store):
    begun = threading.Event()
    a.elector._on_change = begun.set
    a.elector.start()
    assert begun.wait(10)
    a.elector.stop()
    assert not a.elector._thread.is_alive()
    assert store.leases == {}


def test_an_unexpected_error_while_it_waits_does_not_end_the_campaign(a, store, clock, caplog):
    """Its thread has no other reader: a daemon without one would lead nothing until it is restarted."""
    a.turn()
    a.turn()
    failing = ["no more threads", "connection lost in the client"]

    def heard(seconds):
        if failing:
            raise RuntimeError(failing.pop())
        clock.advance(seconds)

    a.elector._released_within = heard
    assert a.elector._wait(1.0) is False
    assert a.elector._released_within is None, "the next turn listens anew"
    a.run_for(2 * RENEW)
    assert a.led == [0]
    assert sum(getattr(record, "event", "") == "elector_error" for record in caplog.records) == 1


def test_a_subscription_that_cannot_be_closed_is_given_up(a, store):
    a.turn()
    a.turn()
    a.elector._subscription.callback(lambda: 1 / 0)
    store.down = True
    a.turn()
    store.down = False
    a.run_for(RENEW)
    assert a.led == [0]
