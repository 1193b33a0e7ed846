"""Asking workers: answers of all who received a command end the wait, where the broker tells how many they are."""

from beatd.broker.bus.base import BusMessage, Names
from beatd.broker.bus.client import ControlClient

FOR_EVER_S = 3600.0
"""A wait that no test would see the end of."""


class Bus:
    """A bus with two workers, that answer at the second look."""

    def __init__(self, received: int | None, answers: int) -> None:
        self.received, self.answers = received, [BusMessage({f"w{n}@host": "pong"}, {}) for n in range(answers)]

    def connect(self, **_):
        """Nothing to connect."""

    def close(self):
        """Nothing to close."""

    def files(self):
        return ()

    def broadcast(self, _):
        return self.received

    def replies(self, at_most):
        return [self.answers.pop()] if self.answers else []


def asked(bus, timeout, limit=None):
    with ControlClient(bus, Names("celery")) as client:
        return len(list(client.ask(BusMessage({}, {}), timeout, limit)))


def test_answers_of_all_who_received_it_end_the_wait():
    assert asked(Bus(2, 2), FOR_EVER_S) == 2


def test_nobody_is_waited_for_where_nobody_received_it():
    assert asked(Bus(0, 0), FOR_EVER_S) == 0


def test_an_answer_too_many_is_taken():
    assert asked(Bus(1, 2), FOR_EVER_S) == 2


def test_without_a_number_the_timeout_or_the_limit_ends_the_wait():
    assert asked(Bus(None, 2), 0.01) == 2
    assert asked(Bus(None, 3), FOR_EVER_S, limit=2) == 2
