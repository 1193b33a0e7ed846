"""A pause with an end: over by the store's clock, and only then; one without an end is nobody's to end but people's."""

from __future__ import annotations

import pytest

from beatd.clock import SystemClock
from beatd.store.client import connect
from beatd.store.keys import Keys
from beatd.store.runtime_entries import Pause, Runtime


@pytest.mark.parametrize(("until_ms", "over"), [(-1_000, True), (600_000, False), (None, False)])
def test_only_a_pause_that_is_over_is_ended(redis_url, until_ms, over):
    now_ms = SystemClock().now_ms()
    with connect(redis_url) as client:
        runtime = Runtime(client, Keys("beatd"))
        pause = Pause(since_ms=now_ms, by="anna", until_ms=None if until_ms is None else now_ms + until_ms)
        runtime.pause(["tick"], pause)
        assert runtime.end_pauses(["tick", "other"]) == (["tick"] if over else [])
        assert dict(runtime.pauses()) == ({} if over else {"tick": pause})
        assert runtime.resume(["tick"]) == ([] if over else ["tick"])


def test_a_note_that_is_none_is_not_ended(redis_url):
    with connect(redis_url) as client:
        runtime, keys = Runtime(client, Keys("beatd")), Keys("beatd").runtime()
        for number, note in enumerate(['{"until": "x"}', "[", "{}", '"until"', '{"until": null}']):
            client.hset(keys.paused, f"e{number}", note)
        assert runtime.end_pauses([f"e{number}" for number in range(5)]) == []
