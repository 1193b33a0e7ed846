"""Who is to blame when a process or worker dies."""

from __future__ import annotations

import json

import pytest

from beatd import App
from beatd.exceptions import StoreUnavailable
from beatd.message.protocol import build, envelope
from beatd.store.keys import Keys
from beatd.worker.admission.poison import DeathCounter, PoisonDetector
from beatd.worker.consumers.envelope import count_death, mark_redelivered
from beatd.worker.messages import Delivery, Headers, headers_of
from beatd.worker.request import Request


@pytest.fixture
def suspects():
    return PoisonDetector(DeathCounter(None, Keys()))


@pytest.fixture
def request_with():
    app = App("x")

    @app.task(name="t")
    def task(): ...

    app.finalize()

    def make(tag, **headers):
        return Request(Delivery(tag, "q", b""), Headers(f"id-{tag}", "t", **headers), app.tasks["t"])

    return make


def test_fresh_messages_are_not_suspected(suspects, request_with):
    fresh = [request_with(1), request_with(2)]
    assert suspects.sift(fresh) == (fresh, [], [])


def test_one_at_a_time_gets_the_last_chance(suspects, request_with):
    once, first, second, third = (
        request_with(n, redelivered=True, deaths=deaths) for n, deaths in enumerate([1, 2, 2, 3], 1)
    )
    assert suspects.sift([once, first, second, third]) == ([once, first], [second], [third])
    suspects.ended(first.delivery.tag)
    assert suspects.sift([second]) == ([second], [], [])


def test_without_a_header_arrivals_are_counted(suspects, request_with):
    seen = [suspects.sift([request_with(7, redelivered=True)]) for _ in range(3)]
    assert [[len(part) for part in parts] for parts in seen] == [[1, 0, 0], [1, 0, 0], [0, 0, 1]]


def test_what_a_living_worker_gives_back_is_not_counted(suspects, request_with):
    for _ in range(10):
        request = request_with(7, redelivered=True)
        assert suspects.sift([request])[0] == [request]
        suspects.ended(7)
        suspects.forgive()


def test_only_runs_that_end_with_their_process_are_counted(suspects, request_with):
    for died in (True, False, False, True):
        assert suspects.sift([request_with(7, redelivered=True)])[0]
        suspects.ended(7, died=died)
        suspects.forgive()
    assert suspects.sift([request_with(7, redelivered=True)])[2], "its process died twice, and it has come again"


def test_a_store_that_is_away_while_a_count_is_taken_back_delays_nothing(request_with, caplog):
    suspects = PoisonDetector(FlappingCounter(2))
    suspects.sift([request_with(7, redelivered=True)])
    suspects.ended(7)
    suspects.forgive()
    suspects.forgive()
    assert [record.event for record in caplog.records] == ["deaths_uncounted"]


def test_another_attempt_is_another_message(suspects, request_with):
    for _ in range(2):
        suspects.sift([request_with(7, redelivered=True)])
    assert suspects.sift([request_with(7, redelivered=True, retries=1)])[0]


def test_the_count_travels_with_the_message():
    raw = envelope(build("t", "the-id", ()), queue="q")
    assert headers_of(raw).deaths is None
    back = mark_redelivered(raw)
    assert (headers_of(back).redelivered, headers_of(back).deaths) == (True, 0)
    again = mark_redelivered(count_death(count_death(back)))
    assert headers_of(again).deaths == 2
    assert json.loads(again)["body"] == json.loads(raw)["body"]
    assert count_death(b"hello") == b"hello"


class FlappingCounter(DeathCounter):
    """A counter whose store is away for the calls with one of these numbers."""

    def __init__(self, *away):
        super().__init__(None, Keys())
        self._away = set(away)
        self._calls = 0

    def add(self, names, by):
        self._calls += 1
        if self._calls in self._away:
            raise StoreUnavailable("deaths: away")
        return super().add(names, by)


def test_a_store_that_is_away_while_deaths_are_counted_leaves_the_place_of_the_last_chance_free(request_with):
    suspects = PoisonDetector(FlappingCounter(1))
    suspect, uncounted = request_with(1, redelivered=True, deaths=2), request_with(2, redelivered=True)
    with pytest.raises(StoreUnavailable):
        suspects.sift([suspect, uncounted])  # both go back to the broker
    assert suspects.sift([request_with(3, redelivered=True, deaths=2)])[0]


def test_a_store_that_is_away_while_counts_are_taken_back_leaves_the_place_free(request_with):
    suspects = PoisonDetector(FlappingCounter(4))
    for tag in (1, 2):
        suspects.sift([request_with(tag, redelivered=True)])
    again = [request_with(tag, redelivered=True) for tag in (1, 2)]
    with pytest.raises(StoreUnavailable):
        suspects.sift(again)
    assert suspects.sift([request_with(3, redelivered=True, deaths=2)])[0]


def test_messages_of_one_delivery_are_counted_together_or_not_at_all(request_with):
    counter = FlappingCounter(1, 2)
    suspects, both = PoisonDetector(counter), [request_with(tag, redelivered=True) for tag in (1, 2)]
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            suspects.sift(both)
    assert suspects.sift(both) == (both, [], [])
    assert counter.add(["id-1:0", "id-2:0"], 0) == [1, 1]


def test_nothing_is_remembered_of_what_is_buried(suspects, request_with):
    for _ in range(3):
        suspects.sift([request_with(7, redelivered=True)])
    assert not suspects._counted
