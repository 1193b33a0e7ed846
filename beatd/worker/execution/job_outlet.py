"""Outlet of a job in a thread or coroutine of the worker's process: its results and messages leave by reports.

The worker drops the reports of a job that was given up, so an abandoned thread changes no result any more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from beatd.app.context import outlet
from beatd.app.publishing import Collected
from beatd.store.results import Stored
from beatd.worker.execution.callbacks import pack
from beatd.worker.messages import MEANWHILE, NO_JOB, JobReport


@contextmanager
def outlet_of(tag: int, say: Callable[[JobReport], object] | None, *, takes_messages: bool = False) -> Iterator[None]:
    """Give the job's thread or coroutine an outlet for the block, if its pool has one."""
    made = None if say is None else JobOutlet(say, tag, takes_messages=takes_messages)
    token = outlet.set(made)
    try:
        yield
    finally:
        outlet.reset(token)
        if made is not None:
            made.is_over = True


class JobOutlet:
    """The :class:`~beatd.app.context.Outlet` of one job, and of what it has left running in the event loop."""

    __slots__ = ("_say", "_tag", "is_over", "takes_messages")

    def __init__(self, say: Callable[[JobReport], object], tag: int, *, takes_messages: bool) -> None:
        self._say = say
        self._tag = tag
        self.takes_messages = takes_messages
        self.is_over = False
        """True once the job has ended."""

    def results(self, results: Sequence[Stored]) -> None:
        self._say(JobReport(self._tag, MEANWHILE, results=list(results)))

    def messages(self, collected: Sequence[Collected]) -> None:
        """Raise :class:`~beatd.exceptions.MessageError` for what JSON cannot carry."""
        tag = NO_JOB if self.is_over else self._tag
        self._say(JobReport(tag, MEANWHILE, follow_ups=pack(collected)))
