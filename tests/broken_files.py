"""A generator of broken files, for tests of what reads the files of others."""

from __future__ import annotations

import random

PIECES = [
    b"", b"\x00", b"\xff", b"\n", b"  ", b"[", b"{", b"}", b"]", b":", b"- ", b"'", b'"', b"*", b"&a ", b"*a", b"/0",
    b"!!python/x ", b"null", b"-1", b"1e999", b"9" * 30, b"@every", b"..", b"TZ=X ", b"\\", b"%", b"true", b"~",
    b"\xe2\x80\xa8", b"2030-01-01", b"{}", b"[[]]", b"\xed\xa0\x80", b"<<: ", b"? ", b"!!set ", b"!!binary x",
]  # fmt: skip
"""Pieces that YAML, JSON, units and cron strings trip over."""


def broken(dice: random.Random, data: bytes) -> bytes:
    """The data with some pieces cut out, doubled, moved, or replaced."""
    text = bytearray(data)
    for _ in range(dice.randint(1, 8)):
        at, end = dice.randrange(len(text) + 1), dice.randrange(1, 12)
        text[at : at + dice.choice([0, end])] = dice.choice([*PIECES, bytes(text[at : at + end]) * 2])
    return bytes(text[: dice.choice([len(text), dice.randrange(len(text) + 1)])])
