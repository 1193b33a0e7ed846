"""Client of remote control: sends a command to workers, and returns their answers."""

from __future__ import annotations

import select
import uuid
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from beatd.broker.bus.base import Bus, BusMessage, Names
from beatd.clock import monotonic

_PATIENCE_S = 1.0
"""How long to wait at once: the answers are looked for even if nothing seems to have come."""
_GRACE_S = 0.1
"""How long to wait for more when all who received a command have answered."""


def command_body(
    command: str,
    arguments: dict[str, Any],
    destination: Sequence[str] | None = None,
    pattern: str | None = None,
    matcher: str | None = None,
) -> dict[str, Any]:
    """The body of a command, for all nodes, some by name, or those whose names fit."""
    return {
        "method": command,
        "arguments": arguments,
        "destination": None if destination is None else list(destination),
        "pattern": pattern if matcher else None,
        "matcher": matcher if pattern else None,
    }


class ControlClient:
    """A bus that is connected for the length of a ``with``."""

    def __init__(self, bus: Bus, names: Names) -> None:
        self._bus = bus
        self._names = names

    def __enter__(self) -> ControlClient:
        try:
            self._bus.connect()
        except BaseException:
            self._bus.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._bus.close()

    def tell(self, message: BusMessage) -> None:
        """Send a command that needs no answer."""
        self._bus.broadcast(message)

    def ask(self, message: BusMessage, timeout: float, limit: int | None) -> Iterator[BusMessage]:
        """Send a command; the answers, until there is none for ``timeout`` seconds or there are ``limit``.

        Where the broker tells how many have received it, their answers are enough.
        """
        oid, ticket = str(uuid.uuid4()), str(uuid.uuid4())
        self._bus.connect(oid=oid)
        received = self._bus.broadcast(addressed(message, self._names, oid, ticket))

        def patience(count: int) -> float:
            return timeout if received is None or count < received else min(timeout, _GRACE_S)

        count, until = 0, monotonic() + patience(0)
        while count != limit and (left := until - monotonic()) > 0:
            wait_for(self._bus.files(), min(left, _PATIENCE_S))
            for answer in self._bus.replies(100):
                if answer.headers.get("ticket", ticket) == ticket and count != limit:
                    count += 1
                    until = monotonic() + patience(count)
                    yield answer


def addressed(message: BusMessage, names: Names, oid: str, ticket: str) -> BusMessage:
    """The command with where its answers are to go."""
    address = {"exchange": names.replies, "routing_key": oid}
    return BusMessage({**message.body, "ticket": ticket, "reply_to": address}, message.headers)


def wait_for(files: Iterable[int], seconds: float) -> None:
    """Wait until one of them is readable, or for so long."""
    poll = select.poll()
    for file in files:
        poll.register(file, select.POLLIN)
    poll.poll(seconds * 1000)
