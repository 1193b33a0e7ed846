"""A dead man's switch: a program that a task has started does not outlive the task's process.

A hard time limit, a crash or a shutdown kills that process without a chance to clean up. So a shell waits beside the
program at a pipe that only this process holds; when it is gone, the pipe ends, and the shell kills the program's group.
"""

from __future__ import annotations

import contextlib
import subprocess
from types import TracebackType

_WAIT_AND_KILL = 'read -r group || exit 0; read -r _; kill -KILL "-$group" 2>/dev/null'


class DeadMansSwitch:
    """Guards one process group, see :meth:`guard`, until the block ends.

    Enter it before the program is started: to start the shell takes longer than it may be unguarded.
    """

    def __init__(self) -> None:
        self._shell: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> DeadMansSwitch:
        with contextlib.suppress(OSError):  # a program that is not guarded is better than none
            self._shell = subprocess.Popen(  # noqa: S603 - a text of our own
                ["/bin/sh", "-c", _WAIT_AND_KILL],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                bufsize=0,
            )
        return self

    def guard(self, group: int) -> None:
        """Have that group end with this process."""
        if self._shell is not None and self._shell.stdin is not None:
            with contextlib.suppress(OSError):
                self._shell.stdin.write(b"%d\n" % group)

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        if self._shell is not None:
            self._shell.kill()  # before the pipe ends
            self._shell.wait()
            if self._shell.stdin is not None:
                self._shell.stdin.close()
