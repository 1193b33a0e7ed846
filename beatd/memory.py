"""Memory of a process: what is free goes back to the operating system."""

from __future__ import annotations

import ctypes

_MMAP_THRESHOLD, _LARGE = -3, 256 * 1024
"""glibc's number of the option, and the bytes of a block that is worth the system calls."""

_MANY = 5_000
"""Entries from which on it is worth the milliseconds."""


def give_back(entries: int) -> None:
    """Have the C library give back what is free, after something that concerned so many entries.

    glibc keeps what was freed for the next time: 40 MB after a load of 100,000 entries, which may never come again.
    Other libraries have no such function, or no need for it.
    """
    if entries > _MANY and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)) is not None:
        trim(0)


def keep_no_large_blocks() -> None:
    """Have the C library give back each large block when it is freed, such as the text of a file or a table of names.

    glibc would take the largest that was ever freed for the measure, and keep all that are smaller.
    """
    if (set_option := getattr(ctypes.CDLL(None), "mallopt", None)) is not None:
        set_option(_MMAP_THRESHOLD, _LARGE)
