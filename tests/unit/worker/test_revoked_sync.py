"""Revoked ids on their way to the state store and back, with a store that is slow or away."""

from __future__ import annotations

import time

import pytest

from beatd.exceptions import StoreUnavailable
from beatd.store.worker_state import LIMIT
from beatd.worker.admission.revoked import Revoked, RevokedSync
from tests.fakes import FakeClock


class Store:
    """The ids in the store. ``away``: each call takes two seconds and fails."""

    is_configured = True

    def __init__(self, clock: FakeClock) -> None:
        self.away = False
        self.kept: dict[str, int] = {}
        self.calls = 0
        self._clock = clock

    def _call(self) -> None:
        self.calls += 1
        if self.away:
            self._clock.advance(2)
            raise StoreUnavailable("store: timeout")

    def remember(self, ids, now_ms):
        self._call()
        self.kept |= dict.fromkeys(ids, now_ms)

    def since(self, moment_ms):
        self._call()
        return [(task_id, ms) for task_id, ms in self.kept.items() if ms >= moment_ms]


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def store(clock):
    return Store(clock)


@pytest.fixture
def sync(store, clock):
    return RevokedSync(Revoked(), store, clock)


def test_commands_do_not_wait_one_after_the_other_for_a_store_that_is_away(sync, store, clock):
    store.away = True
    began = clock.monotonic()
    for number in range(20):
        sync.remember([f"id-{number}"])
    assert clock.monotonic() - began == 2
    store.away = False
    clock.advance(60)
    sync.tend()
    assert len(store.kept) == 20
    sync.remember(["one more"])
    assert "one more" in store.kept


def test_what_waits_for_the_store_is_bounded(sync, store):
    store.away = True
    for start in range(0, LIMIT + 20, 10):
        sync.remember([f"id-{number}" for number in range(start, start + 10)])
    assert len(sync._unsaved) == LIMIT
    assert "id-0" not in sync._unsaved


def test_all_that_the_store_keeps_is_loaded_in_a_moment(sync, store, clock):
    store.kept = {f"id-{number}": clock.now_ms() - number for number in range(LIMIT)}
    began = time.monotonic()
    sync.refresh()
    assert len(sync.ids()) == LIMIT
    assert time.monotonic() - began < 5


def test_ids_are_loaded_after_the_clock_was_set_back(sync, store, clock):
    sync.refresh()
    clock.step(-3600)
    sync.learn(["own"])
    store.kept["revoked-elsewhere"] = clock.now_ms()
    clock.advance(10)
    sync.tend()
    assert "revoked-elsewhere" in sync.ids()
