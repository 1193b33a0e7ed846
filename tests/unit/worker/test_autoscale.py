"""A pool that scales, around one that only keeps the books."""

from __future__ import annotations

import pytest

from beatd.worker.messages import Job
from beatd.worker.pools.autoscale import Autoscaled


class Books:
    def __init__(self, size):
        self.size = size
        self.running = {}
        self.depth = 1

    def room(self):
        return max(0, self.size * self.depth - len(self.running))

    def submit(self, jobs):
        self.running.update({job.tag: 0.0 for job in jobs})

    def collect(self):
        return []

    def running_since(self):
        return dict(list(self.running.items())[: self.size])

    def grow(self, by=1):
        self.size += by

    def shrink(self, by=1):
        self.size -= by


class Time:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def time():
    return Time()


def jobs(*tags):
    return [Job(tag, b"", "q") for tag in tags]


def test_it_grows_at_once_when_all_are_busy_and_a_message_waits(time):
    books = Books(1)
    pool = Autoscaled(books, 3, 1, idle_s=30, monotonic=time)
    assert pool.room() == 1
    pool.submit(jobs(1))
    assert pool.size == 1
    assert pool.room() == 2, "as many as it may grow by"
    pool.submit(jobs(2, 3))
    assert pool.size == 3
    assert pool.room() == 0


def test_it_shrinks_to_what_was_needed(time):
    books = Books(1)
    pool = Autoscaled(books, 4, 1, idle_s=30, monotonic=time)
    for tag in range(4):
        pool.room()
        pool.submit(jobs(tag))
    assert pool.size == 4
    books.running = {0: 0.0, 1: 0.0}
    time.now = 29.0
    pool.collect()
    assert pool.size == 4
    time.now = 30.0
    pool.collect()
    assert pool.size == 4, "all four were at work in these thirty seconds"
    pool.collect()
    time.now = 61.0
    pool.collect()
    assert pool.size == 2


def test_many_short_tasks_make_it_grow_too(time):
    books = Books(1)
    books.depth = 10
    pool = Autoscaled(books, 3, 1, idle_s=30, monotonic=time)
    for step in range(20):
        time.now = step / 10
        pool.submit(jobs(*range(pool.room())))
        books.running.clear()
    assert pool.size == 3


def test_bounds_may_be_changed(time):
    pool = Autoscaled(Books(3), 5, 1, idle_s=30, monotonic=time)
    assert pool.update(2, 2) == (2, 2)
    assert pool.size == 2
    assert pool.update(None, 1) == (2, 1)
    assert pool.update(6, 4) == (6, 4)
    assert pool.size == 4
    with pytest.raises(ValueError, match="cannot scale between 7 and 6"):
        pool.update(None, 7)
    with pytest.raises(ValueError, match="scales by itself"):
        pool.grow(1)
