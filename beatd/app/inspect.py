"""``app.control.inspect()``: questions to workers, and their answers by node."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from beatd.app.control import Control

Reply = dict[str, Any]
"""A node's name → its answer."""
Destination = Sequence[str] | None


class Inspect:
    """Questions. Each returns node → answer, or None when nobody answered; for one ``destination`` its answer."""

    def __init__(  # noqa: PLR0917
        self,
        control: Control,
        destination: Destination | str,
        timeout: float,
        callback: Callable[[Reply], Any] | None,
        limit: int | None,
        pattern: str | None,
        matcher: str | None,
    ) -> None:
        self._control = control
        self.destination = destination
        self.timeout = timeout
        self.callback = callback
        self.limit = limit
        self.pattern = pattern
        self.matcher = matcher

    def ask(self, command: str, **arguments: Any) -> Any:
        """Any command."""
        names = [self.destination] if isinstance(self.destination, str) else self.destination
        answers = self._control.broadcast(
            command,
            arguments,
            names,
            reply=True,
            timeout=self.timeout,
            limit=self.limit,
            callback=self.callback,
            pattern=self.pattern,
            matcher=self.matcher,
        )
        by_node = {node: answer for each in answers or () for node, answer in each.items()}
        if not by_node:
            return None
        if isinstance(self.destination, str):
            return by_node.get(self.destination)
        return {node: answer for node, answer in by_node.items() if self._fits(node)}

    def _fits(self, node: str) -> bool:
        if not self.pattern:
            return True
        if self.matcher == "pcre":
            return re.match(self.pattern, node) is not None
        return fnmatch.fnmatch(node, self.pattern)

    def ping(self, destination: Destination = None) -> Any:
        """``{"ok": "pong"}`` from each."""
        if destination:
            self.destination = destination
        return self.ask("ping")

    def active(self, safe: bool | None = None) -> Any:
        """The tasks that run."""
        return self.ask("active", safe=safe)

    def scheduled(self, safe: bool | None = None) -> Any:  # noqa: ARG002 - Celery's signature
        """The tasks that wait for their ETA."""
        return self.ask("scheduled")

    def reserved(self, safe: bool | None = None) -> Any:  # noqa: ARG002 - Celery's signature
        """The tasks that were taken and have not begun."""
        return self.ask("reserved")

    def stats(self) -> Any:
        """What was done, and with what."""
        return self.ask("stats")

    def revoked(self) -> Any:
        """The ids of revoked tasks."""
        return self.ask("revoked")

    def registered(self, *taskinfoitems: str) -> Any:
        """The names of the tasks that they know, with the attributes that are asked for."""
        return self.ask("registered", taskinfoitems=list(taskinfoitems))

    registered_tasks = registered

    def active_queues(self) -> Any:
        """The queues that they take from."""
        return self.ask("active_queues")

    def query_task(self, *ids: Any) -> Any:
        """Where tasks are: ``{id: [state, info]}``."""
        return self.ask("query_task", ids=list(ids[0] if len(ids) == 1 and not isinstance(ids[0], str) else ids))

    def conf(self, with_defaults: bool = False) -> Any:
        """Their settings, without secrets."""
        return self.ask("conf", with_defaults=with_defaults)

    def report(self) -> Any:
        """A description of the installation."""
        return self.ask("report")

    def clock(self) -> Any:
        """Their logical clocks."""
        return self.ask("clock")

    def hello(self, from_node: str, revoked: Any = None) -> Any:
        """What workers say to each other when they start."""
        return self.ask("hello", from_node=from_node, revoked=revoked)

    def memsample(self) -> Any:
        """The memory that they use."""
        return self.ask("memsample")

    def memdump(self, samples: int = 10) -> Any:
        """The last such measurements."""
        return self.ask("memdump", samples=samples)

    def objgraph(self, type: str = "Request", n: int = 200, max_depth: int = 10) -> Any:  # noqa: A002
        """A picture of objects in a Celery worker."""
        return self.ask("objgraph", num=n, max_depth=max_depth, type=type)
