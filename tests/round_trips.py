"""A TCP proxy that counts sequential round trips, as a slow link would make a client wait for them.

A round trip begins with a request and ends when its reply is delivered; opening a connection takes one, too. Each
request is numbered: one more than the last reply that any connection had received when it was sent (a Lamport clock).
So requests that are under way together share a number, and the highest number is how many round trips a client waited
for. ``delay`` (s) is the time of a round trip; without one, requests that could be under way together may come one
after the other, and the number is an upper bound. With ``at_once`` it is exact: the replies of a round trip wait until
so many requests of it have come.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

LOOKS = 10
"""Looks in a row, two milliseconds apart, at which no thread of the client runs before the next reply is delivered."""


class RoundTrips:
    """Listens on a ``port`` of its own and forwards to ``target`` on this host."""

    def __init__(self, target: int, *, delay: float = 0.0, at_once: int = 1) -> None:
        self.port = 0
        self.requests: list[tuple[int, int, bytes]] = []
        """Requests in order: number of the round trip, number of the connection, bytes. Empty bytes: it was opened."""
        self._target = target
        self._delay, self._at_once = delay, at_once
        self._finished = 0
        self._open: dict[int, int] = {}
        """By connection: the number of the request that has no reply yet."""
        self._connections = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="round-trips", daemon=True)
        self.client: int | None = None
        """The process of the client, if replies are to wait while one of its threads runs, or waits for a processor: it
        may be about to send a request, which belongs to the round trip that is under way."""

    def __enter__(self) -> RoundTrips:
        self._thread.start()
        self._server = self._do(lambda: asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(self, *_: object) -> None:
        self._do(self._end)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    def until(self, mark: bytes) -> int | None:
        """Return the number of the round trip of the first request that contains ``mark``; None if there is none."""
        return next((number for number, _, data in list(self.requests) if mark in data), None)

    def exchanges_until(self, mark: bytes) -> int | None:
        """Return how many requests were made on one connection, in order, up to the first that contains ``mark``.

        The count is that of the connection that carries the mark; opening it counts, too. It does not depend on what
        other connections do meanwhile.
        """
        last = next((index for index, request in enumerate(self.requests) if mark in request[2]), None)
        if last is None:
            return None
        return sum(connection == self.requests[last][1] for _, connection, _ in self.requests[: last + 1])

    def listing(self) -> str:
        """Return the requests in words, for a test that fails."""
        return "\n".join(f"{number:3} #{connection} {data[:300]!r}" for number, connection, data in self.requests)

    def _do(self, make: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        return asyncio.run_coroutine_threadsafe(make(), self._loop).result(5)

    async def _end(self) -> None:
        self._server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0.01)  # sockets are closed by callbacks of the loop

    async def _serve(self, from_client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        self._connections += 1
        connection, opened = self._connections, self._ask(self._connections, b"")
        with contextlib.ExitStack() as opened_here, contextlib.suppress(OSError):
            opened_here.callback(to_client.transport.abort)
            await self._until_idle()
            from_server, to_server = await asyncio.open_connection("127.0.0.1", self._target)
            opened_here.callback(to_server.transport.abort)
            await asyncio.sleep(self._delay)
            await self._all_asked(opened)
            self._finish(opened)
            asked = [opened]
            replies: asyncio.Queue[tuple[float, int, bytes]] = asyncio.Queue()
            work = (
                self._carry_requests(from_client, to_server, connection, asked),
                self._receive(from_server, replies, asked),
                self._deliver(replies, to_client, connection),
            )
            await asyncio.gather(*work)

    async def _carry_requests(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: int, asked: list[int]
    ) -> None:
        while data := await reader.read(1 << 20):
            asked.append(self._ask(connection, data))
            self._open[connection] = asked[-1]
            writer.write(data)
            await writer.drain()
        self._open.pop(connection, None)
        writer.close()

    async def _receive(
        self, reader: asyncio.StreamReader, replies: asyncio.Queue[tuple[float, int, bytes]], asked: list[int]
    ) -> None:
        while data := await reader.read(1 << 20):
            await replies.put((time.monotonic() + self._delay, asked[-1], data))
        await replies.put((0.0, 0, b""))

    async def _deliver(
        self, replies: asyncio.Queue[tuple[float, int, bytes]], writer: asyncio.StreamWriter, connection: int
    ) -> None:
        while (reply := await replies.get())[2]:
            deliver_at, number, data = reply
            await self._until_idle(deliver_at)
            await asyncio.sleep(max(deliver_at - time.monotonic(), 0.0))
            await self._all_asked(number)
            await self._earlier_ones(number)
            self._open.pop(connection, None)
            self._finish(number)
            writer.write(data)
            await writer.drain()
        writer.close()

    async def _earlier_ones(self, number: int) -> None:
        """Wait until requests of earlier round trips have their replies, a second at most: a client has timeouts.

        A worker that is asked something may take its time: what the client does after that reply is no round trip more.
        """
        until = time.monotonic() + 1
        while min(self._open.values(), default=number) < number and time.monotonic() < until:
            await asyncio.sleep(0.002)

    async def _all_asked(self, number: int) -> None:
        """Wait until all requests of a round trip have come, ten seconds at most: fewer may be made."""
        until = time.monotonic() + 10
        while sum(asked == number for asked, _, _ in self.requests) < self._at_once and time.monotonic() < until:
            await asyncio.sleep(0.002)

    def _ask(self, connection: int, data: bytes) -> int:
        number = self._finished + 1
        self.requests.append((number, connection, data))
        return number

    def _finish(self, number: int) -> None:
        self._finished = max(self._finished, number)

    async def _until_idle(self, at: float = 0.0) -> None:
        """Wait until that moment, and until the client has had nothing to do for a while; a second at most.

        One look is not enough: when a thread waits for what another one has just done, no one runs for a moment.
        """
        await asyncio.sleep(max(at - time.monotonic(), 0.0))
        until, idle = time.monotonic() + 1, 0
        while self.client is not None and idle < LOOKS and time.monotonic() < until:
            idle = 0 if self._is_busy() else idle + 1
            await asyncio.sleep(0.002)

    def _is_busy(self) -> bool:
        """Whether a thread of the client runs, or waits for a processor or a disk."""
        if self.client is None:
            return False
        states = set()
        with contextlib.suppress(OSError):  # threads end, and so do processes
            for thread in Path(f"/proc/{self.client}/task").iterdir():
                states.add((thread / "stat").read_text().rpartition(") ")[2][:1])
        return not states.isdisjoint("RD")
