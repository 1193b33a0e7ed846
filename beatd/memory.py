"""Memory of a process: what is free goes back to the operating system."""

from __future__ import annotations

import ctypes
import gc
import threading

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


class _Collector:
    """Context manager that switches the garbage collector off, while a thread or several are in its block."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._number = 0
        self._was_enabled = False

    def __enter__(self) -> None:
        with self._lock:
            if self._number == 0:
                self._was_enabled = gc.isenabled()
                gc.disable()
            self._number += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._number -= 1
            if self._number == 0 and self._was_enabled:
                gc.enable()


_COLLECTOR = _Collector()


def without_collections() -> _Collector:
    """Collect no garbage within the block, in any thread.

    Blocks of several threads may overlap in any way. What one of them reads of the collector's state, and sets it to
    afterwards, must not be what another one has made of it: it would stay switched off.
    """
    return _COLLECTOR
