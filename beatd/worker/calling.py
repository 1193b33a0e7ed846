"""How a worker calls a task's function: inside its time limits, and coroutines in an event loop that lasts.

Each process, and each thread of a pool of threads, has one event loop for all its tasks, so that connections made by
one ``async def`` task can be used by the next. In the asyncio pool it is the pool's loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import inspect
import os
import sys
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from beatd.exceptions import TimeLimitExceeded
from beatd.worker.limits import Interruptible, Overdue, limit


class Calling:
    """Calls functions with limits in seconds, see :func:`beatd.worker.limits.limit`."""

    __slots__ = ("_hard", "_soft")

    def __init__(self, soft: float | None, hard: float | None = None) -> None:
        self._soft = soft
        self._hard = hard

    def here(self, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Call in this thread; a coroutine is run to its end."""
        generation = _forks.count
        try:
            with limit(self._soft, self._hard):
                value = function(*args, **kwargs)
            if not inspect.iscoroutine(value):
                return value
            with limit(None, self._hard):
                return _run(value if self._soft is None else _awaiting(Interruptible(value, self._soft)))
        except Overdue:
            raise TimeLimitExceeded(self._hard) from None
        finally:
            if _forks.count != generation:
                _end_fork()

    async def there(self, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Call in the event loop that is running, and await what comes."""
        value = function(*args, **kwargs)
        if not inspect.iscoroutine(value):
            return value
        return await (value if self._soft is None else Interruptible(value, self._soft))


class _Forks:
    """How many forks lie between the first process and this one: asking the system for its id costs more."""

    count = 0

    def add(self) -> None:
        self.count += 1


_forks = _Forks()
os.register_at_fork(after_in_child=_forks.add)


async def _awaiting(awaitable: Interruptible) -> Any:
    return await awaitable


_own = threading.local()


def _run(coroutine: Any) -> Any:
    """Run in this thread's event loop, which is made with its first coroutine."""
    runner: asyncio.Runner | None = getattr(_own, "runner", None)
    if runner is None:
        runner = _own.runner = asyncio.Runner()
    try:
        return runner.run(coroutine, context=contextvars.copy_context())
    finally:
        if coroutine.cr_frame is not None:  # an exception came into the loop, not into the coroutine: start anew
            _own.runner = None


def _end_fork() -> NoReturn:
    """End a process that the task forked and that came back out of it: only the one that was given the job goes on."""
    error, code = sys.exception(), 0
    if isinstance(error, SystemExit):
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    elif error is not None:
        code = 1
        with contextlib.suppress(Exception):
            traceback.print_exception(error)
    with contextlib.suppress(Exception):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)
