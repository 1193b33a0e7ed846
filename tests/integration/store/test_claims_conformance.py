"""The rules of claims: the same tests for the Lua scripts on a real server and for the claims in memory of unit tests.

A last test makes random sequences of calls to both and compares every answer and the state that they leave.
"""

from random import Random

import pytest
from msgspec import structs

from beatd.exceptions import StoreRolledBack, TermLost
from beatd.model import EntryState
from beatd.store.claims import DROPPED, Claim, Claims, Gap
from beatd.store.client import connect
from beatd.store.keys import Keys
from tests.fakes import NOW, MemoryClaims

KEYS = Keys()
SHARD = KEYS.shard()
DAY = 86_400_000
LEASE = "d1:1"


class Lua:
    """Claims on a server, and the state that they leave there."""

    def __init__(self, client):
        self._client = client
        self.start()

    def start(self):
        self._client.flushdb()
        self._client.set(SHARD.lease, LEASE)
        self.claims = Claims(self._client, KEYS)

    def lose_lease(self):
        self._client.set(SHARD.lease, "another:2")

    def snapshot(self):
        return {key: self._client.dump(key) for key in self._client.scan_iter()}

    def restore(self, snapshot):
        for key, value in snapshot.items():
            self._client.restore(key, 0, value, replace=True)

    @property
    def sent(self):
        return [tuple(raw.decode().split("|")) for raw in reversed(self._client.lrange("celery", 0, -1))]

    def state(self):
        """Last due, first seen and fingerprint, limits, runs, running, gaps, and the counter."""
        last_due, known, limits, runs, running, gaps = (
            {name.decode(): value.decode() for name, value in self._client.hgetall(key).items()}
            for key in (SHARD.last_due, SHARD.fingerprints, SHARD.limits, SHARD.runs, SHARD.running, SHARD.gaps)
        )
        runs = {name: count for name, count in runs.items() if count != "0"}
        gaps = {name: text for name, text in gaps.items() if text}
        return last_due, known, limits, runs, running, gaps, int(self._client.get(SHARD.claims) or 0)


class Memory:
    """The claims of unit tests, seen in the same way."""

    def __init__(self):
        self.start()

    def start(self):
        self.claims = MemoryClaims()
        self.claims.lease_value = LEASE

    def lose_lease(self):
        self.claims.lease_value = "another:2"

    def snapshot(self):
        return self.claims.snapshot()

    def restore(self, snapshot):
        self.claims.restore(snapshot)

    @property
    def sent(self):
        return [(name, str(due_ms)) for name, due_ms in self.claims.pushed]

    def state(self):
        states = self.claims.states.items()
        gaps = {
            name: " ".join(str(ms) for gap in gaps for ms in gap) for name, gaps in self.claims.gaps.items() if gaps
        }
        return (
            {name: str(state.last_due_ms) for name, (state, _) in states},
            {name: f"{state.first_seen_ms} {known}" for name, (state, known) in states if known is not None},
            {name: limits for name, limits in self.claims.limits.items() if limits is not None},
            {name: str(state.runs) for name, (state, _) in states if state.runs},
            self.claims.running,
            gaps,
            self.claims.count,
        )


@pytest.fixture
def lua(redis_url):
    with connect(redis_url) as client:
        yield Lua(client)


@pytest.fixture(params=["memory", "lua"])
def store(request):
    return Memory() if request.param == "memory" else request.getfixturevalue("lua")


def run(name, due_ms, *, sent=True, running=""):
    return Claim(name, due_ms, "celery" if sent else None, f"{name}|{due_ms}".encode(), running)


def load_entries(store, *pairs, now=NOW):
    return dict(store.claims.load_entries(pairs, lease_value=LEASE, now_ms=now))


def claim(store, *runs):
    [claimed] = store.claims.claim([list(runs)], lease_value=LEASE)
    assert list(claimed.refusals) == []
    return claimed.left_out


def pass_over(store, *gaps):
    store.claims.pass_over([Gap("a", after_ms, before_ms) for after_ms, before_ms in gaps], lease_value=LEASE)


def test_a_new_entry_begins_now(store):
    assert load_entries(store, ("a", "every 30 s")) == {"a": EntryState(NOW, NOW, 0)}


def test_a_known_entry_goes_on_where_it_was(store):
    load_entries(store, ("a", "x"))
    claim(store, run("a", NOW + 30_000))
    assert load_entries(store, ("a", "x"), now=NOW + 99_000) == {"a": EntryState(NOW + 30_000, NOW, 1)}


def test_a_changed_entry_begins_now(store):
    load_entries(store, ("a", "x"))
    assert load_entries(store, ("a", "y"), now=NOW + 5_000) == {"a": EntryState(NOW + 5_000, NOW + 5_000, 0)}


def test_a_changed_entry_never_moves_back(store):
    """A clock that was set back must not let a claimed run be claimed again under the same id."""
    load_entries(store, ("a", "x"))
    claim(store, run("a", NOW + 60_000))
    assert load_entries(store, ("a", "y"), now=NOW)["a"].last_due_ms == NOW + 60_000


def test_names_and_fingerprints_may_hold_anything(store):
    name, fingerprint = "naïve: entry %s\n\x00", "*/5 * * * * Europe/Berlin\n"
    first = load_entries(store, (name, fingerprint))
    assert load_entries(store, (name, fingerprint), now=NOW + 1) == first


def test_entries_beyond_one_call_keep_their_order(store):
    pairs = [(f"e{n}", "x") for n in range(2_500)]
    assert list(load_entries(store, *pairs)) == [name for name, _ in pairs]


def test_a_resumed_entry_goes_on_from_now_and_keeps_its_phase(store):
    load_entries(store, ("a", "x"))
    load_entries(store, ("a", "off x"), now=NOW + 1_000)
    assert load_entries(store, ("a", "x"), now=NOW + 9_000) == {"a": EntryState(NOW + 9_000, NOW, 0)}


def test_an_entry_that_left_the_schedule_is_forgotten_after_a_while(store):
    load_entries(store, ("stays", "x"), ("goes", "x"), ("returns", "x"))

    def sweep(names, now_ms):
        return store.claims.sweep(names, lease_value=LEASE, now_ms=now_ms, keep_ms=30 * DAY)

    assert sweep(["stays"], NOW) == []
    assert sweep(["stays", "returns"], NOW + DAY) == []
    assert sweep(["stays", "returns"], NOW + 31 * DAY) == ["goes"]
    assert sweep(["stays"], NOW + 32 * DAY) == []
    last_due, known, *_ = store.state()
    assert set(known) == set(last_due) == {"stays", "returns"}


def test_runs_that_a_clock_ahead_passed_over_are_still_to_come(store):
    """The clock jumps from 10 to 1000, shows 1020, and is set back to 15: all in the same unit."""
    load_entries(store, ("a", "x"))
    claim(store, run("a", NOW + 10))
    pass_over(store, (NOW + 10, NOW + 1000))
    claim(store, run("a", NOW + 1000), run("a", NOW + 1020))
    assert load_entries(store, ("a", "x"), now=NOW + 15)["a"].last_due_ms == NOW + 10
    assert claim(store, run("a", NOW + 10)) == {0}
    assert claim(store, run("a", NOW + 20), run("a", NOW + 30, sent=False)) == frozenset()
    assert claim(store, run("a", NOW + 20), run("a", NOW + 30)) == {0, 1}
    assert load_entries(store, ("a", "x"), now=NOW + 32) == {"a": EntryState(NOW + 30, NOW, 4)}  # as after a restart
    assert claim(store, *(run("a", NOW + due) for due in (1000, 1010, 1020))) == {0, 1, 2}
    assert load_entries(store, ("a", "x"), now=NOW + 1001)["a"].last_due_ms == NOW + 1020
    assert claim(store, run("a", NOW + 1021)) == frozenset()
    assert [int(due) - NOW for _, due in store.sent] == [10, 1000, 1020, 20, 1021]


def test_an_entry_that_is_first_seen_by_a_clock_ahead_begins_when_that_is_set_right(store):
    load_entries(store, ("a", "x"), now=NOW + 1000)
    claim(store, run("a", NOW + 1010))
    assert load_entries(store, ("a", "x"), now=NOW) == {"a": EntryState(NOW, NOW + 1000, 1)}
    assert claim(store, run("a", NOW + 10)) == frozenset()
    assert load_entries(store, ("a", "x"), now=NOW + 15)["a"].last_due_ms == NOW + 10
    assert claim(store, run("a", NOW + 1000), run("a", NOW + 1010)) == {1}


def test_an_entry_that_is_changed_while_the_clock_is_ahead_goes_on_when_that_is_set_right(store):
    load_entries(store, ("a", "x"))
    claim(store, run("a", NOW + 10))
    load_entries(store, ("a", "y"), now=NOW + 1000)
    claim(store, run("a", NOW + 1010))
    assert load_entries(store, ("a", "z"), now=NOW + 15) == {"a": EntryState(NOW + 15, NOW + 15, 2)}
    assert claim(store, run("a", NOW + 20)) == frozenset()


def test_a_clock_may_be_set_back_again_and_again(store):
    load_entries(store, ("a", "x"), now=NOW + 1000)
    claim(store, run("a", NOW + 1010))
    pass_over(store, (NOW + 1010, NOW + 1100))
    for now in (NOW + 500, NOW + 300, NOW):
        assert load_entries(store, ("a", "x"), now=now)["a"].last_due_ms == now
        assert claim(store, run("a", now + 10)) == frozenset()
    assert load_entries(store, ("a", "x"), now=NOW + 250)["a"].last_due_ms == NOW + 10  # the rest of it was missed
    assert claim(store, *(run("a", NOW + due) for due in (10, 310, 510, 1010))) == {0, 1, 2, 3}
    assert claim(store, *(run("a", NOW + due) for due in (299, 499, 999))) == frozenset()


def test_a_jump_that_led_to_no_claim_hides_none_of_the_later_ones(store):
    load_entries(store, ("a", "x"))
    pass_over(store, (NOW, NOW + 1000))
    load_entries(store, ("a", "x"), now=NOW + 5)
    assert claim(store, run("a", NOW + 10), run("a", NOW + 20)) == frozenset()
    assert load_entries(store, ("a", "x"), now=NOW + 8)["a"].last_due_ms == NOW + 20
    assert claim(store, run("a", NOW + 10)) == {0}


def test_of_many_gaps_the_last_eight_are_kept(store):
    load_entries(store, ("a", "x"))
    claim(store, run("a", NOW + 900))
    for after in range(0, 100, 10):
        pass_over(store, (NOW + after, NOW + after + 5))
    assert claim(store, *(run("a", NOW + after + 1) for after in range(0, 100, 10))) == {0, 1}


def test_a_run_is_claimed_once(store):
    claim(store, run("a", NOW))
    assert claim(store, run("a", NOW), run("b", NOW)) == {0}
    assert store.sent == [("a", str(NOW)), ("b", str(NOW))]


def test_several_runs_of_an_entry_in_one_call(store):
    assert claim(store, *(run("a", NOW + n) for n in (1, 2, 2, 3))) == {2}
    assert len(store.sent) == 3
    assert store.state()[0] == {"a": str(NOW + 3)}


def test_a_skipped_run_moves_last_due_and_pushes_nothing(store):
    claim(store, run("a", NOW, sent=False))
    assert store.state()[0] == {"a": str(NOW)}
    assert store.sent == []


def test_only_runs_that_were_sent_are_counted(store):
    claim(store, run("a", NOW), run("a", NOW + 1, sent=False), run("a", NOW + 2))
    claim(store, run("a", NOW + 3), run("a", NOW + 3))
    assert load_entries(store, ("a", "x"))["a"].runs == 3


def test_an_old_term_writes_nothing(store):
    load_entries(store, ("a", "x"))
    store.lose_lease()
    before = store.state()
    calls = (
        lambda: load_entries(store, ("b", "x")),
        lambda: claim(store, run("a", NOW + 1)),
        lambda: pass_over(store, (NOW, NOW + 1)),
        lambda: store.claims.verify_term(lease_value=LEASE),
    )
    for call in calls:
        with pytest.raises(TermLost):
            call()
    assert (store.state(), store.sent) == (before, [])


def test_claims_that_the_store_lost_are_noticed(store):
    load_entries(store, ("a", "x"))
    claim(store, run("a", NOW + 1_000))
    before = store.snapshot()
    claim(store, run("a", NOW + 2_000))
    store.restore(before)
    with pytest.raises(StoreRolledBack):
        claim(store, run("a", NOW + 3_000))
    assert load_entries(store, ("a", "x"))["a"].last_due_ms == NOW + 1_000
    assert claim(store, run("a", NOW + 2_000)) == frozenset()


def random_call(random):
    """A call and its arguments. Instants are few, so that gaps meet each other and claims."""
    name, instant = random.choice("aaab"), random.randint(1, 30)
    kind = random.choice(["load_entries", "load_entries", "claim", "claim", "pass_over", "pass_over", "pass_over"])
    if kind == "load_entries":
        bounds = [random.choice(["-", "-", str(random.randint(1, 40))]) for _ in range(2)]
        limits = " ".join([*bounds, random.choice(["-", "-", "2", "9"])])
        return kind, name, random.choice(["x"] * 6 + ["off x", "y"]), random.choice([limits, None]), instant
    if kind == "pass_over":
        return kind, name, instant, instant + random.choice([1, 5, 30]), random.choice([None, instant + 3])
    dues = sorted(random.randint(1, 40) for _ in range(random.randint(1, 3)))
    return kind, [(name, due, random.random() < 0.8, random.random() < 0.3) for due in dues]


def answer(store, kind, *arguments):
    claims = store.claims
    if kind == "load_entries":
        name, fingerprint, limits, now_ms = arguments
        limits_of = {} if limits is None else {name: limits}
        return list(claims.load_entries([(name, fingerprint)], lease_value=LEASE, now_ms=now_ms, limits=limits_of))
    if kind == "pass_over":
        return claims.pass_over([Gap(*arguments)], lease_value=LEASE)
    runs = [
        run(name, due, sent=sent, running=f"id {due}" * (minds and sent)) for name, due, sent, minds in arguments[0]
    ]
    [(left_out, refusals)] = claims.claim([runs], lease_value=LEASE)
    return left_out, list(refusals)


@pytest.mark.parametrize("seed", range(100))
def test_both_give_the_same_answers(lua, seed):
    random, memory = Random(seed), Memory()
    calls = [random_call(random) for _ in range(60)]
    for number, call in enumerate(calls):
        assert answer(memory, *call) == answer(lua, *call), calls[: number + 1]
        assert memory.state() == lua.state(), calls[: number + 1]
    assert memory.sent == lua.sent


def note_absence(store, *, gone=(), back=(), now=NOW):
    store.claims.note_absence(gone, back, lease_value=LEASE, now_ms=now)


@pytest.mark.parametrize("by_sweep", [False, True])
def test_an_entry_that_comes_back_after_it_was_marked_goes_on_from_then_and_keeps_its_phase(store, by_sweep):
    load_entries(store, ("a", "x"), ("b", "x"))
    claim(store, run("a", NOW + 1_000))
    if by_sweep:
        store.claims.sweep(["b"], lease_value=LEASE, now_ms=NOW + 2_000, keep_ms=DAY)
    else:
        note_absence(store, gone=["a", "never there", "odd \udcff"], now=NOW + 2_000)
    back = load_entries(store, ("a", "x"), ("b", "x"), now=NOW + 9_000)
    assert back == {"a": EntryState(NOW + 9_000, NOW, 1), "b": EntryState(NOW, NOW, 0)}
    note_absence(store, back=["a"])
    assert store.claims.sweep(["a", "b"], lease_value=LEASE, now_ms=NOW + 2 * DAY, keep_ms=DAY) == []


def test_a_run_is_dropped_only_with_one_that_was_taken(store):
    """Its caller says of a run that came due while the one before it waited that it is dropped with that one."""
    drop = Claim("a", NOW + 3, running=DROPPED)
    assert claim(store, run("a", NOW + 1), drop, run("b", NOW + 1)) == frozenset()
    assert claim(store, run("a", NOW + 1), structs.replace(drop, due_ms=NOW + 5), run("b", NOW + 2)) == {0, 1}
    assert store.state()[0] == {"a": str(NOW + 3), "b": str(NOW + 2)}
    assert claim(store, run("a", NOW + 4), structs.replace(drop, due_ms=NOW + 5)) == frozenset()
    assert store.state()[0]["a"] == str(NOW + 5)
    assert [name for name, _ in store.sent] == ["a", "b", "b", "a"]
    assert "dropped" not in str(store.state())
