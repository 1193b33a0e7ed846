"""The history as the store keeps it: written with the claim, ended by workers, read by people."""

import pytest

from beatd.model import manual_run_id, run_id
from beatd.store import history
from beatd.store.claims import Claim, Claims, Gap
from beatd.store.ended_runs import SentRun
from beatd.store.history import RecordFilter
from beatd.store.history_reader import Histories
from beatd.store.keys import Keys
from beatd.store.lease import Leases
from beatd.store.outcomes import Ended
from beatd.store.worker_state import FinishedRuns

NOW = 1_790_000_000_000
KEYS = Keys("beatd")
DUE_AT = "2026-09-21T14:13:20.000+00:00"  # NOW


@pytest.fixture
def held(client):
    lease = Leases(client, KEYS, daemon_id="d1", ttl_ms=60_000)
    return lease.value(lease.take([0])[0])


@pytest.fixture
def claim(client, held):
    """``claim(run, …)`` with runs as :func:`sent` and :func:`skipped` make them."""
    claims = Claims(client, KEYS, keep=5)

    def claimed(*runs):
        [(left_out, _)] = claims.claim([runs], lease_value=held)
        return left_out

    return claimed


@pytest.fixture
def histories(client):
    return Histories(client, KEYS)


def sent(name, due_ms, late_ms=0, running=""):
    record = history.Cells().sent(due_ms, due_ms, due_ms + late_ms)
    return Claim(name, due_ms, "celery", b"m", running, record)


def skipped(name, due_ms, reason):
    return Claim(name, due_ms, record=history.skipped(reason, due_ms, due_ms, due_ms))


def test_the_claim_writes_what_became_of_each_run(claim, histories):
    claim(sent("a", NOW, 3), skipped("a", NOW + 1, "overlap"), sent("b", NOW, 1_500), sent("a", NOW + 2))
    assert [(one.kind, one.due_ms, one.late_ms, one.reason) for one in histories.of(["a"])] == [
        ("scheduled", NOW + 2, 0, None),
        ("skipped", NOW + 1, 0, "overlap"),
        ("scheduled", NOW, 3, None),
    ]
    totals = histories.totals(["a", "b", "nobody"])
    assert {name: (one.scheduled, dict(one.counts)) for name, one in totals.items()} == {
        "a": (2, {"overlap": 1}),
        "b": (1, {"late": 1}),
        "nobody": (0, {}),
    }


def test_what_was_claimed_before_is_not_written_again(claim, histories):
    claim(sent("a", NOW, 2_000))
    assert claim(sent("a", NOW, 2_000), sent("b", NOW)) == {0}
    assert len(list(histories.of(["a", "b"]))) == 2
    assert histories.totals(["a"])["a"].counts == {"late": 1}


def test_counts_of_several_words_add_up(claim, histories):
    for n in range(12):
        claim(skipped("a", NOW + 2 * n, "overlap"), skipped("a", NOW + 2 * n + 1, "queue_full"))
    assert histories.totals(["a"])["a"].counts == {"overlap": 12, "queue_full": 12}


def test_the_last_runs_are_kept(claim, client, histories):
    for n in range(57):
        claim(sent("a", NOW + n))
    kept = [one.due_ms - NOW for one in histories.of(["a"])]
    assert kept == list(range(56, 56 - len(kept), -1))
    assert 5 <= len(kept) <= 10
    assert client.strlen(KEYS.history("a")) == len(kept) * history.CELL


def test_none_is_kept_when_it_is_off(client, held, histories):
    runs = [[sent("a", NOW, 2_000), skipped("a", NOW + 1, "overlap")]]
    list(Claims(client, KEYS, keep=0).claim(runs, lease_value=held))
    assert list(histories.of(["a"])) == []
    assert histories.totals(["a"])["a"].counts == {"late": 1, "overlap": 1}


def test_overlaps_are_minded_beside_the_history(claim, client, histories):
    claim(sent("a", NOW, 2_000, running=f"id-a {NOW + 10}"), sent("b", NOW, running=f"id-b {NOW + 10}"))
    assert client.hgetall(KEYS.shard().running) == {b"a": b"id-a %d" % (NOW + 10), b"b": b"id-b %d" % (NOW + 10)}
    assert len(list(histories.of(["a", "b"]))) == 2


def test_a_history_that_is_none_hinders_no_run(claim, client, histories):
    client.rpush(KEYS.history("a"), "mine")
    client.set(KEYS.shard().tally, "mine")
    assert claim(sent("a", NOW, 2_000), sent("b", NOW)) == frozenset()
    assert client.llen("celery") == 2
    assert [one.entry for one in histories.newest(["a", "b"], 10)] == ["b"]


def test_what_cannot_be_read_goes_in_time(claim, client, histories):
    client.set(KEYS.history("a"), b"\xff" * 47)
    for n in range(20):
        claim(sent("a", NOW + n))
        assert next(histories.of(["a"])).due_ms == NOW + n
    assert b"\xff" not in client.get(KEYS.history("a"))


def test_missed_runs_are_one_record(client, held, histories):
    Claims(client, KEYS, keep=5).pass_over([Gap("a", NOW, NOW + 9_000)], lease_value=held)
    [record] = histories.of(["a"])
    assert (record.kind, record.due_ms, record.at_ms) == ("missed", NOW, NOW + 9_000)


def test_it_goes_with_the_state_of_its_entry(client, held, claim):
    claims, day = Claims(client, KEYS), 86_400_000
    list(claims.load_entries([("a", "x"), ("b", "x")], lease_value=held, now_ms=NOW))
    claim(sent("a", NOW + 1, 2_000), sent("b", NOW + 1, 2_000))
    for now_ms in (NOW, NOW + 31 * day):
        claims.sweep(["b"], lease_value=held, now_ms=now_ms, keep_ms=30 * day)
    assert client.keys(KEYS.history("*")) == [KEYS.history("b").encode()]
    assert client.hkeys(KEYS.shard().tally) == [b"b"]


def test_workers_write_how_a_run_ended(claim, client, redis_url, histories):
    claim(sent("a", NOW - 1), skipped("a", NOW - 0, "overlap"), sent("a", NOW + 1))
    finished = FinishedRuns(redis_url, KEYS)
    due_at = DUE_AT.replace("20.000", "20.001")
    finished.remember(
        [
            Ended(run_id("a", NOW + 1), "a", due_at, "FAILURE", 1.5),
            Ended(run_id("a", NOW), "a", DUE_AT, "SUCCESS", 0.1),  # was skipped, as far as the history knows
            Ended(run_id("b", NOW), "b", DUE_AT, "SUCCESS", 0.1),  # has no history
        ]
    )
    assert [(one.due_ms - NOW, one.outcome, one.runtime_ms) for one in histories.of(["a"])] == [
        (1, "FAILURE", 1_500),
        (0, None, None),
        (-1, None, None),
    ]
    assert client.get(KEYS.shard().finished + run_id("b", NOW)) == b"SUCCESS 100"
    runs = [SentRun(run_id("b", NOW), "b", DUE_AT), SentRun("other", "b", DUE_AT)]
    assert finished.among(runs) == {run_id("b", NOW)}


def test_a_run_that_was_asked_for_is_found_by_its_own_id(client, redis_url, histories):
    ids = [manual_run_id("a", request) for request in ("one", "two")]
    cells = b"".join(history.by_hand(history.TRIGGERED, NOW, NOW, each) for each in ids)
    client.set(KEYS.history("a"), cells + history.by_hand(history.BACKFILLED, NOW, NOW))
    FinishedRuns(redis_url, KEYS).remember([Ended(ids[0], "a", DUE_AT, "SUCCESS", 0.2)])
    assert [(one.kind, one.outcome) for one in histories.of(["a"])] == [
        ("backfilled", None),
        ("triggered", None),
        ("triggered", "SUCCESS"),
    ]


@pytest.mark.parametrize("due_at", [None, "yesterday", "0001-01-01T00:00:00+00:00", "2026-09-21T14:13:20"])
def test_strange_headers_find_nothing(claim, client, redis_url, histories, due_at):
    claim(sent("a", NOW))
    FinishedRuns(redis_url, KEYS).remember([Ended("id of somebody", "a", due_at, "STRANGE", 0.2)])
    assert [one.outcome for one in histories.of(["a"])] == [None]
    assert client.get(KEYS.shard().finished + "id of somebody") == b"STRANGE 200"


def test_the_newest_of_many_entries(claim, histories):
    for n in range(40):
        claim(sent(f"e{n}", NOW + n), sent(f"e{n}", NOW + 100 - n))
    newest = histories.newest([f"e{n}" for n in range(40)], 5)
    assert [one.due_ms - NOW for one in newest] == [100, 99, 98, 97, 96]
    late = histories.newest([f"e{n}" for n in range(40)], 3, RecordFilter(since_ms=NOW + 99))
    assert [one.due_ms - NOW for one in late] == [100, 99]
    assert histories.newest(["e1"], 3, RecordFilter(failed=True)) == []


def test_outcomes_of_others_come_from_their_results(claim, client, histories):
    claim(sent("a", NOW), sent("a", NOW + 1), sent("a", NOW + 2))
    documents = (b'{"status": "FAILURE", "result": null}', b'{"status": "STARTED", "result": null}', b"\xff")
    for due_ms, document in zip(range(NOW, NOW + 3), documents, strict=True):
        client.set(f"celery-task-meta-{run_id('a', due_ms)}", document)
    assert [one.outcome for one in histories.completed(list(histories.of(["a"])))] == [None, None, "FAILURE"]


def test_runs_are_found_by_the_beginnings_of_their_ids(claim, client, histories):
    claim(sent("a", NOW), sent("a", NOW + 1), sent("b", NOW))
    own = manual_run_id("b", "request")
    client.append(KEYS.history("b"), history.by_hand(history.TRIGGERED, NOW, NOW, own))
    for name, due_ms in (("a", NOW), ("a", NOW + 1), ("b", NOW)):
        for start in (run_id(name, due_ms), run_id(name, due_ms)[:8], run_id(name, due_ms)[:13]):
            assert [(one.entry, one.due_ms) for one in histories.find(start, ["a", "b"])] == [(name, due_ms)]
    assert [one.kind for one in histories.find(own[:9], ["a", "b"])] == ["triggered"]
    assert histories.find("no such id", ["a", "b"]) == []
    assert len(histories.find("", ["a", "b"])) == 4
