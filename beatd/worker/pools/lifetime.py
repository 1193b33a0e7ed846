"""How long a process of the pool lasts: for so many tasks, until it is too large, until it cannot open files."""

from __future__ import annotations

import logging
import os
import resource
import sys

import msgspec

from beatd.store.outcomes import FAILURE
from beatd.worker.messages import Report

log = logging.getLogger("celery.pool")

_PER_KIB = 1 if sys.platform == "linux" else 1024
"""``ru_maxrss`` is in KiB on Linux and in bytes on macOS, see getrusage(2)."""


class Lifetime(msgspec.Struct, frozen=True):
    """Limits for one process; None for no limit."""

    max_tasks: int | None = None
    max_memory: int | None = None
    """Resident memory in KiB, at its highest."""

    def is_over(self, tasks: int, report: Report, link: int) -> bool:
        """Whether a process that has run ``tasks``, the last of them with ``report``, should make room for a fresh one.

        ``link`` is any open file descriptor.
        """
        if self.max_tasks is not None and tasks >= self.max_tasks:
            return True
        if self.max_memory is not None and (used := _memory()) > self.max_memory:
            log.warning(
                "child process exiting after exceeding memory limit (%sKiB / %sKiB)",
                used,
                self.max_memory,
                extra={"event": "pool_process_too_large", "used": used, "limit": self.max_memory},
            )
            return True
        if report.state == FAILURE and not _can_open_more(link):
            log.warning(
                "child process exiting: its tasks left no file descriptors",
                extra={"event": "pool_process_out_of_files"},
            )
            return True
        return False


def _memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // _PER_KIB


def _can_open_more(link: int) -> bool:
    try:
        os.close(os.dup(link))
    except OSError:
        return False
    return True
