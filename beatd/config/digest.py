"""Schedule digests: a short text for the meaning of a schedule, by which daemons detect a mismatch."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import reduce
from hashlib import sha256
from operator import xor
from typing import Any

import msgspec

from beatd.model import Entry


class EntryHasher:
    """Makes a number of 64 bits of each entry. Where entries share schedule, options and policies, so does the work."""

    def __init__(self) -> None:
        self._shapes: dict[tuple[int, int, int], tuple[Entry, str]] = {}

    def of(self, entry: Entry) -> int:
        """The number: another one when, and only when, the entry means something else, wherever it is written."""
        key = (id(entry.schedule), id(entry.options), id(entry.policies))
        known = self._shapes.get(key)
        if known is None:
            known = self._shapes[key] = (entry, _shape(entry))  # with the entry, lest its ids are given to others
        parts = (entry.name, entry.task, entry.args, entry.kwargs, known[1])
        return int.from_bytes(sha256(_meaning(parts)).digest()[:8])


def digest(entries: Iterable[Entry]) -> str:
    """Return 16 hexadecimal digits for the meaning of a schedule: the same on every host, for any order and files."""
    return digest_of(map(EntryHasher().of, entries))


def digest_of(meanings: Iterable[int]) -> str:
    """The digest of entries with these meanings."""
    return f"{reduce(xor, meanings, 0):016x}"


def joined(*digests: str) -> str:
    """The digest of schedules that have no entry in common, taken together."""
    return digest_of(int(each, 16) for each in digests)


def _shape(entry: Entry) -> str:
    blackout = entry.policies.blackout
    policies = msgspec.structs.replace(entry.policies, blackout=None)
    parts = (entry.schedule.fingerprint, entry.timezone, entry.options, policies, blackout and blackout.notation)
    return sha256(_meaning(parts, _compact)).hexdigest()


def _compact(parts: tuple[Any, ...]) -> tuple[Any, ...]:
    """The parts, with structs as short maps: those of more than 15 fields have a long header in msgspec, so that a new
    field would change every digest."""
    return tuple(msgspec.Raw(_short(_encode(part))) if isinstance(part, msgspec.Struct) else part for part in parts)


def _short(encoded: bytes) -> bytes:
    if encoded[:2] != b"\xde\x00" or encoded[2] > 15:
        return encoded
    return bytes([0x80 | encoded[2]]) + encoded[3:]


def _meaning(value: Any, prepared: Callable[[Any], Any] | None = None) -> bytes:
    try:
        return _encode(prepared(value) if prepared else value)
    except (OverflowError, UnicodeEncodeError):  # JSON knows longer numbers than 64 bits, and lone surrogates
        return repr(value).encode()


_encode = msgspec.msgpack.Encoder(order="deterministic", enc_hook=repr).encode
"""Leaves out what has its default, so that a field which a new version adds changes no digest."""
