"""A TCP proxy that misbehaves on demand: the network between a daemon and a server, or between servers."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine
from typing import Any

MODES = ("pass", "stall", "refuse", "deaf", "slow")
"""``stall`` keeps connections open and forwards nothing; what was sent meanwhile arrives when it passes again.
``refuse`` resets connections and takes no new ones, ``deaf`` carries requests and swallows the answers (whoever asked
cannot know that he was heard), ``slow`` delays everything, each way."""


class Proxy:
    """Listens on a port of its own and forwards to ``port`` of this host. ``mode`` may be set from any thread."""

    def __init__(self, port: int = 0) -> None:
        self.port = 0
        self.target = port
        self.delay = 1.0
        """Seconds that ``slow`` adds to each way."""
        self._mode = "pass"
        self._barred: Callable[[str], bool] = lambda _: False
        self._passing = asyncio.Event()
        self._writers: dict[asyncio.StreamWriter, str] = {}
        """What is open, and the address from where it was opened."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)

    def __enter__(self) -> Proxy:
        self._thread.start()
        self._server = self._do(lambda: asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port = self._server.sockets[0].getsockname()[1]
        self.mode = "pass"
        return self

    def __exit__(self, *_: object) -> None:
        self._do(self._end)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    @property
    def mode(self) -> str:
        return self._mode

    @mode.setter
    def mode(self, mode: str) -> None:
        assert mode in MODES
        if mode == "refuse" or self._mode == "deaf":  # TCP leaves out nothing in the midst of a connection
            self._loop.call_soon_threadsafe(self._reset)
        self._mode = mode
        self._loop.call_soon_threadsafe(self._passing.clear if mode == "stall" else self._passing.set)

    def bar(self, barred: Callable[[str], bool]) -> None:
        """Abort connections, and take no new ones, from addresses for which ``barred`` is true."""
        self._barred = barred
        self._loop.call_soon_threadsafe(self._reset, barred)

    def _reset(self, chosen: Callable[[str], bool] = lambda _: True) -> None:
        """Abort what is open (RST). In the loop's thread."""
        for writer, source in tuple(self._writers.items()):
            if chosen(source):
                writer.transport.abort()

    def _do(self, make: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        return asyncio.run_coroutine_threadsafe(make(), self._loop).result(5)

    async def _end(self) -> None:
        self._server.close()
        self._reset()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, from_daemon: asyncio.StreamReader, to_daemon: asyncio.StreamWriter) -> None:
        source = to_daemon.get_extra_info("peername")[0]
        if self._mode == "refuse" or self._barred(source):
            to_daemon.transport.abort()
            return
        with contextlib.suppress(OSError):
            from_server, to_server = await asyncio.open_connection("127.0.0.1", self.target)
            self._writers |= {to_daemon: source, to_server: source}
            await asyncio.gather(
                self._carry(from_daemon, to_server, answers=False), self._carry(from_server, to_daemon, answers=True)
            )
        to_daemon.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, answers: bool) -> None:
        try:
            while data := await reader.read(65536):
                await self._passing.wait()
                if self._mode == "slow":
                    await asyncio.sleep(self.delay)
                if not (answers and self._mode == "deaf"):
                    writer.write(data)
                    await writer.drain()
        except OSError:
            pass
        finally:
            self._writers.pop(writer, None)
            writer.transport.abort() if answers else writer.close()
