"""Looks are shared: many viewers cost the store no more than one does."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from beatd.exceptions import StoreUnavailable
from beatd.model import RedisSettings
from beatd.web import store_view
from beatd.web.store_view import SHARED_S, StoreView
from tests.fakes import FakeClock


class Looks:
    """An overview that counts how often it was asked for."""

    def __init__(self):
        self.count = 0
        self.error = None

    def __call__(self, client):
        self.count += 1
        if self.error is not None:
            raise self.error
        return {"look": self.count}


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def looks():
    return Looks()


@pytest.fixture
def view(looks, clock):
    return StoreView(looks, lambda: "redis://h", RedisSettings(), clock)


def test_an_answer_holds_for_a_moment(view, looks, clock):
    assert [view.status()["look"] for _ in range(5)] == [1] * 5
    clock.mono += SHARED_S
    assert view.status() == {"look": 1}
    clock.mono += 0.01
    assert view.status() == {"look": 2}


def test_those_who_ask_together_share_one_look(view, looks):
    with ThreadPoolExecutor(16) as pool:
        assert {seen["look"] for seen in pool.map(lambda _: view.status(), range(64))} == {1}


def test_a_failure_is_shared_too_and_passes(view, looks, clock):
    looks.error = StoreUnavailable("down")
    for _ in range(5):
        with pytest.raises(StoreUnavailable, match="down"):
            view.status()
    assert looks.count == 1
    looks.error = None
    clock.mono += SHARED_S + 0.01
    assert view.status() == {"look": 2}


def test_a_store_that_hangs_is_waited_for_once_by_all_who_read_runtime_entries(view, clock, monkeypatch):
    asked = []

    class Hanging:
        def __init__(self, client, _keys):
            self.client = client

        def refresh(self):
            asked.append(clock.monotonic())
            clock.advance(2)
            raise StoreUnavailable("Timeout reading from socket")

    monkeypatch.setattr(store_view, "RuntimeReplica", Hanging)
    monkeypatch.setattr(store_view, "connect", lambda *_, **__: object())
    monkeypatch.setattr(store_view, "readable_keys", lambda *_: None)
    for _ in range(5):
        with pytest.raises(StoreUnavailable, match="Timeout"):
            view.mirror()
    assert len(asked) == 1
    clock.advance(2.1)
    with pytest.raises(StoreUnavailable):
        view.mirror()
    assert len(asked) == 2
