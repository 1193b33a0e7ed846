"""The rest between two looks of the notifier."""

from types import SimpleNamespace

from beatd.beat.notifier import LOOK_S, Notifier
from beatd.exceptions import StoreUnavailable
from tests.fakes import FakeClock


class Waits:
    """An event that notes for how long it is waited for, and is set in the end."""

    def __init__(self, number):
        self.seconds, self._number = [], number

    def wait(self, seconds):
        self.seconds.append(seconds)
        return len(self.seconds) > self._number


def notifier_of(clock, waits, look):
    sender = SimpleNamespace(stop=lambda: None, is_busy=False)
    found = Notifier(None, None, None, None, lambda _: sender, entry=None, place="", clock=clock, check_nodes=None)
    found._stopping, found.look = waits, look
    return found


def test_a_process_that_was_stopped_in_the_middle_of_a_look_is_not_silent_for_a_day():
    clock, waits = FakeClock(), Waits(2)
    notifier_of(clock, waits, lambda: clock.advance(3_600))._run()
    assert waits.seconds == [LOOK_S, 60.0, 60.0]


def test_an_error_while_it_tells_that_the_store_is_away_does_not_end_it(caplog):
    def away():
        raise StoreUnavailable("away")

    clock, waits = FakeClock(), Waits(3)
    found = notifier_of(clock, waits, away)
    found._store_is_away = lambda error: 1 / 0
    found._run()
    assert len(waits.seconds) == 4
    assert [record.event for record in caplog.records] == ["notify_error"] * 3
