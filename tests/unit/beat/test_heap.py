"""What is due, in which order, and that nothing moves before it is told to."""

from random import Random

import pytest
from msgspec import structs

from beatd.beat.heap import DueHeap
from beatd.exceptions import ScheduleError
from beatd.planning.policies import HOLD, SEND, Decision, Skip

T = 1_790_000_000_000


def heap_of(*entries, due_ms=T):
    heap = DueHeap()
    for entry in entries:
        heap.put([entry], entry.schedule, due_ms)
    return heap


def names(runs):
    return [run.entry.name for run in runs]


def test_the_same_runs_until_they_are_done_with(entry):
    heap = heap_of(entry("a"), entry("b"))
    runs = [*heap.due(T, at_most=9)]
    assert names(runs) == ["a", "b"]
    assert [*heap.due(T, at_most=9)] == runs
    heap.advance([SEND, SEND])
    assert not heap.due(T, at_most=9)
    assert heap.next_fire_ms() == T + 1_000


def test_runs_that_are_done_with_move_on_and_the_others_are_handed_out_again(entry):
    heap = heap_of(entry("a"), entry("b"), entry("c"))
    runs = iter(heap.due(T, at_most=9))
    first = next(runs)
    heap.advance([SEND])
    assert [run.due_ms for run in runs] == [T, T], "those that are left are as they were"
    assert sorted(names([first]) + names(heap.due(T, at_most=9))) == ["a", "b", "c"]
    heap.advance([SEND] * 2)
    assert not heap.due(T, at_most=9)
    assert sorted(names(heap.due(T + 1_000, at_most=9))) == ["a", "b", "c"]


def test_no_more_than_asked_for_and_the_rest_after_that(entry):
    heap = heap_of(*(entry(f"e{n}") for n in range(5)))
    first = heap.due(T, at_most=3)
    heap.advance([SEND] * 3)
    second = heap.due(T, at_most=3)
    assert sorted(names(first) + names(second)) == ["e0", "e1", "e2", "e3", "e4"]


def test_entries_that_catch_up_take_turns_and_let_others_through(entry):
    """Two entries are 100 runs behind; a third comes due in the meantime and waits for one round of them only."""
    behind = [entry("x", 1.0), entry("y", 1.0)]
    heap = heap_of(*behind)
    heap.put([entry("z", 60.0)], entry("z", 60.0).schedule, T + 100_050)
    order = []
    now = T + 100_000
    for _ in range(6):
        runs = heap.due(now, at_most=2)
        order += [(run.entry.name, (run.due_ms - T) // 1000) for run in runs]
        heap.advance([SEND] * len(runs))
        now += 50
    assert order[:2] == [("x", 0), ("y", 0)]
    assert ("z", 100) in order[:7]
    assert [due for name, due in order if name == "x"] == [0, 1, 2, 3, 4, 5][: len([1 for n, _ in order if n == "x"])]


def test_a_run_that_waits_comes_again_later(entry):
    heap = heap_of(entry("a"))
    [run] = heap.due(T, at_most=9)
    heap.advance([Decision(retry_ms=T + 500)])
    assert not heap.due(T + 499, at_most=9)
    [again] = heap.due(T + 500, at_most=9)
    assert again.due_ms == run.due_ms


def test_what_is_passed_is_done_with(entry):
    heap = heap_of(entry("a"))
    heap.due(T, at_most=9)
    heap.advance([Decision(passed_ms=T + 7_000)])
    assert heap.next_fire_ms() == T + 8_000


def test_only_runs_that_were_sent_count_towards_the_limit(entry):
    heap = DueHeap()
    heap.put([entry("a")], entry("a").schedule, T, remaining_runs=1)
    heap.due(T, at_most=9)
    heap.advance([Decision(skip=Skip.OVERLAP)])
    assert "a" in heap
    heap.due(T + 1_000, at_most=9)
    heap.advance([SEND])
    assert "a" not in heap


def test_a_removed_entry_is_not_handed_out_even_if_it_was_before(entry):
    heap = heap_of(entry("a"), entry("b"))
    heap.due(T, at_most=9)
    heap.remove("a")
    assert names(heap.due(T, at_most=9)) == ["b"]


def test_an_entry_that_is_replaced_many_times_leaves_nothing_behind(entry):
    heap = heap_of(entry("kept"))
    for n in range(5_000):
        heap.put([entry("again")], entry("again").schedule, T + 10_000_000 + n)
    assert sum(len(bucket) for bucket in heap._buckets.values()) < 3_000
    assert names(heap.due(T, at_most=9)) == ["kept"]


def test_runs_that_move_on_in_one_step_are_where_they_would_be_one_by_one(entry):
    """Entries that share timelines, and differ in jitter, number of runs and decisions, in any order."""
    random = Random(7)
    decisions = [
        SEND,
        SEND,
        Decision(expires_ms=T + 90_000),
        Decision(skip=Skip.OVERLAP),
        Decision(skip=Skip.OVERLAP, claimed_before=True),
        Decision(claimed_before=True),
        Decision(passed_ms=T + 120_000),
        Decision(retry_ms=T + 500),
        HOLD,
    ]
    timelines = [entry("x", period).schedule for period in (60.0, 60.0, 90.0)]
    for _ in range(50):
        together, alone = DueHeap(), DueHeap()
        for number in range(40):
            jitter_ms, runs = random.choice([0, 0, 0, 5_000]), random.choice([None, None, None, 1, 2])
            one, timeline = entry(f"e{number}", jitter_ms=jitter_ms), random.choice(timelines)
            for heap in (together, alone):
                heap.put([one], timeline, T, remaining_runs=runs, after_ms=T - number)
        now_ms = T
        for _ in range(3):
            now_ms += 130_000
            runs = [*together.due(now_ms, at_most=99)]
            assert runs == [*alone.due(now_ms, at_most=99)]
            decided = sorted(random.choices(decisions, k=len(runs)), key=decisions.index)
            together.advance(decided)
            for decision in decided:
                alone.advance([structs.replace(decision)])
        assert [run for at in sorted(together._buckets) for run in together.runs_at(at)] == [
            run for at in sorted(alone._buckets) for run in alone.runs_at(at)
        ]


def test_entries_that_are_put_in_one_step_are_where_they_would_be_one_by_one(entry):
    entries = [entry(name) for name in "abcd"]
    together, alone = heap_of(entries[2], due_ms=T - 1), heap_of(entries[2], due_ms=T - 1)
    together.put(entries, entries[0].schedule, T, after_ms=T - 9)
    for one in entries:
        alone.put([one], entries[0].schedule, T, after_ms=T - 9)
    runs = [*together.due(T, at_most=9)]
    assert runs == [*alone.due(T, at_most=9)]
    assert names(runs) == ["a", "b", "c", "d"]
    together.put(entries, entries[0].schedule, None)
    assert len(together) == 0
    with pytest.raises(ScheduleError, match="outside the years"):
        alone.put(entries, entries[0].schedule, 1 << 60)
    assert len(alone) == 0


def test_entries_of_a_schedule_that_fails_leave_together_and_no_others(entry):
    class Ends:
        def next_after_ms(self, t_ms, /):
            return t_ms + 1_000 if t_ms < T else 1 << 60

    ends = Ends()
    heap = DueHeap()
    for name, timeline in (("a", ends), ("b", ends), ("c", entry("c").schedule), ("d", ends)):
        heap.put([entry(name)], timeline, T)
    assert len(heap.due(T, at_most=9)) == 4
    failed = heap.advance([SEND] * 4)
    assert [one.entry.name for one in failed] == ["a", "b", "d"]
    with pytest.raises(ScheduleError, match="outside the years"):
        raise failed[0].error
    assert len(heap) == 1
    assert "c" in heap
