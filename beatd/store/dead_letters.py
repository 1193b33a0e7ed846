"""Dead letters: messages that could not be run or delivered, each with the reason. The one definition and writer.

The newest are kept, within :class:`Bounds`.

A dead letter is one JSON document in a list. It never changes, so its text is its identity: it can be removed from the
list, for its queue or for good, only once.

The list itself is changed by the functions of ``lua/_prelude.lua``, also where a message becomes a dead letter in the
same step in which it leaves the outbox or the unacknowledged messages of a worker.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import msgspec
import redis

from beatd.clock import monotonic, sleep
from beatd.exceptions import StoreUnavailable
from beatd.redaction import encodable
from beatd.store.client import translate_errors
from beatd.store.keys import Keys
from beatd.store.script import Script

REASON_MAX = 2_000
"""Characters of a reason that are kept: it may quote the message."""

_PAGE = 100
_LOCK_MS = 30_000
_LOCK_WITHIN_S = 10.0


class Bounds(NamedTuple):
    """Limits of the list of dead letters, and of one message in it."""

    kept: int = 10_000
    """Number of dead letters that are kept."""
    kept_bytes: int = 64 << 20
    """Bytes of dead letters that are kept."""
    whole_bytes: int = 8 << 20
    """Bytes of the largest message that is kept whole."""
    head_bytes: int = 64 << 10
    """Bytes that are kept of a larger message: the first ones."""


BOUNDS = Bounds()


class DeadLetter(NamedTuple):
    """One dead letter."""

    raw: bytes
    """As it is in the list."""
    reason: str
    queue: str
    """Queue that its message came from, or was to go to: on Redis the list of a priority, without a prefix."""
    at: str
    """Instant at which it became one, ISO 8601."""
    worker: str
    """Worker that could not run it; empty: the daemon could not deliver it."""
    message: bytes
    """The message, or its first bytes."""
    size: int
    """Bytes that the message had."""

    @property
    def whole(self) -> bool:
        """True if the message can be sent again: all of it was kept."""
        return self.size <= len(self.message)

    @property
    def id(self) -> str:
        """Short id for people: twelve characters."""
        return hashlib.sha256(self.raw).hexdigest()[:12]


class _Document(msgspec.Struct, frozen=True):
    reason: str = ""
    queue: str = ""
    at: str = ""
    worker: str = ""
    message: str | None = None
    message_base64: str = ""
    size: int = 0


_DECODER = msgspec.json.Decoder(_Document)
_ENCODER = msgspec.json.Encoder()


def encode(message: bytes, *, reason: str, queue: str, at: str, worker: str = "", bounds: Bounds = BOUNDS) -> bytes:
    """Return the dead letter as it is stored: a message that is no text as base64, a large one only in part."""
    facts: dict[str, Any] = {
        "reason": encodable(reason[:REASON_MAX]),
        "queue": encodable(queue),
        "at": at,
        **({"worker": worker} if worker else {}),
    }
    if len(message) > bounds.whole_bytes:
        facts["size"] = len(message)
        message = message[: bounds.head_bytes]
    try:
        return _ENCODER.encode({**facts, "message": message.decode()})
    except UnicodeDecodeError:
        return _ENCODER.encode({**facts, "message_base64": base64.b64encode(message).decode("ascii")})


def decode(raw: bytes) -> DeadLetter:
    """Return the dead letter in an element of the list; a foreign element becomes one with that as its reason."""
    try:
        document = _DECODER.decode(raw)
        text = document.message
        message = base64.b64decode(document.message_base64) if text is None else text.encode()
    except (msgspec.MsgspecError, binascii.Error, RecursionError):
        return DeadLetter(raw, "not a letter of beatd", "", "", "", raw, len(raw))
    size = max(document.size, len(message))
    return DeadLetter(raw, document.reason, document.queue, document.at, document.worker, message, size)


class DeadLetters:
    """The dead letters on one server. Raises the errors of :mod:`beatd.store.client`."""

    def __init__(self, client: redis.Redis, keys: Keys, *, bounds: Bounds = BOUNDS, queue_prefix: str = "") -> None:
        """``queue_prefix`` is before the keys of queues on this server."""
        self._client = client
        self._queue_prefix = queue_prefix
        self._bounds = bounds
        shared = keys.workers()
        self._key = shared.dead_letters
        self._keys = [shared.dead_letters, shared.dead_letters_size]
        self._lock = shared.requeueing
        self._add = Script(client, "add_letters")
        self._remove = Script(client, "remove_letters")
        self._requeue = Script(client, "requeue_letters")

    def add(self, letters: Sequence[bytes]) -> None:
        """Add dead letters, see :func:`encode`."""
        self._add(self._keys, [self._bounds.kept, self._bounds.kept_bytes, *letters])

    def count(self) -> int:
        """Return the number of dead letters."""
        with translate_errors(self._client):
            return int(self._client.llen(self._key))

    def __iter__(self) -> Iterator[DeadLetter]:
        """Iterate over all dead letters, the newest first; each page is read from the list as it is then."""
        start = 0
        while True:
            with translate_errors(self._client):
                page: Any = self._client.lrange(self._key, start, start + _PAGE - 1)
            yield from map(decode, page)
            if len(page) < _PAGE:
                return
            start += _PAGE

    def remove(self, letters: Sequence[DeadLetter]) -> int:
        """Remove dead letters for good; returns how many were still there."""
        pages = (letters[start : start + _PAGE] for start in range(0, len(letters), _PAGE))
        return sum(int(self._remove(self._keys, [letter.raw for letter in page])) for page in pages)

    def requeue(self, letters: Sequence[DeadLetter]) -> int:
        """Put the messages back into their queues on this server; returns how many dead letters were still there."""
        return sum(outcome is True for outcome in self.requeued(letters))

    def requeued(self, letters: Sequence[DeadLetter]) -> list[bool | str]:
        """Do the same; returns for each dead letter whether it was still there, or why its queue refuses the message:
        then it stays."""
        outcomes = list[bool | str]()
        for start in range(0, len(letters), _PAGE):
            page = letters[start : start + _PAGE]
            args = [arg for letter in page for arg in (letter.raw, letter.message)]
            queues = (f"{self._queue_prefix}{letter.queue}" for letter in page)
            answers = self._requeue([*self._keys, *queues], args)
            outcomes += (one.decode() if isinstance(one, bytes) else bool(one) for one in answers)
        return outcomes

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Lock, held for half a minute at most: no other process requeues dead letters meanwhile.

        For brokers that are another server, where sending and removing are two steps. Raises
        :class:`StoreUnavailable` if the lock is not free in time.
        """
        owner, deadline = uuid.uuid4().hex, monotonic() + _LOCK_WITHIN_S
        while True:
            with translate_errors(self._client):
                if self._client.set(self._lock, owner, nx=True, px=_LOCK_MS):
                    break
            if monotonic() > deadline:
                raise StoreUnavailable("another process is requeueing dead letters; try again later")
            sleep(0.1)
        try:
            yield
        finally:
            with translate_errors(self._client):
                if self._client.get(self._lock) == owner.encode():
                    self._client.delete(self._lock)
