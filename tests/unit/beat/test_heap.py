"""What is due, in which order, and that nothing moves before it is told to."""

from beatd.beat.heap import DueHeap
from beatd.planning.policies import SEND, Decision, Skip

T = 1_790_000_000_000


def heap_of(*entries, due_ms=T):
    heap = DueHeap()
    for entry in entries:
        heap.put(entry, entry.schedule, due_ms)
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
    heap.put(entry("z", 60.0), entry("z", 60.0).schedule, T + 100_050)
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
    heap.put(entry("a"), entry("a").schedule, T, remaining_runs=1)
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
        heap.put(entry("again"), entry("again").schedule, T + 10_000_000 + n)
    assert sum(len(bucket) for bucket in heap._buckets.values()) < 3_000
    assert names(heap.due(T, at_most=9)) == ["kept"]
