"""The stream of changes: listeners are told of each, whatever happens to a look in between."""

import asyncio

from beatd.store.outcomes import Summary
from beatd.web import stream
from beatd.web.stream import Stream


class Store:
    """A store that is another one at each look, and of which one look fails as no store does."""

    def __init__(self, failing):
        self.looks, self.failing, self.revision = 0, failing, 1

    def status(self):
        self.looks += 1
        if self.looks == self.failing:
            raise RuntimeError("can't start new thread")
        return {"outbox": self.looks}

    def mirror(self):
        return self

    def summaries(self):
        return {"tick": Summary(1, None, 1, 0, "success")}


class Listener:
    async def is_disconnected(self):
        return False


def test_an_error_that_is_none_of_the_store_does_not_end_the_stream(monkeypatch):
    monkeypatch.setattr(stream, "LOOK_S", 0.01)
    monkeypatch.setattr(stream, "TICK_S", 5.0)

    async def listen():
        events = Stream(Store(failing=3))._events(Listener())
        told = [await anext(events) for _ in range(6)]
        await events.aclose()
        return told

    first, *changes = asyncio.run(listen())
    assert first.startswith("retry:")
    assert not any("data: tick" in change for change in changes)
    assert len({*changes}) == len(changes)
