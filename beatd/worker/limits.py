"""Time limits from inside: the soft one interrupts the task so that it can clean up."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from beatd.exceptions import SoftTimeLimitExceeded


def soft_limit(seconds: float | None) -> AbstractContextManager[None]:
    """Raise :class:`SoftTimeLimitExceeded` in the block after ``seconds``. Only a process's main thread can do that."""
    if not seconds or threading.current_thread() is not threading.main_thread():
        return _NO_LIMIT
    return _alarm(seconds)


_NO_LIMIT: AbstractContextManager[None] = nullcontext()


@contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    def interrupt(_number: int, _frame: Any) -> None:
        raise SoftTimeLimitExceeded(seconds)

    previous = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
