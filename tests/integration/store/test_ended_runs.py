"""Ended runs: what is remembered of them is bounded by entries, and no message is taken for one of an ended run."""

import random

import pytest

from beatd.model import manual_run_id, run_id
from beatd.store.ended_runs import EndedRuns, SentRun, covers
from beatd.store.entry_state import DispatchLookup, Running
from beatd.store.keys import Keys
from beatd.store.outcomes import Ended, Outcomes, Started
from beatd.timestamps import iso_ms

KEYS, NOW, STEP = Keys("beatd"), 1_790_000_000_000, 30_000
ENDED = KEYS.shard().ended


@pytest.fixture
def outcomes(client):
    return Outcomes(client, KEYS)


def sent(number, name="a", after=None):
    """The run of that number, which came after the one before unless ``after`` says otherwise."""
    due_ms = NOW + number * STEP
    after_ms = NOW + (number - 1 if after is None else after) * STEP
    return SentRun(run_id(name, due_ms), name, iso_ms(due_ms), after_ms)


def end_of(run, state="SUCCESS", **more):
    return Ended(run.id, run.entry, run.due_at, state, 0.1, after_ms=run.after_ms, **more)


def note(outcomes, *runs):
    outcomes.note([end_of(run) for run in runs])


def numbers(client, name="a"):
    return [(int(word) - NOW) // STEP for word in (client.hget(ENDED, name) or b"").split()]


def test_runs_that_end_in_order_leave_one_field(client, outcomes):
    for number in range(1, 1_201):
        note(outcomes, sent(number))
    assert numbers(client) == [0, 1_200]
    note(outcomes, *(sent(number) for number in range(1_201, 3_001)))
    assert numbers(client) == [0, 3_000]
    assert client.keys("*finished*") == []
    runs = [sent(number) for number in range(1, 3_010)]
    assert EndedRuns(client, KEYS).among(runs) == {run.id for run in runs[:3_000]}


def test_a_run_that_is_overtaken_has_not_ended(client, outcomes):
    note(outcomes, *(sent(number) for number in (1, 2, 4, 5, 7)))
    assert numbers(client) == [0, 2, 3, 5, 6, 7]
    assert not EndedRuns(client, KEYS).among([sent(3), sent(6)])
    note(outcomes, sent(3))
    assert numbers(client) == [0, 5, 6, 7]
    note(outcomes, sent(6), sent(6), sent(2))
    assert numbers(client) == [0, 7]


@pytest.mark.parametrize("seed", range(20))
def test_in_any_order_it_is_the_set_of_what_has_ended(client, outcomes, seed):
    """A set in memory beside the stretches in the store: with runs that are skipped, passed over, or noted twice."""
    chance = random.Random(seed)
    runs, last = [], 0
    for number in range(1, 120):
        kind = chance.choices(("sent", "skipped", "passed over"), (8, 1, 1))[0]
        if kind == "sent":
            runs.append(sent(number, after=last))
        if kind != "skipped":
            last = number
    order = sorted(runs, key=lambda run: run.due_ms + chance.random() * chance.choice((0, 4, 40)) * STEP)
    ended = set()
    while order:
        count = chance.randrange(1, 9)
        batch, order = order[:count], order[count:]
        note(outcomes, *batch, *chance.choices(batch, k=chance.randrange(2)))
        ended |= {run.id for run in batch}
        assert EndedRuns(client, KEYS).among(runs) == ended


def test_the_oldest_are_forgotten_beyond_a_bound(client, outcomes):
    note(outcomes, *(sent(number) for number in range(2, 1_000, 2)))
    assert len(numbers(client)) == 200
    ended = EndedRuns(client, KEYS).among([sent(number) for number in range(1, 1_000)])
    assert ended == {sent(number).id for number in range(800, 1_000, 2)}
    assert client.hlen(ENDED) == 1


def test_a_run_that_is_tried_again_or_refused_has_not_ended(client, outcomes):
    outcomes.note([end_of(sent(1), "RETRY", is_over=False)])
    assert numbers(client) == []
    note(outcomes, sent(1))
    assert numbers(client) == [0, 1]


def test_runs_by_hand_are_remembered_by_their_ids(client, outcomes):
    note(outcomes, sent(2))
    triggered = SentRun(manual_run_id("a", "r"), "a", iso_ms(NOW + 2 * STEP))
    backfilled = sent(2)._replace(after_ms=None)
    ended = EndedRuns(client, KEYS)
    assert not ended.among([triggered, backfilled])
    note(outcomes, triggered, backfilled)
    assert ended.among([triggered, backfilled]) == {triggered.id, backfilled.id}
    assert client.keys("*finished*")
    assert numbers(client) == [1, 2]
    assert 0 < client.pttl(KEYS.shard().finished + triggered.id) <= 86_400_000


def test_another_id_with_the_headers_of_an_ended_run_is_no_repeat(client, outcomes):
    note(outcomes, sent(1))
    assert not EndedRuns(client, KEYS).among([sent(1)._replace(id="another"), sent(1)._replace(due_at="strange")])


@pytest.mark.parametrize("text", [b"x", b"1", b"1 x", b"5 4 3", b"\xff"])
def test_what_is_no_stretch_is_written_anew(client, outcomes, text):
    client.hset(ENDED, "a", text)
    assert not EndedRuns(client, KEYS).among([sent(1)])
    assert not covers(text, NOW)
    note(outcomes, sent(1))
    assert EndedRuns(client, KEYS).among([sent(1)]) == {sent(1).id}


def test_a_key_of_another_type_hinders_no_end(client, outcomes):
    client.set(ENDED, "mine")
    client.set(KEYS.shard().running, "mine")
    note(outcomes, sent(1))
    assert outcomes.summaries()["a"].word == "success"


def test_the_end_of_a_run_lets_the_next_one_go(client, outcomes):
    running, until = Running(client, KEYS), NOW + 3_600_000
    for name, run in (("a", sent(1)), ("b", sent(1, "b")), ("c", sent(2, "c"))):
        client.hset(KEYS.shard().running, name, f"{run.id} {until}")
    unfinished = {"a": 3_600_000, "b": 3_600_000, "c": 3_600_000}
    assert running.unfinished(unfinished, now_ms=NOW).keys() == {"a", "b", "c"}
    outcomes.note([end_of(sent(1)), end_of(sent(1, "b"), "RETRY", is_over=False), end_of(sent(1, "c"))])
    assert running.unfinished(unfinished, now_ms=NOW).keys() == {"b", "c"}, "b is tried again; of c another run ended"
    assert client.hkeys(KEYS.shard().running) == [b"b", b"c"]


def test_the_mark_of_a_long_run_goes_with_its_end(client, outcomes):
    outcomes.began({sent(1).id: Started(NOW, NOW, 1, "w")})
    outcomes.note([end_of(sent(1), was_marked=True)])
    assert client.keys("*started*") == []


def test_a_run_before_the_schedule_changed_is_not_sent_again_by_a_backfill(client, outcomes):
    client.hset(KEYS.shard().fingerprints, "a", f"{NOW + 9 * STEP} another")
    client.hset(KEYS.shard().last_due, "a", NOW + 9 * STEP)
    note(outcomes, sent(1), sent(2))

    class Named:
        name = "a"

    past = DispatchLookup(client, KEYS).read_past(Named())
    now = {"comes": True, "now_ms": NOW + 9 * STEP}
    assert [past.reason(NOW + n * STEP, **now) for n in (1, 2, 3)] == ["dispatched", "dispatched", None]
