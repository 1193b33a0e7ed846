"""A shared value: read once for all who ask at about the same time, with its errors."""

import pytest

from beatd.exceptions import StoreUnavailable
from beatd.web.shared import Shared
from tests.fakes import FakeClock


class Source:
    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.reads = 0
        self.takes = 0.0
        self.error: Exception | None = None

    def read(self) -> int:
        self.reads += 1
        self.clock.advance(self.takes)
        if self.error is not None:
            raise self.error
        return self.reads


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def source(clock: FakeClock) -> Source:
    return Source(clock)


def test_a_value_is_read_once_in_its_time(clock: FakeClock, source: Source) -> None:
    shared = Shared(source.read, clock, 0.5)
    assert [shared(), shared()] == [1, 1]
    clock.advance(0.6)
    assert shared() == 2


def test_a_value_that_took_long_holds_for_as_long(clock: FakeClock, source: Source) -> None:
    shared, source.takes = Shared(source.read, clock, 0.5), 3.0
    shared()
    clock.advance(2.9)
    assert shared() == 1
    clock.advance(0.2)
    assert shared() == 2


def test_an_error_is_shared_and_ends(clock: FakeClock, source: Source) -> None:
    shared, source.error = Shared(source.read, clock, 0.5, error=StoreUnavailable), StoreUnavailable("down")
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match="down"):
            shared()
    assert source.reads == 1
    clock.advance(0.6)
    source.error = None
    assert shared() == 2


def test_another_error_is_for_one_alone(clock: FakeClock, source: Source) -> None:
    shared, source.error = Shared(source.read, clock, 0.5, error=StoreUnavailable), ValueError("defect")
    for _ in range(2):
        with pytest.raises(ValueError, match="defect"):
            shared()
    assert source.reads == 2


def test_a_forgotten_value_is_read_again(clock: FakeClock, source: Source) -> None:
    shared = Shared(source.read, clock, 0.5)
    shared()
    shared.forget()
    assert shared() == 2
