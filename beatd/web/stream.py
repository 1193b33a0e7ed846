"""Stream of changes (server-sent events): tells open pages to refresh when something has changed.

One look at the store serves all listeners, whose number is bounded: a page without a stream asks by itself.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator

import anyio
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from beatd.web.store_view import StoreView

LISTENERS_MAX = 64
LOOK_S = 1.0
"""Seconds between two looks while anybody listens."""
TICK_S = 10.0
"""After so long pages refresh in any case: what they say is relative to now."""
_VOLATILE = ("seen_ms_ago", "turned_ms_ago", "clock_offset_ms", "lease_ms")


class Stream:
    """The changes of an installation."""

    def __init__(self, store: StoreView) -> None:
        self._store = store
        self._listeners = 0
        self._version = ""
        self._changed = asyncio.Condition()
        self._task: asyncio.Task[None] | None = None

    def open(self, request: Request) -> Response:
        """A stream for one listener; HTTPException 503 when there are too many."""
        if self._listeners >= LISTENERS_MAX:
            raise HTTPException(503, "too many pages listen; ask again later", {"Retry-After": "30"})
        headers = {"X-Accel-Buffering": "no"}
        return StreamingResponse(self._events(request), media_type="text/event-stream", headers=headers)

    async def _events(self, request: Request) -> AsyncIterator[str]:
        self._listeners += 1
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._look())
        try:
            yield "retry: 5000\n\n"
            while not await request.is_disconnected():
                yield f"event: change\ndata: {await self._next()}\n\n"
        finally:
            self._listeners -= 1

    async def _next(self) -> str:
        """The version after the next change, or after some seconds."""
        async with self._changed:
            try:
                await asyncio.wait_for(self._changed.wait(), TICK_S)
            except TimeoutError:
                return "tick"
        return self._version

    async def _look(self) -> None:
        while self._listeners:
            version = await anyio.to_thread.run_sync(self._fingerprint)
            if version != self._version:
                self._version = version
                async with self._changed:
                    self._changed.notify_all()
            await asyncio.sleep(LOOK_S)

    def _fingerprint(self) -> str:
        try:
            status = self._store.status()
            revision, summaries = self._store.mirror().revision, self._store.summaries()
        except Exception as error:  # noqa: BLE001 - the pages show it, and the stream goes on
            return hashlib.sha256(repr(error).encode(errors="replace")).hexdigest()[:16]
        last = max((one.end_ms for one in summaries.values()), default=0)
        text = json.dumps([_lasting(status), revision, last, len(summaries)], default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def _lasting(value: object) -> object:
    """The document without the fields that change at every read."""
    if isinstance(value, dict):
        return {key: _lasting(each) for key, each in value.items() if key not in _VOLATILE}
    return [_lasting(each) for each in value] if isinstance(value, list | tuple) else value
