"""The claim: what a term may write, and that a run leaves once."""

import json

import pytest

from beatd.exceptions import StoreRefused, StoreRolledBack, TermLost
from beatd.store import history
from beatd.store.claims import Claim, Claims, Gap
from beatd.store.client import connect
from beatd.store.entry_state import Running
from beatd.store.keys import Keys
from beatd.store.lease import Leases
from beatd.store.notices import Notices
from beatd.store.outcomes import Ended
from beatd.store.worker_state import FinishedRuns

NOW = 1_790_000_000_000
KEYS = Keys("beatd")


@pytest.fixture
def lease(client):
    return Leases(client, KEYS, daemon_id="d1", ttl_ms=60_000)


@pytest.fixture
def held(lease):
    """The lease value of a running term."""
    return lease.value(lease.take([0])[0])


@pytest.fixture
def claims(client):
    return Claims(client, KEYS)


def load_entries(claims, value, *pairs, now=NOW):
    return dict(claims.load_entries(pairs, lease_value=value, now_ms=now))


def _claimed(claims, value, *runs):
    return list(claims.claim([[Claim(*run) for run in runs]], lease_value=value))


def claim(claims, value, *runs):
    [(left_out, _)] = claims.claim([[Claim(*run) for run in runs]], lease_value=value)
    return left_out


def test_batches_are_claimed_in_order(claims, client, held):
    batches = ([Claim(f"e{n}-{i}", NOW, "celery", b"%d" % (10 * n + i)) for i in range(10)] for n in range(7))
    assert list(claims.claim(batches, lease_value=held)) == [(frozenset(), [])] * 7
    assert client.lrange("celery", 0, -1) == [b"%d" % n for n in reversed(range(70))]


def test_a_stream_that_ends_early_leaves_no_answer_behind(claims, client, held):
    batches = ([Claim(f"e{n}", NOW, "celery", b"m")] for n in range(7))
    stream = claims.claim(batches, lease_value=held)
    next(stream)
    stream.close()
    assert claim(claims, held, ("z", NOW, "celery", b"m")) == frozenset()
    assert client.ping()


def test_messages_reach_their_queues_in_order(claims, client, held):
    left_out = claim(claims, held, ("a", NOW, "celery", b"1"), ("b", NOW, "other", b"2"), ("c", NOW, "celery", b"3"))
    assert left_out == frozenset()
    assert client.lrange("celery", 0, -1) == [b"3", b"1"]  # consumers pop from the right
    assert client.lrange("other", 0, -1) == [b"2"]


def test_of_many_gaps_the_last_are_kept_and_for_days_only(claims, client, held):
    load_entries(claims, held, ("a", "x"))
    claim(claims, held, ("a", NOW + 900, "celery", b"m"))
    for after in range(0, 100, 10):
        claims.pass_over([Gap("a", NOW + after, NOW + after + 5)], lease_value=held)
    due = claim(claims, held, *(("a", NOW + after + 1, "celery", b"m") for after in range(0, 100, 10)))
    assert due == {0, 1}
    assert 0 < client.pttl(KEYS.shard().gaps) <= 7 * 86_400_000


def test_gaps_are_kept_while_a_last_due_lies_in_the_future(claims, client, held):
    """A clock was a year ahead for a moment. Until that time has come, only runs out of the gap are claimed."""
    year = 366 * 86_400_000
    load_entries(claims, held, ("a", "x"))
    claims.pass_over([Gap("a", NOW, NOW + year)], lease_value=held)
    claim(claims, held, ("a", NOW + year, "celery", b"m"))
    load_entries(claims, held, ("a", "x"))
    claims.pass_over([Gap("b", NOW, NOW + 5)], lease_value=held)
    assert client.pttl(KEYS.shard().gaps) > year


def test_an_old_term_passes_nothing_over(claims, client, held):
    with pytest.raises(TermLost):
        claims.pass_over([Gap("a", 1, 2)], lease_value="d1:0")
    assert not client.exists(KEYS.shard().gaps)


def test_what_runs_is_known_until_its_result_is_there(claims, client, held, redis_url):
    running = Running(client, KEYS)
    claim(claims, held, ("a", NOW, "celery", b"1", f"id-a {NOW + 10}"), ("b", NOW, "celery", b"2", f"id-b {NOW + 10}"))

    def unfinished(now):
        return set(running.unfinished(dict.fromkeys("abc", 60_000), now_ms=now))

    assert unfinished(NOW) == {"a", "b"}
    client.set("celery-task-meta-id-a", json.dumps({"status": "STARTED", "result": None}))
    assert unfinished(NOW) == {"a", "b"}
    client.set("celery-task-meta-id-a", json.dumps({"status": "FAILURE", "result": None}))
    assert unfinished(NOW) == {"b"}
    FinishedRuns(redis_url, KEYS).remember([Ended("id-b", "b", None, "SUCCESS")])
    assert unfinished(NOW) == set()
    claim(claims, held, ("b", NOW + 1, "celery", b"2", f"id-c {NOW + 10}"))
    assert unfinished(NOW + 10) == set()


def test_an_old_term_writes_nothing(claims, client, lease, held):
    lease.release({0: 1})
    Leases(client, KEYS, daemon_id="d2", ttl_ms=60_000).take([0])
    before = client.hgetall(KEYS.shard().last_due)
    with pytest.raises(TermLost):
        claim(claims, held, ("a", NOW, "celery", b"1"))
    with pytest.raises(TermLost):
        load_entries(claims, held, ("b", "x"))
    assert client.llen("celery") == 0
    assert client.hgetall(KEYS.shard().last_due) == before


def test_the_scripts_survive_a_flush_of_the_script_cache(claims, client, held):
    claim(claims, held, ("a", NOW, "celery", b"1"))
    client.script_flush()
    assert claim(claims, held, ("a", NOW + 1, "celery", b"2")) == frozenset()


def test_a_key_of_a_foreign_type_is_refused_and_kept(claims, client, held):
    client.set(KEYS.shard().last_due, "mine")
    with pytest.raises(StoreRefused, match=r"the key \{beatd\}:last_due is a string and should be a hash"):
        claim(claims, held, ("a", NOW, "celery", b"1"))
    assert client.get(KEYS.shard().last_due) == b"mine"
    assert client.llen("celery") == 0


def test_a_leader_that_claims_nothing_learns_it_too(claims, client, held):
    load_entries(claims, held, ("a", "x"))
    claims.verify_term(lease_value=held)
    client.delete(KEYS.shard().claims)
    with pytest.raises(StoreRolledBack):
        claims.verify_term(lease_value=held)


@pytest.mark.parametrize("key", ["last_due", "fingerprints", "runs", "gaps"])
@pytest.mark.parametrize("value", ["nonsense", "", "-1", "nan", "9" * 5_000, "1e300", b"\xff", "1 x 3"])
def test_state_that_cannot_be_read_is_said_and_kept(claims, client, held, key, value):
    load_entries(claims, held, ("a", "x"), ("b", "x"))
    hash_key = getattr(KEYS.shard(), key)
    client.hset(hash_key, "a", value)
    states = load_entries(claims, held, ("a", "y"), ("b", "x"))
    if (key, value) not in {("gaps", ""), ("fingerprints", "1 x 3")}:
        assert hash_key in str(states["a"]), "the key is named"
        assert client.hget(hash_key, "a") == (value if isinstance(value, bytes) else value.encode())
    assert states["b"].last_due_ms == NOW


@pytest.mark.parametrize("key", ["last_due", "fingerprints", "runs"])
def test_of_a_state_with_one_field_that_field_is_named(claims, client, held, key):
    hash_key = getattr(KEYS.shard(), key)
    client.hset(hash_key, "a", "nonsense")
    states = load_entries(claims, held, ("a", "x"), ("b", "x"))
    assert f"{hash_key} holds b'nonsense'" in str(states["a"])
    assert states["b"].last_due_ms == NOW


@pytest.mark.parametrize("key", ["last_due", "runs"])
@pytest.mark.parametrize("value", ["nonsense", "nan", "-5", "inf", "1e300"])
def test_a_claim_that_meets_nonsense_claims_all_others(claims, client, held, key, value):
    load_entries(claims, held, ("a", "x"), ("b", "x"))
    client.hset(getattr(KEYS.shard(), key), "a", value)
    [(left_out, [refusal])] = _claimed(claims, held, ("b", NOW + 1, "celery", b"m"), ("a", NOW + 1, "celery", b"n"))
    assert (left_out, refusal.numbers) == (frozenset(), [1])
    assert refusal.key == getattr(KEYS.shard(), key)
    assert client.lrange("celery", 0, -1) == [b"m"]
    assert client.hget(getattr(KEYS.shard(), key), "a") == value.encode()


def test_queues_that_refuse_cost_their_own_entries_only(claims, client, held):
    """A script that fails half way is not undone: a run would count as sent whose message is nowhere."""
    load_entries(claims, held, *((name, "x") for name in "abcd"))
    client.set("bad", "mine")
    client.hset("worse", "a", "1")
    before = int(client.get(KEYS.shard().claims))
    runs = [(name, NOW + 1, queue, b"m") for name, queue in zip("abcd", ("bad", "celery", "worse", "bad"), strict=True)]
    [(left_out, refusals)] = _claimed(claims, held, *runs)
    assert left_out == frozenset()
    assert {each.key: each.numbers for each in refusals} == {"bad": [0, 3], "worse": [2]}
    assert all("WRONGTYPE" in each.reason for each in refusals)
    assert client.lrange("celery", 0, -1) == [b"m"]
    states = load_entries(claims, held, *((name, "x") for name in "abcd"))
    assert [state.last_due_ms for state in states.values()] == [NOW, NOW + 1, NOW, NOW]
    assert [state.runs for state in states.values()] == [0, 1, 0, 0]
    assert int(client.get(KEYS.shard().claims)) == before + 1
    client.delete("bad", "worse")
    assert _claimed(claims, held, *runs) == [(frozenset({1}), [])]
    assert client.llen("bad") == 2


def test_all_runs_of_an_entry_are_refused_with_one(claims, client, held):
    load_entries(claims, held, ("a", "x"))
    client.set("bad", "mine")
    [(_, [refusal])] = _claimed(claims, held, ("a", NOW + 1, "bad", b"m"), ("a", NOW + 2))
    assert refusal.numbers == [0, 1]
    assert load_entries(claims, held, ("a", "x"))["a"].last_due_ms == NOW


def test_a_queue_that_the_user_may_not_use_costs_its_own_entries_only(claims, client, held, redis_url):
    load_entries(claims, held, ("a", "x"), ("b", "x"))
    keys = ["{*}:*", "celery*"]
    client.acl_setuser("narrow", enabled=True, nopass=True, keys=keys, commands=["+@all"])
    try:
        with connect(redis_url.replace("redis://", "redis://narrow:any@")) as other:
            runs = ("a", NOW + 1, "secret", b"m"), ("b", NOW + 1, "celery", b"m")
            [(_, [refusal])] = _claimed(Claims(other, KEYS), held, *runs)
        assert (refusal.key, refusal.numbers) == ("secret", [0])
        assert (client.llen("celery"), client.llen("secret")) == (1, 0)
    finally:
        client.acl_deluser("narrow")


@pytest.mark.parametrize("key", ["running", "gaps"])
def test_a_hash_of_another_type_costs_those_only_who_need_it(claims, client, held, key):
    load_entries(claims, held, ("a", "x"), ("b", "x"))
    client.set(getattr(KEYS.shard(), key), "mine")
    minds = Claim("a", NOW + 1 if key == "running" else NOW, "celery", b"m", "id 5")
    [(_, [refusal])] = claims.claim([[minds, Claim("b", NOW + 1, "celery", b"n")]], lease_value=held)
    assert (refusal.key, refusal.numbers) == (getattr(KEYS.shard(), key), [0])
    assert client.lrange("celery", 0, -1) == [b"n"]


@pytest.mark.parametrize("key", ["last_due", "runs", "claims", "lease"])
def test_what_all_runs_need_is_refused_as_a_whole(claims, client, held, key):
    load_entries(claims, held, ("a", "x"))
    shard = KEYS.shard()
    client.delete(getattr(shard, key))
    client.lpush(getattr(shard, key), "mine")
    for attempt in (
        lambda: claims.verify_term(lease_value=held),
        lambda: claim(claims, held, ("a", NOW + 1, "q", b"m")),
    ):
        with pytest.raises(StoreRefused, match=getattr(shard, key)):
            attempt()
    assert client.llen("q") == 0


def test_a_gap_that_grows_is_one_line_of_history(claims, client, held):
    load_entries(claims, held, ("a", "x"))
    for before_ms in range(NOW + 1_000, NOW + 50_000, 1_000):
        claims.pass_over([Gap("a", NOW, before_ms)], lease_value=held)
    claims.pass_over([Gap("a", NOW + 60_000, NOW + 70_000)], lease_value=held)
    found = [(one.due_ms, one.at_ms) for one in history.read("a", client.get(KEYS.history("a")))]
    assert found == [(NOW + 60_000, NOW + 70_000), (NOW, NOW + 49_000)]


def test_a_gap_is_noted_once_however_often_an_entry_resumes_at_the_same_point(claims, client, held):
    load_entries(claims, held, ("a", "x"))
    for _ in range(10):
        claims.pass_over([Gap("a", NOW - 1_000, NOW + 1_000)], lease_value=held)
    assert client.hget(KEYS.shard().gaps, "a") == f"{NOW - 1_000} {NOW + 1_000}".encode()


def test_people_are_told_of_what_catch_up_left_out_and_not_of_what_was_not_in_force(claims, client, held):
    load_entries(claims, held, ("a", "x"), ("b", "off x"), ("c", "x"))
    load_entries(claims, held, ("a", "y"), ("b", "x"), ("c", "x"), now=NOW + 60_000)  # changed, resumed, as it was
    notices = Notices(client, KEYS)
    assert notices.missed() == {}
    for before_ms in (NOW + 30_000, NOW + 60_000):
        claims.pass_over([Gap("c", NOW, before_ms)], lease_value=held)
    assert notices.missed() == {"c": (NOW, NOW + 60_000)}
    client.hset(KEYS.shard().missed, "a", "nonsense")
    assert notices.missed() == {"c": (NOW, NOW + 60_000)}
    assert 0 < client.pttl(KEYS.shard().missed) <= 2 * 3_600_000


@pytest.mark.parametrize("right", ["lpush", "hset", "incrby"])
def test_a_user_without_the_right_to_write_claims_nothing(claims, client, held, redis_url, right):
    load_entries(claims, held, ("a", "x"))
    client.acl_setuser("half", enabled=True, nopass=True, keys=["*"], commands=["+@all", f"-{right}"])
    try:
        with connect(redis_url.replace("redis://", "redis://half:any@")) as other:
            try:
                [(_, refusals)] = _claimed(Claims(other, KEYS), held, ("a", NOW + 1, "celery", b"m"))
                assert (right, len(refusals)) == ("lpush", 1)
            except StoreRefused:
                assert right != "lpush"
        assert client.llen("celery") == 0
        assert load_entries(claims, held, ("a", "x"))["a"].last_due_ms == NOW
    finally:
        client.acl_deluser("half")


def test_a_sweep_reads_names_only_where_the_store_may_have_others(claims, client, held):
    def sweep(names, now_ms=NOW, unloaded=0):
        before = client.info("commandstats").get("cmdstat_hkeys", {"calls": 0})["calls"]
        forgotten = claims.sweep(names, lease_value=held, now_ms=now_ms, keep_ms=1, unloaded=unloaded)
        return forgotten, client.info("commandstats").get("cmdstat_hkeys", {"calls": 0})["calls"] - before

    load_entries(claims, held, ("a", "x"), ("b", "x"))
    assert sweep(["a", "b"]) == ([], 0)
    assert sweep(["a", "without state"], unloaded=1) == ([], 1)  # marks b
    assert client.zrange(KEYS.shard().gone, 0, -1) == [b"b"]
    assert sweep(["a", "without state"], unloaded=1) == ([], 0)
    assert sweep(["a", "b"]) == ([], 0)  # b is back
    assert client.zcard(KEYS.shard().gone) == 0
    assert sweep(["a"]) == ([], 1)
    assert sweep(["a"], now_ms=NOW + 10) == (["b"], 0)
    assert client.hkeys(KEYS.shard().fingerprints) == [b"a"]
