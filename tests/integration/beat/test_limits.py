"""Limits that change: what was due while an entry could not run is not caught up; through a real store."""

from datetime import timedelta

import msgspec
import pytest

from beatd.beat.delivery import DirectDelivery
from beatd.beat.dispatcher import Dispatcher
from beatd.beat.heap import DueHeap
from beatd.beat.loop import ShardLoop
from beatd.beat.message_builder import MessageBuilder
from beatd.beat.term import Term
from beatd.message.protocol import open_envelope
from beatd.model import Entry, Policies
from beatd.planning.catchup import ResumePoints
from beatd.schedules import parse, parse_blackout
from beatd.store.claims import Claims
from beatd.store.client import connect
from beatd.store.entry_state import EntryStates, Running
from beatd.store.keys import Keys
from beatd.store.lease import Leases
from beatd.timestamps import from_ms
from tests.chaos.ledger import due_ms_of
from tests.fakes import FakeClock

KEYS = Keys("beatd")
MINUTE = 60_000
NOW = 1_790_000_040_000  # a full minute


class Leader:
    """The leader of one term, as the election sees it."""

    def __init__(self, leases):
        token = leases.take([0])[0]
        self.current = Term(token, leases.value(token), 1e18)

    def term(self):
        return self.current

    def lose(self, term):
        raise AssertionError(f"{term} was lost")


class Queues:
    def depth(self, queue):
        return 0


class Beat:
    """A leader over a real store and a clock that obeys: an entry each minute, under one limit after the other."""

    def __init__(self, client):
        self.client, self.clock = client, FakeClock(NOW)
        self.leases = Leases(client, KEYS, daemon_id="d1", ttl_ms=600_000)
        self.entry = Entry(
            name="a",
            task="t",
            schedule=parse("* * * * *"),
            policies=Policies(catch_up="all", catch_up_window_ms=86_400_000),
        )
        self.leader = None

    def stop(self):
        if self.leader:
            self.leases.release({0: self.leader.current.token})
        self.leader = None

    def start(self):
        """Begin another term, in a process that knows nothing but the store."""
        self.stop()
        self.leader, claims = Leader(self.leases), Claims(self.client, KEYS)
        dispatcher = Dispatcher(
            claims,
            MessageBuilder("celery", origin="test"),
            DirectDelivery(Queues()),
            Running(self.client, KEYS),
            self.clock,
        )
        self.loop = ShardLoop(
            clock=self.clock, leadership=self.leader, claims=claims, dispatcher=dispatcher, heap=DueHeap()
        )
        self.loop.schedule.replace([self.entry])

    def limit(self, how, **limits):
        """Give the entry other limits: by a reload, by a restart with the changed file, or while no daemon runs."""
        policies = msgspec.structs.replace(self.entry.policies, **limits)
        self.entry = msgspec.structs.replace(self.entry, policies=policies)
        if how == "restart":
            self.start()
        elif self.leader:
            self.loop.schedule.replace([self.entry])

    def run_to(self, minutes):
        """Let time pass, in steps in which nothing is late, until so many minutes after the beginning."""
        while self.clock.ms < NOW + minutes * MINUTE:
            self.clock.advance(10)
            if self.leader:
                self.loop.turn()

    def dues(self):
        """The due times of what was sent, in minutes, in its order."""
        messages = [open_envelope(raw) for raw in reversed(self.client.lrange("celery", 0, -1))]
        return [(due_ms_of(one.headers["beatd-due-at"]) - NOW) // MINUTE for one in messages]

    def next_due(self):
        """The next run as previews compute it from the store, in minutes."""
        [state] = EntryStates(self.client, KEYS).read([self.entry], now_ms=self.clock.ms)
        return (ResumePoints(self.clock.ms).of(self.entry, state).due_ms - NOW) // MINUTE


@pytest.fixture
def beat(redis_url):
    with connect(redis_url) as client:
        yield Beat(client)


def at(minutes):
    return from_ms(NOW) + timedelta(minutes=minutes)


HOW = pytest.mark.parametrize("how", ["reload", "restart"])


@HOW
@pytest.mark.parametrize(
    ("limits", "later", "before"),
    [
        ({"end": at(2)}, {"end": at(100)}, [1, 2]),
        ({"end": at(2)}, {"end": None}, [1, 2]),
        ({"max_runs": 2}, {"max_runs": 50}, [1, 2]),
        ({"max_runs": 2}, {"max_runs": None}, [1, 2]),
        ({"start": at(60)}, {"start": at(-60)}, []),
        ({"start": at(60)}, {"start": at(5)}, []),
        ({"start": at(60)}, {"start": None}, []),
        ({"start": at(60), "end": at(70)}, {"start": None, "end": None}, []),
    ],
)
def test_what_was_due_while_limits_kept_an_entry_from_running_is_not_caught_up(beat, how, limits, later, before):
    beat.limit("before the start", **limits)
    beat.start()
    beat.run_to(10.5)
    assert beat.dues() == before
    if how == "restart":
        beat.stop()
    beat.limit("in the file", **later)
    beat.run_to(10.6)
    if how == "restart":
        assert beat.next_due() == 11
        beat.start()
    beat.run_to(12.5)
    assert beat.dues() == [*before, 11, 12]


def test_limits_that_were_over_while_no_daemon_ran_count_too(beat):
    beat.limit("before the start", end=at(4))
    beat.start()
    beat.run_to(2.5)
    beat.stop()
    beat.run_to(10.5)
    beat.limit("restart", end=None)
    beat.run_to(11.5)
    assert beat.dues() == [1, 2, 11]


@pytest.mark.parametrize(
    ("limits", "later"),
    [
        ({}, {"end": at(100)}),
        ({}, {"start": at(-100), "max_runs": 50}),
        ({"end": at(20)}, {"end": at(30)}),
        ({"max_runs": 20}, {"max_runs": None}),
        ({"start": at(-10)}, {"start": at(-20)}),
        ({"end": at(20)}, {"end": at(20)}),
    ],
)
def test_missed_runs_are_caught_up_when_both_limits_allow_them(beat, limits, later):
    beat.limit("before the start", **limits)
    beat.start()
    beat.run_to(2.5)
    beat.stop()
    beat.run_to(5.5)
    beat.limit("in the file", **later)
    assert beat.next_due() == 3
    beat.start()
    beat.run_to(6.5)
    assert beat.dues() == [1, 2, 3, 4, 5, 6]


def test_runs_after_the_old_start_are_caught_up_when_the_start_is_taken_away(beat):
    beat.limit("before the start", start=at(4))
    beat.start()
    beat.run_to(2.5)
    beat.stop()
    beat.run_to(6.5)
    beat.limit("in the file", start=None)
    assert beat.next_due() == 4
    beat.start()
    beat.run_to(7.5)
    assert beat.dues() == [4, 5, 6, 7]


def start_in(minutes):
    return None if minutes is None else at(minutes)


@HOW
@pytest.mark.parametrize(
    ("before", "later", "dues"), [(-60, -59, [3, 7]), (None, -59, [3, 7]), (-59, None, [1, 4, 7]), (-60, -63, [3, 6])]
)
def test_a_start_that_moves_the_runs_of_an_interval_makes_it_another_schedule(beat, how, before, later, dues):
    """Every three minutes, changed after 4.5: what the new start would have made due before was never due. One without
    a start counts from when it was first seen, which is then."""
    beat.entry = msgspec.structs.replace(beat.entry, schedule=parse("3m"))
    beat.limit("before the start", start=start_in(before))
    beat.start()
    beat.run_to(4.5)
    beat.limit(how, start=start_in(later))
    beat.run_to(8.5)
    assert beat.dues() == dues


def test_missed_runs_of_an_interval_are_caught_up_when_another_start_moves_none_of_them(beat):
    beat.entry = msgspec.structs.replace(beat.entry, schedule=parse("3m"))
    beat.limit("before the start", start=at(-60))
    beat.start()
    beat.run_to(1.5)
    beat.stop()
    beat.run_to(4.5)
    beat.limit("in the file", start=at(-63))
    assert beat.next_due() == 3
    beat.start()
    beat.run_to(5.5)
    assert beat.dues() == [3]


def test_limits_that_an_older_version_left_unnoted_are_no_change(beat):
    """It wrote none: nothing says that the entry could not run."""
    beat.limit("before the start", end=at(100), max_runs=50)
    beat.start()
    beat.run_to(2.5)
    beat.stop()
    assert beat.client.delete(KEYS.shard().limits) == 1
    beat.run_to(5.5)
    beat.start()
    beat.run_to(6.5)
    assert beat.dues() == [1, 2, 3, 4, 5, 6]
    assert beat.client.hgetall(KEYS.shard().limits) == {b"a": f"- {NOW + 100 * MINUTE} 50".encode()}


@HOW
def test_a_blackout_that_is_taken_away_brings_back_no_run_that_it_left_out(beat, how):
    beat.limit("before the start", blackout=parse_blackout(f"{at(2):%H:%M}-{at(20):%H:%M}"))
    beat.start()
    beat.run_to(10.5)
    beat.limit(how, blackout=None)
    beat.run_to(11.5)
    assert beat.dues() == [1, 11]


def test_missed_runs_are_judged_by_the_blackout_that_is_in_force_when_a_daemon_leads_again(beat):
    beat.limit("before the start", blackout=parse_blackout(f"{at(3):%H:%M}-{at(5):%H:%M}"))
    beat.start()
    beat.run_to(2.5)
    beat.stop()
    beat.run_to(8.5)
    beat.limit("in the file", blackout=parse_blackout(f"{at(6):%H:%M}-{at(8):%H:%M}"))
    beat.start()
    beat.run_to(9.5)
    assert beat.dues() == [1, 2, 3, 4, 5, 8, 9]


def test_the_limits_of_an_entry_that_left_long_ago_are_forgotten(beat):
    beat.limit("before the start", max_runs=5)
    beat.start()
    beat.run_to(1.5)
    beat.stop()
    claims, leader = Claims(beat.client, KEYS), Leader(beat.leases)
    sweep = {"lease_value": leader.current.lease_value, "keep_ms": MINUTE}
    claims.sweep([], now_ms=beat.clock.ms, **sweep)
    assert claims.sweep([], now_ms=beat.clock.ms + 2 * MINUTE, **sweep) == ["a"]
    assert not beat.client.exists(KEYS.shard().limits)
