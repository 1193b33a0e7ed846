"""A dead man's switch: a program that a task has started does not outlive the task's process.

A hard time limit, a crash or a shutdown kills that process without a chance to clean up. So a shell waits beside the
program at a pipe that only this process holds; when it is gone, the pipe ends, and the shell kills the program's group.
"""

from __future__ import annotations

import contextlib
import subprocess
from types import TracebackType

_WAIT_AND_KILL = 'read -r _; kill -KILL "-$1" 2>/dev/null'


class DeadMansSwitch:
    """Guards the process group ``group`` for as long as the block lasts."""

    def __init__(self, group: int) -> None:
        self._group = group
        self._guard: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> None:
        with contextlib.suppress(OSError):  # a program that is not guarded is better than none
            self._guard = subprocess.Popen(  # noqa: S603 - a text of our own
                ["/bin/sh", "-c", _WAIT_AND_KILL, "sh", str(self._group)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        if self._guard is not None:
            self._guard.kill()  # before the pipe ends
            self._guard.wait()
            if self._guard.stdin is not None:
                self._guard.stdin.close()
