"""The queues of an app's configuration: their names, and the arguments that RabbitMQ makes them with.

A queue that is there keeps the arguments it was made with; these are for the first who needs it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class Queues:
    """What ``task_queues``, ``task_queue_max_priority`` and ``task_default_queue_type`` say.

    ``task_queues`` is Celery's: kombu's ``Queue`` objects, names, or a table of name to options.
    """

    def __init__(self, conf: Mapping[str, Any]) -> None:
        self._given = _given(conf.get("task_queues") or ())
        self._default: dict[str, Any] = {}
        if conf.get("task_default_queue_type"):
            self._default["x-queue-type"] = conf["task_default_queue_type"]
        if (most := conf.get("task_queue_max_priority")) is not None:
            self._default["x-max-priority"] = int(most)

    @property
    def names(self) -> tuple[str, ...]:
        """Those of ``task_queues``."""
        return tuple(self._given)

    def arguments(self, name: str) -> dict[str, Any]:
        """What to make the queue of that name with. Quorum queues have two priorities of their own, and no others."""
        found = {**self._default, **self._given.get(name, {})}
        if found.get("x-queue-type") == "quorum":
            found.pop("x-max-priority", None)
        return found


def _given(queues: Any) -> dict[str, dict[str, Any]]:
    if isinstance(queues, Mapping):
        return {str(name): _arguments(options) for name, options in queues.items()}
    return {str(getattr(each, "name", each)): _arguments(each) for each in queues}


def _arguments(options: Any) -> dict[str, Any]:
    given = options if isinstance(options, Mapping) else getattr(options, "__dict__", {})
    found = dict(given.get("queue_arguments") or {})
    if (most := given.get("max_priority")) is not None:
        found["x-max-priority"] = int(most)
    return found
