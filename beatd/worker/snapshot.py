"""Snapshot of a worker: its state at one moment, as the exporter process gets it and shows it."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from beatd.metrics.counters import Histogram


class Snapshot(msgspec.Struct, frozen=True, array_like=True):
    """The state of a worker at one moment."""

    tasks: dict[str, dict[str, int]]
    """By task and state: how many."""
    seconds: dict[str, Histogram]
    """By task: run times."""
    size: int
    busy: int
    prefetched: int
    longest_s: float
    queues: list[str]
    unready: list[str]
    """Reasons why the worker takes no messages."""


encode, decode = msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder(Snapshot).decode
_LENGTH_BYTES = 4


def frame(payload: bytes) -> bytes:
    """Return a payload with its length before it."""
    return len(payload).to_bytes(_LENGTH_BYTES, "little") + payload


def frames(buffer: bytearray) -> Iterator[bytes]:
    """Take the complete payloads out of what has been received."""
    while len(buffer) >= _LENGTH_BYTES:
        end = _LENGTH_BYTES + int.from_bytes(buffer[:_LENGTH_BYTES], "little")
        if len(buffer) < end:
            return
        yield bytes(buffer[_LENGTH_BYTES:end])
        del buffer[:end]
