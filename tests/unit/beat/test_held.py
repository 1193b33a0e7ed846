"""Entries that are held back: what their number costs."""

import time

from beatd.beat.held import Held


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
