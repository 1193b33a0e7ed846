"""Messages that wait in the state store, as their broker has no place for them."""

from __future__ import annotations

import pytest

from beatd.message.protocol import build, envelope
from beatd.store.keys import Keys
from beatd.worker.consumers.parking import StoreParking
from beatd.worker.messages import Delivery
from tests.fakes import FakeClock


class Published:
    """A publisher that keeps the ids."""

    batch = 100

    def __init__(self) -> None:
        self.ids: list[str] = []

    def publish_many(self, parcels):
        self.ids += [parcel.message.id for parcel in parcels]
        return []

    def close(self) -> None: ...


@pytest.mark.parametrize("step_s", [0, -3600, 3600])
def test_messages_are_published_on_time_also_after_the_clock_was_set(redis_url, step_s):
    clock, publisher = FakeClock(waits=False), Published()
    parking, other = (StoreParking(redis_url, publisher, keys=Keys(), clock=clock, name="w") for _ in range(2))
    parking.tend()
    clock.step(step_s)
    other.park([(Delivery(1, "q", envelope(build("t", "1"), queue="q")), clock.ms + 2_000)])
    clock.advance(1.9)
    parking.tend()
    assert publisher.ids == []
    clock.advance(1.1)
    parking.tend()
    assert publisher.ids == ["1"]
    for each in (parking, other):
        each.close()
