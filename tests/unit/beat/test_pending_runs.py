"""Runs whose ends are not known: found when they are to be tried, bounded, and small."""

import random
import tracemalloc

import pytest

from beatd.beat.pending_runs import PendingRuns
from beatd.model import manual_run_id, run_id
from beatd.store.history import OpenRun
from tests.fakes import NOW


def a_run(due_ms=NOW, *, is_scheduled=True, own_id=None):
    return OpenRun(due_ms, due_ms + 5, is_scheduled, own_id)


@pytest.fixture
def pending():
    return PendingRuns(100)


def add(pending, *runs, entry="a", try_at_ms=NOW, pause_ms=5_000):
    pending.add(entry, runs, try_at_ms=try_at_ms, pause_ms=pause_ms)


def test_a_run_is_what_it_was(pending):
    manual = manual_run_id("a", "request")
    add(
        pending,
        a_run(),
        a_run(due_ms=NOW + 1, is_scheduled=False),
        a_run(due_ms=NOW, is_scheduled=False, own_id=manual),
    )
    scheduled, backfilled, triggered = pending.due(NOW, 10)
    assert scheduled == ("a", run_id("a", NOW), NOW, NOW + 5, True, 5_000)
    assert backfilled == ("a", run_id("a", NOW + 1), NOW + 1, NOW + 6, False, 5_000)
    assert triggered == ("a", manual, NOW, NOW + 5, False, 5_000)


def test_a_run_that_is_known_keeps_its_time(pending):
    manual = a_run(is_scheduled=False, own_id=manual_run_id("a", "request"))
    add(pending, a_run(), manual, a_run())
    for run in pending.due(NOW, 10):
        pending.put_off(run, NOW + 60_000, 10_000)
    add(pending, a_run(), manual)
    assert len(pending) == 2
    assert pending.due(NOW + 59_999, 10) == []
    assert [run.pause_ms for run in pending.due(NOW + 60_000, 10)] == [10_000, 10_000]
    pending.try_all(NOW - 5)
    assert len(pending.due(NOW - 5, 10)) == 2


def test_entries_take_turns(pending):
    for name in "abc":
        add(pending, *(a_run(NOW + number) for number in range(3)), entry=name)
    turns = []
    for _ in range(3):
        tried = pending.due(NOW, 4)
        turns.append([run.entry for run in tried])
        for run in tried:
            pending.put_off(run, NOW + 1, 1)
    assert turns == [list("aaab"), list("bbcc"), ["c"]]


def test_beyond_the_bound_the_oldest_go(pending):
    for number in range(30):
        add(pending, *(a_run(NOW + due) for due in range(5)), entry=f"e{number}")
    assert len(pending) == len(pending.due(NOW, 1_000)) == 100
    assert {run.entry for run in pending.due(NOW, 1_000)} == {f"e{number}" for number in range(10, 30)}
    add(pending, *(a_run(NOW + due) for due in range(500)), entry="many")
    assert len(pending) == 100
    pending.clear()
    assert (len(pending), pending.due(NOW, 10)) == (0, [])


@pytest.mark.parametrize("seed", range(20))
def test_it_agrees_with_a_dictionary(seed):
    rng, pending, model = random.Random(seed), PendingRuns(10_000), {}
    for step in range(300):
        now_ms = NOW + step
        name, dues = rng.choice("abc"), [NOW + rng.randrange(8) for _ in range(rng.randrange(5))]
        own = [manual_run_id(name, str(due_ms)) if rng.random() < 0.2 else None for due_ms in dues]
        runs = [a_run(due_ms, own_id=id_) for due_ms, id_ in zip(dues, own, strict=True)]
        add(pending, *runs, entry=name, try_at_ms=now_ms)
        for run in runs:
            model.setdefault(run.own_id or run_id(name, run.due_ms), now_ms)
        due = pending.due(now_ms, 1_000)
        assert sorted(run.run_id for run in due) == sorted(id_ for id_, at_ms in model.items() if at_ms <= now_ms)
        for run in due:
            if rng.random() < 0.5:
                pending.remove(run)
                del model[run.run_id]
            else:
                model[run.run_id] = now_ms + rng.randrange(1, 20)
                pending.put_off(run, model[run.run_id], 1)
        assert len(pending) == len(model)


def test_a_backlog_takes_little_memory():
    """A daemon that was behind for moments must not be a third larger from then on."""
    pending, runs = PendingRuns(50_000), 50_000
    several = [a_run(NOW + 1_000 * number) for number in range(20)]
    tracemalloc.start()
    for entry in range(runs // 20):
        pending.add(f"e{entry}", several, try_at_ms=NOW, pause_ms=5_000)
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(pending) == runs
    assert used < 5e6
