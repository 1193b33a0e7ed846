"""Memory of a process: what is free goes back to the operating system."""

from __future__ import annotations

import ctypes

_MANY = 5_000
"""Entries from which on it is worth the milliseconds."""


def give_back(entries: int) -> None:
    """Have the C library give back what is free, after something that concerned so many entries.

    glibc keeps what was freed for the next time: 40 MB after a load of 100,000 entries, which may never come again.
    Other libraries have no such function, or no need for it.
    """
    if entries > _MANY and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)) is not None:
        trim(0)
