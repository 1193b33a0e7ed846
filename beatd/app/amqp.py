"""AMQP: the queues and routes of an app, for programs that ask for them: ``app.amqp``.

Messages are sent by ``app.send_task``, and do not pass here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from beatd.app.base import AppBase
from beatd.app.routing import Queues, matching_route
from beatd.exceptions import QueueNotFound

if TYPE_CHECKING:
    from beatd.broker.kombu_queues import KombuQueues

_INSTEAD = {
    "send_task_message": "use app.send_task, and the signal before_task_publish to change messages",
    "create_task_message": "use app.send_task",
    "Connection": "use app.connection()",
    "Consumer": "use app.connection().Consumer(…)",
    "Producer": "use app.connection().Producer()",
    "producer_pool": "use app.producer_pool",
}
"""Names of Celery's ``app.amqp``, and what to use instead."""


class AMQP:
    """The queues and the router of an app."""

    def __init__(self, app: AppBase) -> None:
        self.app = app
        self.consumed: tuple[str, ...] = ()
        """Names of the queues that the worker of this process consumes."""

    @cached_property
    def queues(self) -> KombuQueues:
        """Queues by name, as kombu's: those of ``task_queues``, or the default queue."""
        from beatd.broker.kombu_queues import Defaults, KombuQueues  # noqa: PLC0415 - loads kombu

        conf = self.app.conf
        default = str(conf.task_default_queue)
        exchange, key = conf.task_default_exchange or default, conf.task_default_routing_key or default
        arguments, is_open = Queues(conf).arguments, bool(conf.task_create_missing_queues)
        defaults = Defaults(default, exchange, conf.task_default_exchange_type, key, arguments, is_open)
        queues = KombuQueues(conf.task_queues or (), defaults)
        if self.consumed:
            queues.select(self.consumed)
        return queues

    @cached_property
    def router(self) -> Router:
        """Answers where a message would go."""
        return Router(self.app, self.queues)

    @property
    def default_queue(self) -> Any:
        """The queue of messages that no route names."""
        return self.queues[str(self.app.conf.task_default_queue)]

    @property
    def default_exchange(self) -> Any:
        """The exchange of queues that name none."""
        return self.queues.default_exchange

    def __getattr__(self, name: str) -> Any:
        advice = f": {_INSTEAD[name]}" if name in _INSTEAD else ""
        raise AttributeError(f"app.amqp of beatd has no {name}{advice}")


class Router:
    """Routes messages by call options, ``task_routes`` and the default queue."""

    def __init__(self, app: AppBase, queues: Any) -> None:
        self.app = app
        self.queues = queues

    def route(
        self,
        options: Mapping[str, Any],
        name: str,
        args: Iterable[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        task_type: Any = None,
    ) -> dict[str, Any]:
        """Return ``options`` with the destination of the task ``name``: ``queue`` is a queue of kombu.

        Raises :class:`QueueNotFound` for a queue that is not declared, if missing ones are not created.
        """
        given = self.expand_destination(options)
        route: Any = self.lookup_route(name, args, kwargs, given, task_type)
        if not route and "queue" in given:
            return given
        chosen = {option: value for option, value in given.items() if value is not None}
        return {**self.expand_destination(route or str(self.app.conf.task_default_queue)), **chosen}

    def lookup_route(
        self,
        name: str,
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        task_type: Any = None,
    ) -> dict[str, Any]:
        """Return what ``task_routes`` say of a task; empty, if no route matches."""
        routes = self.app.conf.task_routes
        return matching_route(name, tuple(args or ()), kwargs or {}, options or {}, routes, task_type)

    def expand_destination(self, route: str | Mapping[str, Any]) -> dict[str, Any]:
        """Return a route, or the name of a queue, with the queue as an object."""
        from beatd.broker.kombu_queues import is_queue  # noqa: PLC0415 - loads kombu

        expanded = {"queue": route} if isinstance(route, str) else dict(route)
        queue = expanded.pop("queue", None)
        if queue:
            try:
                expanded["queue"] = queue if is_queue(queue) else self.queues[str(queue)]
            except KeyError:
                raise QueueNotFound(f"queue {queue!r} is not in task_queues: {', '.join(self.queues)}") from None
        return expanded
