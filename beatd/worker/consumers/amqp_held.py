"""What a worker holds of RabbitMQ's messages, and what it knows again when a line broke and they are delivered anew."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import NamedTuple

from beatd.broker.deliveries import Content
from beatd.worker.consumers.amqp_line import Line
from beatd.worker.messages import Delivery

_REMEMBERED = 5_000
_BELIEVED_S = 60.0
"""What a broken line had been told counts for so long after the next one began: later it may have been sent anew."""

Identity = tuple[str, str, str]


class _Message(NamedTuple):
    """The line that it came by, its delivery tag there, and what it is known by."""

    line: Line | None
    number: int
    identity: Identity


class Held:
    """The messages that were delivered and not settled, by this worker's tags, in the order of delivery."""

    def __init__(self) -> None:
        self._messages: dict[int, _Message] = {}
        self._orphans: dict[Identity, int] = {}
        """Of broken lines, at work here: their tags."""
        self._acked: dict[Identity, None] = {}
        """Acknowledged on this line: whether the broker has read that, nobody knows when the line breaks."""
        self._done: dict[Identity, None] = {}
        """Acknowledged on the line before, or when there was none."""
        self._believed_until = math.inf
        self._tag = 0

    def __len__(self) -> int:
        return len(self._messages)

    def add(self, line: Line, content: Content) -> int | None:
        """Note a delivery; returns its tag. None for what is known already: at work here, or done with."""
        headers = content.properties.get("headers") or {}
        identity = (str(headers.get("id", "")), str(headers.get("retries")), str(headers.get("eta")))
        if content.redelivered and identity[0] and self._reunite(line, content, identity):
            return None
        self._tag += 1
        self._messages[self._tag] = _Message(line, content.tag, identity)
        return self._tag

    def note_done(self, deliveries: Sequence[Delivery]) -> None:
        """These have been run, or begun: should they come again, they are not run again."""
        for one in deliveries:
            if message := self._messages.get(one.tag):
                self._acked[message.identity] = None
                if len(self._acked) > _REMEMBERED:
                    del self._acked[next(iter(self._acked))]

    def release(self, deliveries: Sequence[Delivery], line: Line | None) -> list[int]:
        """Hold these no longer; returns the delivery tags of those that ``line`` knows, ascending."""
        numbers = []
        for one in deliveries:
            message = self._messages.pop(one.tag, None)
            if message is None:
                continue
            if line is not None and message.line is line:
                numbers.append(message.number)
            elif message.identity in self._acked:
                self._done[message.identity] = None  # the broker is told when it comes again
        return sorted(numbers)

    def oldest(self, line: Line) -> float:
        """The smallest delivery tag that is held of that line; infinite if there is none."""
        return next((message.number for message in self._messages.values() if message.line is line), math.inf)

    def break_off(self, not_begun: Sequence[Delivery]) -> None:
        """The line is gone. What has not begun here comes again and is taken as new."""
        for one in not_begun:
            self._messages.pop(one.tag, None)
        self._messages = {tag: message._replace(line=None) for tag, message in self._messages.items()}
        self._orphans = {message.identity: tag for tag, message in self._messages.items()}
        self._done, self._acked = self._acked, {}
        self._believed_until = math.inf

    def begin(self) -> None:
        """There is a line again."""
        self._believed_until = time.monotonic() + _BELIEVED_S

    def _reunite(self, line: Line, content: Content, identity: Identity) -> bool:
        if identity in self._done and time.monotonic() < self._believed_until:
            del self._done[identity]
            line.ack(content.tag, multiple=False)
            return True
        tag = self._orphans.pop(identity, None)
        if tag is None or self._messages.pop(tag, None) is None:
            return False
        self._messages[tag] = _Message(line, content.tag, identity)  # at the end: the numbers in it only grow
        return True
