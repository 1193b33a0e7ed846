"""The panel: remote control commands by name, with their arguments, and the part of the worker that they may touch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeVar

from beatd.app.app import App
from beatd.broker.bus import LamportClock
from beatd.worker.admission.rate_limits import RateLimits
from beatd.worker.admission.revoked import Revoked
from beatd.worker.consumers import Consumer
from beatd.worker.events import TaskEvents
from beatd.worker.pools.autoscale import Autoscaled
from beatd.worker.pools.base import Pool
from beatd.worker.request import Request
from beatd.worker.settings import WorkerSettings

Handler = Callable[..., Any]
H = TypeVar("H", bound=Handler)
Kind = Literal["inspect", "control"]


class Command(NamedTuple):
    """One command. Handlers take a :class:`~beatd.worker.control.panel.WorkerView` and the sender's keywords."""

    name: str
    kind: Kind
    handler: Handler
    summary: str
    arguments: tuple[tuple[str, Callable[[str], Any]], ...]
    """Names of arguments on a command line, each with what makes a value of its text."""
    variadic: str | None
    """The name of the argument that takes the rest of the line."""
    usage: str
    visible: bool


COMMANDS: dict[str, Command] = {}
ALIASES: dict[str, str] = {}
"""Celery's old names."""


def command(
    kind: Kind,
    *,
    alias: str | None = None,
    arguments: tuple[tuple[str, Callable[[str], Any]], ...] = (),
    variadic: str | None = None,
    usage: str = "",
    visible: bool = True,
) -> Callable[[H], H]:
    """Make a function the command of its name; the first line of its docstring is the summary."""

    def register(handler: H) -> H:
        name = handler.__name__
        summary = (handler.__doc__ or "").strip().partition("\n")[0]
        COMMANDS[name] = Command(name, kind, handler, summary, arguments, variadic, usage, visible)
        if alias:
            ALIASES[alias] = name
        return handler

    return register


def find(name: object) -> Handler:
    """The handler of a command; raises KeyError with the name, which is how Celery's workers answer."""
    known = COMMANDS.get(ALIASES.get(name, name)) if isinstance(name, str) else None
    if known is None:
        raise KeyError(name)
    return known.handler


def truth(text: str) -> bool:
    """A flag as people write it."""
    return text.strip().lower() in {"1", "true", "yes", "on", "y", "t"}


@dataclass(frozen=True, kw_only=True)
class WorkerHandles:
    """Handles of the worker's loop for its remote control."""

    pool: Pool
    consumer: Consumer
    requests: Mapping[int, Request]
    """By tag: what the pool has, running or not."""
    stop: Callable[[], None]
    """Have the worker finish what runs and leave."""
    drop: Callable[[Request], None]
    """Settle a request that the pool has given back as revoked."""
    held: Callable[[], list[Request]]
    """What rate limits keep from the pool for a moment."""
    rates: RateLimits
    autoscaler: Autoscaled | None
    """Changes the size of the pool by itself, where it is on."""


@dataclass(frozen=True, kw_only=True)
class WorkerView:
    """The worker, as commands see it."""

    app: App
    settings: WorkerSettings
    tools: WorkerHandles
    lamport: LamportClock
    revoked: Revoked
    events: TaskEvents
    totals: Counter[str]
    """How many runs of each task this worker has begun."""
    started: float
    """Since when it works, on the monotonic clock."""
    remember: Callable[[list[str]], None]
    """Have all workers know that these are revoked, also those to come."""
    beat: Callable[[], None]
    """Send a heartbeat."""
    url: str
    """The broker's; with its password."""

    @property
    def hostname(self) -> str:
        return self.settings.hostname

    def find(self, task_id: str) -> list[Request]:
        """The requests for a task that this worker has; one, unless a message came twice."""
        return [request for request in self.tools.requests.values() if request.id == task_id]

    def running(self) -> dict[int, float]:
        """The tags of what runs, and how long each has been running (seconds)."""
        now = self.app.clock.monotonic()
        return {tag: now - since for tag, since in self.tools.pool.running_since().items()}
