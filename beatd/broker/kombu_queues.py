"""Queues as objects of kombu, for programs that ask an app for them. Nothing is declared on the broker here.

Source of the rules: ``celery/app/amqp.py`` as of Celery 5.7.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import kombu as _kombu

kombu: Any = _kombu  # only half of it is typed


class Defaults(NamedTuple):
    """Settings of queues that say nothing else."""

    queue: str
    exchange: str
    exchange_type: str
    routing_key: str
    arguments: Callable[[str], Mapping[str, Any]]
    """The declaration arguments of a queue."""
    create_missing: bool
    """True if a queue that is not declared is made when it is asked for."""


class KombuQueues(dict[str, Any]):
    """Queues by name. Raises KeyError for an unknown name, unless missing queues are created."""

    def __init__(self, given: Any, defaults: Defaults) -> None:
        """``given`` is ``task_queues``: queues of kombu, names, or a mapping of name to options; none: the default."""
        super().__init__()
        self._defaults = defaults
        self.default_exchange = kombu.Exchange(defaults.exchange, defaults.exchange_type)
        named = given if isinstance(given, Mapping) else {getattr(queue, "name", queue): queue for queue in given}
        for name, queue in named.items():
            self[str(name)] = self._queue(str(name), queue)
        if not self:
            self[defaults.queue] = self._queue(defaults.queue, {"routing_key": defaults.routing_key})
        self.consume_from: dict[str, Any] = dict(self)
        """The queues that a worker consumes by default."""

    def __missing__(self, name: str) -> Any:
        if not self._defaults.create_missing:
            raise KeyError(name)
        exchange = kombu.Exchange(name, self._defaults.exchange_type)
        self[name] = self._with_arguments(kombu.Queue(name, exchange, name))
        return self[name]

    def select(self, include: Iterable[str]) -> None:
        """Consume these queues only."""
        self.consume_from = {name: self[name] for name in include}

    def _queue(self, name: str, given: Any) -> Any:
        if isinstance(given, kombu.Queue):
            queue = copy.copy(given)
        else:
            options = dict(given) if isinstance(given, Mapping) else {}
            key = options.pop("binding_key", None)
            queue = kombu.Queue.from_dict(name, **{**options, "routing_key": options.get("routing_key") or key or name})
        if not (queue.exchange and queue.exchange.name):
            queue.exchange = self.default_exchange
        queue.routing_key = queue.routing_key or self._defaults.routing_key
        return self._with_arguments(queue)

    def _with_arguments(self, queue: Any) -> Any:
        arguments = {**(queue.queue_arguments or {}), **self._defaults.arguments(queue.name)}
        if queue.max_priority:
            arguments.pop("x-max-priority", None)  # kombu adds it where it declares the queue
        queue.queue_arguments = arguments or None
        return queue


def is_queue(value: Any) -> bool:
    """True for a queue of kombu."""
    return isinstance(value, kombu.Queue)
