"""A value that many readers share for some time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from beatd.clock import Clock

T = TypeVar("T")


class Shared(Generic[T]):
    """A value that is read at most every ``seconds``; if reading took longer, it holds for that time.

    An error of the type ``error`` is shared, too: else each reader would wait for a server that hangs.
    """

    def __init__(
        self, read: Callable[[], T], clock: Clock, seconds: float, *, error: type[Exception] | tuple[()] = ()
    ) -> None:
        self._read, self._clock, self._seconds, self._error_type = read, clock, seconds, error
        self._reading = threading.Lock()
        self._value: T | None = None
        self._error: Exception | None = None
        self._until = float("-inf")

    def __call__(self) -> T:
        """Return the value, or raise the error."""
        with self._reading:
            began = self._clock.monotonic()
            if began > self._until:
                self._value = self._error = None
                try:
                    self._value = self._read()
                except self._error_type as error:
                    self._error = error
                now = self._clock.monotonic()
                self._until = now + max(self._seconds, now - began)
            value, failure = self._value, self._error
        if failure is not None:
            raise failure.with_traceback(None)
        return value  # type: ignore[return-value]  # it was read

    def forget(self) -> None:
        """Read again at the next call."""
        with self._reading:
            self._until = float("-inf")
