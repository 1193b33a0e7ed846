"""Dead letters: messages that could not be run or delivered, each with the reason.

The newest are kept, :data:`KEPT` of them and :data:`KEPT_BYTES`.

A letter is one JSON document in a list. Nothing in it is changed ever, so that its text is its identity: whoever takes
a letter out of the list, for the queue or for good, is the only one who does.
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
from beatd.store.client import translate_errors
from beatd.store.keys import Keys
from beatd.store.script import Script

KEPT = 10_000
"""Letters that are kept."""
KEPT_BYTES = 64 << 20
"""Bytes of letters that are kept."""
MESSAGE_MAX = 8 << 20
"""Bytes of the largest message that is kept whole; of a larger one the first :data:`HEAD` are."""
HEAD = 64 << 10
REASON_MAX = 2_000
"""Characters of a reason that are kept: it may quote the message."""
BOUNDS = (KEPT, KEPT_BYTES)

_PAGE = 100
_LOCK_MS = 30_000
_LOCK_WITHIN_S = 10.0


class DeadLetter(NamedTuple):
    """One letter."""

    raw: bytes
    """As it is in the list."""
    reason: str
    queue: str
    """Where its message came from, or was to go: on Redis the key of a list."""
    at: str
    """Since when it is one, ISO 8601."""
    worker: str
    """Who could not run it; empty: the daemon could not deliver it."""
    message: bytes
    """The message as it was, or its first bytes."""
    size: int
    """Bytes that the message had."""

    @property
    def whole(self) -> bool:
        """Whether the message can be sent again: all of it was kept."""
        return self.size <= len(self.message)

    @property
    def id(self) -> str:
        """Twelve characters by which people name it."""
        return hashlib.sha256(self.raw).hexdigest()[:12]


class _Document(msgspec.Struct, frozen=True):
    reason: str = ""
    queue: str = ""
    at: str = ""
    worker: str = ""
    message: str | None = None
    message_base64: str = ""
    size: int = 0


_decode = msgspec.json.Decoder(_Document).decode
_encode = msgspec.json.Encoder().encode


def written(message: bytes, *, reason: str, queue: str, at: str, worker: str = "") -> bytes:
    """A letter for the list; a message that is no text is kept as base64, and one that is too large only in part."""
    facts: dict[str, Any] = {
        "reason": reason[:REASON_MAX],
        "queue": queue,
        "at": at,
        **({"worker": worker} if worker else {}),
    }
    if len(message) > MESSAGE_MAX:
        facts["size"] = len(message)
        message = message[:HEAD]
    try:
        return _encode({**facts, "message": message.decode()})
    except UnicodeDecodeError:
        return _encode({**facts, "message_base64": base64.b64encode(message).decode("ascii")})


def read(raw: bytes) -> DeadLetter:
    """The letter in an element of the list; what somebody else has put there is one, too, and says so."""
    try:
        found = _decode(raw)
        message = base64.b64decode(found.message_base64) if found.message is None else found.message.encode()
    except (msgspec.MsgspecError, binascii.Error, RecursionError):
        return DeadLetter(raw, "not a letter of beatd", "", "", "", raw, len(raw))
    size = max(found.size, len(message))
    return DeadLetter(raw, found.reason, found.queue, found.at, found.worker, message, size)


class DeadLetters:
    """The letters on one server. Raises the errors of :mod:`beatd.store.client`."""

    def __init__(self, client: redis.Redis, keys: Keys) -> None:
        self._client = client
        shared = keys.workers()
        self._key = shared.dead_letters
        self._keys = [shared.dead_letters, shared.dead_letters_size]
        self._lock = keys.workers().requeueing
        self._add = Script(client, "add_letters")
        self._remove = Script(client, "remove_letters")
        self._requeue = Script(client, "requeue_letters")

    def add(self, letters: Sequence[bytes]) -> None:
        """Keep further letters, see :func:`written`."""
        self._add(self._keys, [*BOUNDS, *letters])

    def count(self) -> int:
        with translate_errors(self._client):
            return int(self._client.llen(self._key))

    def __iter__(self) -> Iterator[DeadLetter]:
        """All of them, the newest first; some at a time, from the list as it is when they are asked for."""
        start = 0
        while True:
            with translate_errors(self._client):
                page: Any = self._client.lrange(self._key, start, start + _PAGE - 1)
            yield from map(read, page)
            if len(page) < _PAGE:
                return
            start += _PAGE

    def remove(self, letters: Sequence[DeadLetter]) -> int:
        """Take these out for good; returns how many were still there."""
        pages = (letters[start : start + _PAGE] for start in range(0, len(letters), _PAGE))
        return sum(int(self._remove(self._keys, [letter.raw for letter in page])) for page in pages)

    def requeue(self, letters: Sequence[DeadLetter]) -> int:
        """Put the messages into their queues on this same server; returns how many letters were still there."""
        count = 0
        for start in range(0, len(letters), _PAGE):
            some = letters[start : start + _PAGE]
            words = [word for letter in some for word in (letter.raw, letter.message)]
            count += sum(self._requeue([*self._keys, *(letter.queue for letter in some)], words))
        return count

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Nobody else sends letters again meanwhile, for half a minute at most.

        For brokers that are another server, where sending and taking out are two steps. Raises
        :class:`StoreUnavailable` if somebody else does not come to an end.
        """
        me, deadline = uuid.uuid4().hex, monotonic() + _LOCK_WITHIN_S
        while True:
            with translate_errors(self._client):
                if self._client.set(self._lock, me, nx=True, px=_LOCK_MS):
                    break
            if monotonic() > deadline:
                raise StoreUnavailable("somebody else is sending dead letters again; try later")
            sleep(0.1)
        try:
            yield
        finally:
            with translate_errors(self._client):
                if self._client.get(self._lock) == me.encode():
                    self._client.delete(self._lock)
