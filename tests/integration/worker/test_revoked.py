"""What is revoked is known to all workers, also to those that start later."""

from __future__ import annotations

import pytest
import redis

from beatd import App
from beatd.clock import SystemClock
from beatd.store.keys import Keys
from beatd.store.worker_state import KEPT_MS, LIMIT, RevokedStore
from beatd.worker.admission.revoked import Revoked, RevokedSync
from tests.fakes import FakeClock

KEY = Keys().workers().revoked


@pytest.fixture
def clock():
    return FakeClock(SystemClock().now_ms())  # clients revoke by the host's clock


@pytest.fixture
def worker(redis_url, clock):
    """``worker()``: the memory of one more worker."""
    made = []

    def start(url=redis_url):
        memory = Revoked()
        made.append(RevokedSync(memory, RevokedStore(url, Keys()), clock))
        made[-1].refresh()
        return made[-1]

    yield start
    for each in made:
        each.close()


def revoke(worker, *ids):
    worker.learn(ids)
    worker.remember(list(ids))


def test_workers_that_start_later_know(worker):
    revoke(worker(), "a", "b")
    assert set(worker().ids()) == {"a", "b"}


def test_a_worker_that_missed_it_learns_within_ten_seconds(worker, clock):
    first, second = worker(), worker()
    revoke(first, "a")
    assert second.ids() == []
    assert 0 < second.tend() <= 10
    clock.advance(11)
    second.tend()
    assert second.ids() == ["a"]


def test_after_a_day_it_is_forgotten(worker, clock):
    first = worker()
    revoke(first, "a")
    clock.advance(KEPT_MS / 1000 + 1)
    revoke(first, "b")
    assert first.ids() == ["b"]
    assert worker().ids() == ["b"]


def test_the_store_keeps_no_more_than_its_limit(worker, redis_url):
    first = worker()
    first.remember([f"id-{n}" for n in range(LIMIT)])
    first.remember(["one-more"])
    with redis.Redis.from_url(redis_url) as server:
        assert server.zcard(KEY) == LIMIT
        assert server.zscore(KEY, "one-more")
        assert 0 < server.pttl(KEY) <= KEPT_MS


def test_what_could_not_be_shared_is_when_the_store_is_back(worker, start_server, clock):
    server = start_server()
    first = worker(server.url)
    server.kill()
    revoke(first, "a")
    assert first.ids() == ["a"]
    server.start()
    clock.advance(40)
    first.tend()
    assert worker(server.url).ids() == ["a"]


def test_without_a_store_each_worker_has_only_its_own(worker):
    first = worker(None)
    revoke(first, "a")
    assert (first.kept, first.ids(), worker(None).ids()) == (False, ["a"], [])


def test_what_a_client_revokes_while_no_worker_runs_is_known_to_the_next(worker, redis_url):
    app = App("client", broker=redis_url, backend=redis_url, set_as_current=False)
    app.AsyncResult("a").revoke()
    app.control.terminate(["b", "c"])
    assert set(worker().ids()) == {"a", "b", "c"}
    app.close()
