"""Call of a task's function within its time limits; coroutines run in a lasting event loop.

A soft limit is an exception that interrupts the task, so that it can clean up: the main thread of a process is reached
by a signal, another thread by an exception that the interpreter raises in it (not before it leaves a call to C: best
effort), a coroutine where it awaits something. Each process, and each thread of a pool of threads, has one event loop
for all its tasks, so that connections made by one ``async def`` task can be used by the next.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import ctypes
import functools
import heapq
import inspect
import itertools
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Coroutine, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, NoReturn

from beatd.clock import monotonic
from beatd.exceptions import SoftTimeLimitExceeded, TimeLimitExceeded

_AGAIN_S = 1.0
"""Period at which the hard limit's exception is raised again in a task that swallows it."""


class HardTimeLimit(BaseException):
    """Hard time limit. No ``Exception``, so that tasks do not catch it by accident."""


Over = Callable[[], object]
"""What is called when a soft limit is exceeded."""


def limit(soft: float | None, hard: float | None = None, over: Over = bool) -> AbstractContextManager[None]:
    """Raise :class:`SoftTimeLimitExceeded` in the block after ``soft`` seconds, and call ``over``.

    ``hard`` is for processes that cannot be killed for it: :class:`HardTimeLimit`, again and again, until the block is
    left; in main threads only.
    """
    if not soft and not hard:
        return _NO_LIMIT
    if threading.current_thread() is threading.main_thread():
        return _alarm(soft, hard, over)
    return _in_thread(soft, over) if soft else _NO_LIMIT


_NO_LIMIT: AbstractContextManager[None] = nullcontext()


@contextmanager
def _alarm(soft: float | None, hard: float | None, over: Over) -> Iterator[None]:
    pending = [seconds for seconds in (soft, hard) if seconds]

    def interrupt(_number: int, _frame: Any) -> None:
        if soft and len(pending) > 1:
            pending.pop(0)
            signal.setitimer(signal.ITIMER_REAL, max(0.001, (hard or 0) - soft), _AGAIN_S)
        elif hard:
            raise HardTimeLimit
        over()
        raise SoftTimeLimitExceeded(soft)

    previous = signal.signal(signal.SIGALRM, interrupt)
    if soft and hard and soft >= hard:
        pending.pop(0)
    signal.setitimer(signal.ITIMER_REAL, pending[0], _AGAIN_S if hard and len(pending) == 1 else 0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


@contextmanager
def _in_thread(seconds: float, over: Over) -> Iterator[None]:
    thread = threading.get_ident()
    lock = threading.Lock()
    inside = True

    def interrupt() -> None:
        with lock:
            if inside:
                over()
                raise_in(thread, SoftTimeLimitExceeded)

    cancel = _alarms.after(seconds, interrupt)
    try:
        yield
    except SoftTimeLimitExceeded as error:
        error.args = error.args or (seconds,)  # an exception raised in another thread has no arguments
        raise
    finally:
        with lock:
            inside = False
        cancel()
        raise_in(thread, None)  # a pending exception must not hit the code that follows


def raise_in(thread: int, kind: type[BaseException] | None) -> None:
    """Raise an exception in another thread as soon as it runs Python code; None cancels a pending one."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(thread), ctypes.py_object(kind) if kind is not None else None
    )


class _Alarms:
    """Timer thread, started on first use, that calls functions at their times."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._thread: threading.Thread | None = None

    def after(self, seconds: float, act: Callable[[], None]) -> Callable[[], None]:
        """Call ``act`` in ``seconds``; returns the function that cancels it."""
        number = next(self._numbers)
        with self._changed:
            heapq.heappush(self._due, (monotonic() + seconds, number, act))
            if self._thread is None:
                self._thread = threading.Thread(target=self._serve, name="soft-limits", daemon=True)
                self._thread.start()
            self._changed.notify()
        return functools.partial(self._cancel, number)

    def stop(self) -> None:
        """End the thread, unless a task that was given up still has its limit before it."""
        with self._changed:
            if self._due or self._thread is None:
                return
            thread, self._thread = self._thread, None
            self._changed.notify()
        thread.join()

    def _cancel(self, number: int) -> None:
        with self._changed:
            self._due = [item for item in self._due if item[1] != number]
            heapq.heapify(self._due)

    def _serve(self) -> None:
        while True:
            with self._changed:
                while not self._due or self._due[0][0] > monotonic():
                    if self._thread is not threading.current_thread():
                        return
                    self._changed.wait(min(self._due[0][0] - monotonic(), threading.TIMEOUT_MAX) if self._due else None)
                _, _, act = heapq.heappop(self._due)
            act()


_alarms = _Alarms()


def stop_alarms() -> None:
    """End the thread of soft limits; the next limit starts it again."""
    _alarms.stop()


class Interruptible:
    """A coroutine with a soft limit: awaiting it runs it, and after ``seconds`` the exception is raised in it.

    ``over`` is called then.
    """

    def __init__(self, coroutine: Coroutine[Any, Any, Any], seconds: float, over: Over = bool) -> None:
        self._coroutine = coroutine
        self._seconds = seconds
        self._report = over
        self._over = False

    def __await__(self) -> Generator[Any, None, Any]:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - only coroutines of a task are awaited
        timer = asyncio.get_running_loop().call_later(self._seconds, self._interrupt, task)
        try:
            return (yield from self._drive(task))
        finally:
            timer.cancel()

    def _interrupt(self, task: asyncio.Task[Any]) -> None:
        self._over = True
        self._report()
        task.cancel()  # cancels the awaited future, too; arrives below

    def _drive(self, task: asyncio.Task[Any]) -> Generator[Any, None, Any]:
        resume: Callable[[], Any] = functools.partial(self._coroutine.send, None)
        while True:
            try:
                awaited = resume()
            except StopIteration as returned:
                return returned.value
            try:
                yield awaited
                resume = functools.partial(self._coroutine.send, None)
            except BaseException as error:  # noqa: BLE001 - all of it is the coroutine's
                arrived: BaseException = error
                if self._over and isinstance(error, asyncio.CancelledError):
                    self._over = False
                    task.uncancel()
                    arrived = SoftTimeLimitExceeded(self._seconds)
                resume = functools.partial(self._coroutine.throw, arrived)


class Calling:
    """Calls functions with limits in seconds, see :func:`beatd.worker.execution.call.limit`."""

    __slots__ = ("_hard", "_soft", "is_over")

    def __init__(self, soft: float | None, hard: float | None = None) -> None:
        self._soft = soft
        self._hard = hard
        self.is_over = False
        """True once the soft limit has been exceeded."""

    def _note(self) -> None:
        self.is_over = True

    def call(self, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Call in this thread; a coroutine is run to its end."""
        generation = _forks.count
        try:
            with limit(self._soft, self._hard, self._note):
                value = function(*args, **kwargs)
            if not inspect.iscoroutine(value):
                return value
            with limit(None, self._hard):
                return _run(value if self._soft is None else _awaiting(Interruptible(value, self._soft, self._note)))
        except HardTimeLimit:
            raise TimeLimitExceeded(self._hard) from None
        finally:
            if _forks.count != generation:
                _end_fork()

    async def call_async(self, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Call in the event loop that is running, and await what comes."""
        value = function(*args, **kwargs)
        if not inspect.iscoroutine(value):
            return value
        return await (value if self._soft is None else Interruptible(value, self._soft, self._note))


class _Forks:
    """Number of forks since the first process: cheaper than asking the system for the process id."""

    count = 0

    def add(self) -> None:
        self.count += 1


_forks = _Forks()
os.register_at_fork(after_in_child=_forks.add)


async def _awaiting(awaitable: Interruptible) -> Any:
    return await awaitable


_own = threading.local()


def _run(coroutine: Any) -> Any:
    """Run in this thread's event loop, made with its first coroutine."""
    runner: asyncio.Runner | None = getattr(_own, "runner", None)
    if runner is None:
        runner = _own.runner = asyncio.Runner()
    try:
        return runner.run(coroutine, context=contextvars.copy_context())
    finally:
        if coroutine.cr_frame is not None:  # an exception hit the loop, not the coroutine: use a new loop
            _own.runner = None


def _end_fork() -> NoReturn:
    """End a process that the task has forked and that returned from it: only the original process goes on."""
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
