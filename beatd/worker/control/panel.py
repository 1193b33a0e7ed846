"""Panel: remote control commands by name, with their arguments and their view of the worker."""

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
from beatd.worker.control.revoked_states import RevokedStates
from beatd.worker.events import TaskEvents
from beatd.worker.pools.autoscale import Autoscaled
from beatd.worker.pools.base import Pool
from beatd.worker.request import Request
from beatd.worker.settings import WorkerSettings

Handler = Callable[..., Any]
H = TypeVar("H", bound=Handler)
Kind = Literal["inspect", "control"]


class Command(NamedTuple):
    """A command. Handlers take a :class:`~beatd.worker.control.panel.WorkerView` and the sender's keywords."""

    name: str
    kind: Kind
    handler: Handler
    summary: str
    arguments: tuple[tuple[str, Callable[[str], Any]], ...]
    """Names of arguments on a command line, each with its parser."""
    variadic: str | None
    """Name of the argument that takes the rest of the line."""
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


def control_command(**options: Any) -> Callable[[H], H]:
    """Make a function of a task module a remote control command; options as for Celery's decorator of this name.

    The function gets a :class:`WorkerView` and the sender's keywords. Its name must not be that of a built-in command.
    """
    return _added("control", options)


def inspect_command(**options: Any) -> Callable[[H], H]:
    """Make a function of a task module a query; see :func:`control_command`."""
    return _added("inspect", options)


def _added(kind: Kind, options: Mapping[str, Any]) -> Callable[[H], H]:
    return command(
        kind,
        alias=options.get("alias"),
        arguments=tuple(options.get("args") or ()),
        variadic=options.get("variadic"),
        usage=options.get("signature") or "",
        visible=bool(options.get("visible", True)),
    )


def find(name: object) -> Handler:
    """Return the handler of a command; raises KeyError with the name, as Celery's workers answer."""
    known = COMMANDS.get(ALIASES.get(name, name)) if isinstance(name, str) else None
    if known is None:
        raise KeyError(name)
    return known.handler


def truth(text: str) -> bool:
    """Parse a flag."""
    return text.strip().lower() in {"1", "true", "yes", "on", "y", "t"}


@dataclass(frozen=True, kw_only=True)
class WorkerHandles:
    """Parts of the worker's loop for its remote control."""

    pool: Pool
    consumer: Consumer
    requests: Mapping[int, Request]
    """By tag: the requests in the pool, running or not."""
    stop: Callable[[], None]
    """Shut the worker down warm."""
    drop: Callable[[Request], None]
    """Settle a withdrawn request as revoked."""
    condemn: Callable[[int, float | None], None]
    """Take a request back by its tag, or end it as soon as it runs, see ``HardTimeLimits.condemn``."""
    held: Callable[[], list[Request]]
    """Return the requests that rate limits delay."""
    rates: RateLimits
    autoscaler: Autoscaled | None
    """The pool, if autoscaling is on."""


@dataclass(frozen=True, kw_only=True)
class WorkerView:
    """View of the worker for commands."""

    app: App
    settings: WorkerSettings
    tools: WorkerHandles
    lamport: LamportClock
    revoked: Revoked
    states: RevokedStates
    events: TaskEvents
    totals: Counter[str]
    """Number of runs of each task that this worker has begun."""
    started: float
    """Start of the worker, on the monotonic clock."""
    remember: Callable[[list[str]], None]
    """Save revoked ids for all workers, also later ones."""
    beat: Callable[[], None]
    """Send a heartbeat."""
    url: str
    """The broker's URL, with its password."""

    @property
    def hostname(self) -> str:
        return self.settings.hostname

    @property
    def consumer(self) -> Any:
        """Raise AttributeError: Celery's consumer has a prefetch count that commands change."""
        raise AttributeError("a worker of beatd has no state.consumer: it takes what it can run at once")

    def running(self) -> dict[int, float]:
        """Return the tags of running requests and their run times (seconds)."""
        now = self.app.clock.monotonic()
        return {tag: now - since for tag, since in self.tools.pool.running_since().items()}
