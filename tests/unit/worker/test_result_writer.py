"""The result writer with stores that hang, fail and answer late."""

from __future__ import annotations

import threading

import pytest

from beatd.exceptions import StoreRefused, StoreUnavailable
from beatd.store.results import Stored
from beatd.worker import result_writer
from beatd.worker.result_writer import GIVE_UP_S, MOST_LEFT, ResultWriter
from tests.fakes import FakeClock

A, B, C = (Stored(name, name.encode()) for name in "abc")


class Store:
    """A store that hangs where it is told to."""

    def __init__(self):
        self.stored = []
        self.hangs_at = {}
        self.error = None

    def __call__(self, results):
        for result in results:
            if (gate := self.hangs_at.get(result)) is not None:
                gate.wait(60)
            if self.error is not None:
                raise self.error
            self.stored.append(result)


@pytest.fixture
def store():
    return Store()


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def impatient(monkeypatch):
    """A loop that does not wait long; only where a store hangs."""
    monkeypatch.setattr(result_writer, "PATIENCE_S", 0.2)


@pytest.fixture
def writer(store, clock, monkeypatch):
    monkeypatch.setattr(result_writer, "PATIENCE_S", 30.0)
    return ResultWriter(store, "db+sqlite", clock)


def test_results_are_stored_in_order(writer, store):
    writer.store([A, B])
    writer.store([C])
    assert store.stored == [A, B, C]


def threads():
    return [one for one in threading.enumerate() if one.name == "beatd-result-writer"]


def test_a_writer_that_was_stopped_leaves_no_thread(writer, store):
    before = threads()
    writer.store([A])
    writer.stop()
    assert threads() == before
    writer.store([B])
    writer.stop()
    assert (threads(), store.stored) == (before, [A, B])


def test_a_store_that_hangs_is_an_outage_and_goes_on(writer, store, impatient):
    store.hangs_at[A] = threading.Event()
    for results in ([A], [A, B], [A, B, C]):
        with pytest.raises(StoreUnavailable, match=r"db\+sqlite: 1 results are not stored"):
            writer.store(results)
    store.hangs_at.pop(A).set()
    wait_until_stored(writer, [A, B, C])
    assert store.stored == [A, B, C]


def test_errors_of_the_store_are_raised_and_the_results_offered_again(writer, store):
    store.error = StoreRefused("no")
    with pytest.raises(StoreRefused, match="no"):
        writer.store([A])
    store.error = None
    writer.store([A, B])
    assert store.stored == [A, B]


def test_a_call_that_hangs_for_long_is_left_alone(writer, store, clock, impatient):
    gates = [threading.Event() for _ in range(MOST_LEFT + 1)]
    for gate in gates:
        store.hangs_at[A] = gate
        with pytest.raises(StoreUnavailable):
            writer.store([A, B])
        clock.advance(GIVE_UP_S)
        with pytest.raises(StoreUnavailable):
            writer.store([A, B])
    with pytest.raises(StoreUnavailable):
        writer.store([A, B])  # no further thread
    store.hangs_at.clear()
    for gate in gates:
        gate.set()
    wait_until_stored(writer, [A, B])
    assert store.stored.count(B) == 1, "a batch that was left alone stores no more than the call that hung"


def wait_until_stored(writer, results):
    for _ in range(100):
        try:
            writer.store(results)
        except StoreUnavailable:
            continue
        return
    raise AssertionError("not stored")
