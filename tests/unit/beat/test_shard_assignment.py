"""Who is to lead what: shares, moves, and the daemons that may not lead."""

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beatd.beat.shard_assignment import GRACE, SETTLE, Plan, ShardPlanner, assign, eligible_daemons
from beatd.store.daemon_registry import FleetView, LeaseOwner, Member, Status
from beatd.store.keys import Keys, shard_of

daemons = st.lists(st.uuids().map(str), min_size=1, max_size=8, unique=True)
numbers = st.integers(1, 40)


def test_the_shard_of_an_entry_never_changes():
    """Other values would move entries between shards at an update: in a mixed fleet two daemons would drive them."""
    assert [shard_of(name, 6) for name in ("a", "tick", "näme", "")] == [5, 5, 4, 0]
    assert {shard_of(f"e{n}", 1) for n in range(100)} == {0}


def test_entries_are_spread_evenly():
    counts = Counter(shard_of(f"entry-{n}", 6) for n in range(6_000))
    assert set(counts) == set(range(6))
    assert max(counts.values()) < 1.15 * min(counts.values())


def test_what_is_known_of_entries_does_not_depend_on_the_number_of_shards():
    one, another = Keys("p").shard(0), Keys("p").shard(3)
    assert (one.last_due, one.fingerprints, one.runs, one.running) == (
        another.last_due,
        another.fingerprints,
        another.runs,
        another.running,
    )
    assert not {one.lease, one.term, one.outbox} & {another.lease, another.term, another.outbox}


@given(numbers, daemons)
def test_every_shard_has_a_daemon_and_shares_differ_by_one_at_most(shards, names):
    assigned = assign(shards, names, {})
    assert sorted(assigned) == list(range(shards))
    counts = [list(assigned.values()).count(name) for name in names]
    assert max(counts) - min(counts) <= 1


@given(numbers, daemons, st.randoms())
def test_all_daemons_come_to_the_same_answer(shards, names, chance):
    shuffled = names.copy()
    chance.shuffle(shuffled)
    assert assign(shards, names, {}) == assign(shards, shuffled, {})


@given(numbers, daemons)
def test_an_even_assignment_stays(shards, names):
    assigned = assign(shards, names, {})
    assert assign(shards, names, assigned) == assigned


@given(numbers, daemons.filter(lambda names: len(names) > 1), st.randoms())
def test_a_death_moves_only_the_shards_of_the_dead(shards, names, chance):
    before = assign(shards, names, {})
    dead = chance.choice(names)
    after = assign(shards, [name for name in names if name != dead], before)
    assert {shard for shard in before if after[shard] != before[shard]} == {
        s for s, name in before.items() if name == dead
    }


@given(numbers, daemons)
def test_who_joins_gets_its_share_and_nothing_else_moves(shards, names):
    before = assign(shards, names, {})
    after = assign(shards, [*names, "new"], before)
    moved = {shard for shard in before if after[shard] != before[shard]}
    assert {after[shard] for shard in moved} <= {"new"}
    assert len(moved) == shards // (len(names) + 1) or len(moved) == -(-shards // (len(names) + 1))


def test_nobody_there_nothing_assigned():
    assert assign(6, [], {}) == {}
    assert assign(2, ["a"], {0: "gone"}) == {0: "a", 1: "a"}


class Rolls:
    """Rolls of a fleet, as the daemon ``a`` sees them."""

    def __init__(self, shards=1, **statuses):
        self.shards = shards
        self.fleet = ShardPlanner("a", shards=shards)
        self.statuses = {"a": {}, **statuses}
        self.leases = {}
        self.silent = set()

    def plan(self, now):
        present = {
            name: Member(
                Status(id=name, **{"entries": 3, "digest": "d", "shards": self.shards, **more}),
                9_999 if name in self.silent else 100,
            )
            for name, more in self.statuses.items()
        }
        leases = {shard: LeaseOwner(name, 1, 4_000) for shard, name in self.leases.items()}
        return self.fleet.plan(FleetView(1_790_000_000_000, present, leases), now)


def test_a_daemon_alone_takes_all_at_once():
    assert Rolls(3).plan(0.0) == Plan([0, 1, 2], [], None)


def test_a_lease_that_is_held_is_looked_at_when_it_ends():
    rolls = Rolls(b={})
    rolls.leases = {0: "b"}
    assert rolls.plan(0.0) == Plan([], [], 4.0)


def test_a_free_shard_that_is_another_ones_is_taken_after_the_grace_only():
    rolls = Rolls(2, b={})
    rolls.leases = {0: "a"}
    assert rolls.plan(10.0).take == []
    assert rolls.plan(10.0 + GRACE - 0.01).take == []
    assert rolls.plan(10.0 + GRACE).take == [1]
    rolls.leases = {0: "a", 1: "b"}
    rolls.plan(20.0)
    rolls.leases = {0: "a"}
    assert rolls.plan(30.0).take == [], "the grace counts from when it was let go"


def test_the_shards_of_a_silent_daemon_are_taken_without_a_grace():
    rolls = Rolls(2, b={})
    rolls.leases, rolls.silent = {0: "a"}, {"b"}
    assert rolls.plan(0.0).take == [1]


def test_a_shard_too_many_is_handed_over_once_the_other_has_settled():
    rolls = Rolls(2, b={})
    rolls.leases = {0: "a", 1: "a"}
    assert rolls.plan(5.0).give == []
    assert len(rolls.plan(5.0 + SETTLE).give) == 1


def test_who_comes_and_goes_gets_nothing():
    rolls = Rolls(2, b={})
    rolls.leases = {0: "a", 1: "a"}
    rolls.plan(5.0)
    rolls.silent = {"b"}
    rolls.plan(6.0)
    rolls.silent = set()
    assert rolls.plan(6.0 + SETTLE - 0.1).give == []


def test_an_empty_schedule_never_leads_while_another_has_entries(caplog):
    caplog.set_level("INFO")
    rolls = Rolls(b={"entries": 9})
    rolls.statuses["a"] = {"entries": 0}
    assert rolls.plan(0.0).take == []
    assert rolls.plan(1_000.0).take == []
    assert [record.event for record in caplog.records] == ["stands_aside"]
    assert "its schedule is empty, and b has 9 entries" in caplog.text
    rolls.leases = {0: "a"}
    rolls.plan(2_000.0)
    assert rolls.plan(2_000.0 + SETTLE).give == [0], "it gives way"
    del rolls.statuses["b"]
    rolls.leases = {}
    assert rolls.plan(3_000.0).take == [0], "alone it leads"
    assert caplog.records[-1].event == "stands_aside_over"


def test_a_broken_file_does_not_lead_beside_a_sound_one():
    rolls = Rolls(b={}, c={"config": "broken"})
    rolls.statuses["a"] = {"config": "broken"}
    assert rolls.plan(0.0).take == rolls.plan(99.0).take == []
    rolls.silent = {"b"}
    assert {*rolls.plan(100.0).take, *rolls.plan(102.0).take} == {0}, "all that are left are broken"


def test_another_number_of_shards_waits_for_the_end_of_those_that_started_before(caplog):
    rolls = Rolls(6, b={"shards": 1, "started_ms": 1}, c={"shards": 6, "started_ms": 3})
    rolls.statuses["a"] = {"started_ms": 2}
    assert rolls.plan(0.0).take == rolls.plan(99.0).take == []
    assert "it wants 6 shards, and b, which started earlier, has 1" in caplog.text
    rolls.silent = {"b"}
    assert len(rolls.plan(100.0).take) == 3


def test_a_different_schedule_is_said_when_it_stays_and_when_it_is_over(caplog):
    caplog.set_level("INFO")
    rolls = Rolls(b={"digest": "other"})
    rolls.plan(0.0)
    assert not caplog.records, "all daemons reload, and not in the same instant"
    rolls.plan(SETTLE)
    rolls.plan(SETTLE + 9)
    rolls.statuses["b"] = {}
    rolls.plan(20.0)
    assert [record.event for record in caplog.records] == ["config_mismatch", "config_mismatch_over"]


def test_another_version_is_said_until_all_have_the_same(caplog):
    caplog.set_level("INFO")
    rolls = Rolls(b={"version": "1.1"})
    rolls.statuses["a"] = {"version": "1.0"}
    rolls.plan(0.0)
    rolls.plan(2.0)
    rolls.statuses["a"] = {"version": "1.1"}
    rolls.plan(4.0)
    assert [record.event for record in caplog.records] == ["version_mismatch", "version_mismatch_over"]
    assert "1.0, 1.1" in caplog.text


@pytest.mark.parametrize(("offset_ms", "said"), [(1_500, "1.5 s ahead of"), (-2_000, "2 s behind"), (900, "")])
def test_a_clock_that_is_off_is_said(offset_ms, said, caplog):
    caplog.set_level("INFO")
    rolls = Rolls()
    rolls.statuses["a"] = {"clock_offset_ms": offset_ms}
    rolls.plan(0.0)
    rolls.plan(2.0)
    rolls.statuses["a"] = {"clock_offset_ms": 0}
    rolls.plan(4.0)
    assert [record.event for record in caplog.records] == (["clock_skew", "clock_skew_over"] if said else [])
    assert said in caplog.text


def test_the_fittest_are_never_nobody():
    chance = random.Random(7)
    for _ in range(500):
        alive = [
            Status(
                id=str(n),
                entries=chance.choice([0, 3]),
                config=chance.choice(["ok", "broken"]),
                shards=chance.choice([1, 6]),
                started_ms=chance.randint(1, 3),
            )
            for n in range(chance.randint(1, 4))
        ]
        fit = eligible_daemons(alive)
        assert fit
        assert len({each.shards for each in fit}) == 1
        assert all(each.entries for each in fit) or not any(each.entries for each in alive)
