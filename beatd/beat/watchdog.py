"""Watchdog: a thread that notices when the loop hangs.

Everything that the loop waits for has a timeout, so this should never happen; when it does all the same, a standby
has to take over, and for that the leases must be released. A thread that hangs cannot be ended from outside, and
its connections cannot be pulled from under it safely, so the process ends and the service manager starts a fresh one.
"""

from __future__ import annotations

import logging
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress

log = logging.getLogger("beatd.beat.watchdog")

LOOK_EVERY = 5.0
"""Seconds between two looks at the loop."""

LOOKS = 12
"""The loop hangs when so many looks in a row find it where it was: a minute, longer than all timeouts of a publish.

Looks are counted instead of time, so that a process that was stopped, or a host that slept, is no hanging loop.
"""

SAY_WITHIN = 2.0
"""Seconds for the last log record: the loop may hang in the log itself."""


class Watchdog:
    """Called whenever the loop makes progress; after a minute without it logs the stack and calls ``on_hang``."""

    def __init__(
        self, on_hang: Callable[[], None], *, every: float = LOOK_EVERY, say_within: float = SAY_WITHIN
    ) -> None:
        self._on_hang = on_hang
        self._every = every
        self._say_within = say_within
        self._turned = True
        self._looks = 0
        self._watched = threading.get_ident()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)

    def __call__(self) -> None:
        self._turned = True

    def start(self) -> None:
        """Watch the thread that calls this."""
        self._watched = threading.get_ident()
        self._thread.start()

    def stop(self) -> None:
        """Watch no longer; returns when the thread has ended, if it does not hang in the log."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(self._say_within)

    def look(self) -> bool:
        """Look at the loop once; tells whether it hangs."""
        self._looks = 0 if self._turned else self._looks + 1
        self._turned = False
        return self._looks >= LOOKS

    def _run(self) -> None:
        while not self._stopping.wait(self._every):
            if self.look():
                report = threading.Thread(target=self._log_hang, name="watchdog-log", daemon=True)
                with suppress(RuntimeError):  # no more threads: then without a word
                    report.start()
                    report.join(self._say_within)
                self._on_hang()
                return

    def _log_hang(self) -> None:
        frame = sys._current_frames().get(self._watched)
        stack = "".join(traceback.format_stack(frame)) if frame is not None else ""
        seconds = LOOKS * self._every
        extra = {"event": "loop_hangs", "seconds": seconds, "stack": stack}
        log.critical("The loop has hung for %d s, letting go of the leases; it is at\n%s", seconds, stack, extra=extra)
