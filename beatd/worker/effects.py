"""Effects: what the worker's decisions and the pool's reports change, in order, for all parts that have to know.

The strategy and the settlement produce them; the worker applies each list once, to its own requests, the time limits,
the admission control, the totals and the events.
"""

from __future__ import annotations

from typing import NamedTuple

from beatd.worker.messages import Headers, JobReport
from beatd.worker.request import Request


class Received(NamedTuple):
    """A message came in, to be run now or at its time."""

    request: Request


class Unregistered(NamedTuple):
    """A message came in for a task that this app does not have."""

    headers: Headers
    error: BaseException


class Revoked(NamedTuple):
    """A request is not run: it was revoked, or it has expired."""

    request: Request
    expired: bool


class Started(NamedTuple):
    """A process or thread has begun a request."""

    request: Request
    report: JobReport


class Ended(NamedTuple):
    """A request has ended, in any state."""

    request: Request
    report: JobReport


Effect = Received | Unregistered | Revoked | Started | Ended
