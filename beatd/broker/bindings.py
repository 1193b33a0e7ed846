"""Bindings of queues to exchanges: which queues get a message."""

from __future__ import annotations

import logging
import re
from typing import NamedTuple

_WILDCARDS = {"*": r".*?[^\.]", "#": r".*?"}
"""Words of the keys of topics, as kombu's Redis transport has them."""


class Binding(NamedTuple):
    """A queue that gets the messages to ``exchange`` whose routing key is ``key``, a pattern for topics."""

    queue: str
    exchange: str
    key: str
    kind: str = "direct"
    durable: bool = True
    """Of the exchange."""
    auto_delete: bool = False
    """Of the queue, which is one worker's own then."""

    @property
    def pattern(self) -> str:
        """The regular expression for the keys of a topic; empty for other kinds of exchanges."""
        if self.kind != "topic":
            return ""
        words = (_WILDCARDS.get(word, word) for word in self.key.split("."))
        return "^{}$".format(r"\.".join(words))

    def takes(self, exchange: str, key: str) -> bool:
        """Return True if a message to that address comes to the queue of this binding."""
        if exchange != self.exchange or self.kind not in ("direct", "topic"):
            return False
        return bool(re.match(self.pattern, key)) if self.pattern else key == self.key


def log_not_bound(binding: Binding, error: Exception) -> None:
    """Log that the broker refuses a binding."""
    logging.getLogger("beatd.broker").warning(
        "Queue %s could not be bound to exchange %s: %s",
        binding.queue,
        binding.exchange,
        error,
        extra={"event": "queue_not_bound", "queue": binding.queue, "exchange": binding.exchange},
    )
