"""Entries that are held back: what their number costs, and what is said of them."""

import logging
import time

from beatd.beat.held import SAID_ONE_BY_ONE, Held
from beatd.beat.term import Term


def test_thousands_that_are_held_back_for_one_queue_are_released_at_once():
    """Runs of other entries wait meanwhile. The first that works again tells the others, and not each of them again."""
    held, names = Held(), [f"e{number}" for number in range(20_000)]
    for name in names:
        held.hold_for(name, "the queue refuses", 0, cause="q")
    held.try_now(names[:10_000])
    began = time.process_time()
    held.succeeded(names[:10_000], 500)
    assert time.process_time() - began < 3
    assert len(held) == 10_000
    assert len(held.due(500)) > 0, "the others are tried although their pause is not over"


def test_of_thousands_that_are_held_back_at_once_some_are_named_and_all_are_counted(caplog):
    held, term = Held(), Term(1, "d:1", 1e18)
    caplog.set_level(logging.INFO)
    for number in range(5_000):
        held.hold_for(f"e{number}", "the queue refuses", 0, cause="q")
    held.note(term, 0)
    events = [record.event for record in caplog.records]
    assert events == ["entry_failed"] * SAID_ONE_BY_ONE + ["entries_failed"]
    assert (caplog.records[-1].count, caplog.records[-1].levelno) == (5_000, logging.ERROR)
    assert caplog.messages[-1] == "5000 entries were held back, or held back again, at once"
    caplog.clear()
    held.note(term, 1_000)
    assert caplog.messages == [], "each turn says what is new in it"
