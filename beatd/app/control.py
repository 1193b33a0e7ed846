"""Remote control: ``app.control`` sends commands to workers, ``app.control.inspect()`` queries; replies are by node.

Each call opens and closes a connection of its own, so it is safe from any thread and process. Brokers other than Redis
and RabbitMQ cannot broadcast: :class:`~beatd.exceptions.BrokerError`.
"""

from __future__ import annotations

import fnmatch
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from beatd.app.base import AppBase
from beatd.app.routing import Queues
from beatd.broker import bus, purge
from beatd.broker.bus import BusMessage, ControlClient, LamportClock, Names, command_body
from beatd.exceptions import StoreError
from beatd.store.keys import Keys
from beatd.store.worker_state import RevokedStore
from beatd.url_keyprefix import own_prefix
from beatd.urls import is_redis, redis_url

Reply = dict[str, Any]
"""Node name → its reply."""
Destination = Sequence[str] | None


class Inspect:
    """Queries of workers: node → reply, or None without replies; for a single ``destination`` its reply."""

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
        """Send a query by name and collect the replies."""
        names = [self.destination] if isinstance(self.destination, str) else self.destination
        replies = self._control.broadcast(
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
        by_node = {node: answer for reply in replies or () for node, answer in reply.items()}
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
        """Ping workers: each replies ``{"ok": "pong"}``."""
        if destination:
            self.destination = destination
        return self.ask("ping")

    def active(self, safe: bool | None = None) -> Any:
        """Running tasks."""
        return self.ask("active", safe=safe)

    def scheduled(self, safe: bool | None = None) -> Any:  # noqa: ARG002 - Celery's signature
        """Tasks that wait for their ETA."""
        return self.ask("scheduled")

    def reserved(self, safe: bool | None = None) -> Any:  # noqa: ARG002 - Celery's signature
        """Prefetched tasks that have not started."""
        return self.ask("reserved")

    def stats(self) -> Any:
        """Worker statistics: totals, pool, broker, resource usage."""
        return self.ask("stats")

    def revoked(self) -> Any:
        """Ids of revoked tasks."""
        return self.ask("revoked")

    def registered(self, *taskinfoitems: str) -> Any:
        """Names of registered tasks, with the given task attributes."""
        return self.ask("registered", taskinfoitems=list(taskinfoitems))

    registered_tasks = registered

    def active_queues(self) -> Any:
        """Queues that workers consume."""
        return self.ask("active_queues")

    def query_task(self, *ids: Any) -> Any:
        """Locate tasks by id: ``{id: [state, info]}``."""
        return self.ask("query_task", ids=list(ids[0] if len(ids) == 1 and not isinstance(ids[0], str) else ids))

    def conf(self, with_defaults: bool = False) -> Any:
        """Settings of workers, without secrets."""
        return self.ask("conf", with_defaults=with_defaults)

    def report(self) -> Any:
        """Description of each worker's installation."""
        return self.ask("report")

    def clock(self) -> Any:
        """Logical clocks of workers."""
        return self.ask("clock")

    def hello(self, from_node: str, revoked: Any = None) -> Any:
        """Handshake (mingle) of a starting worker: logical clocks and revoked ids."""
        return self.ask("hello", from_node=from_node, revoked=revoked)

    def memsample(self) -> Any:
        """Take a memory sample."""
        return self.ask("memsample")

    def memdump(self, samples: int = 10) -> Any:
        """The last memory samples."""
        return self.ask("memdump", samples=samples)

    def objgraph(self, type: str = "Request", n: int = 200, max_depth: int = 10) -> Any:  # noqa: A002
        """Object graph of a Celery worker."""
        return self.ask("objgraph", num=n, max_depth=max_depth, type=type)


log = logging.getLogger(__name__)

_TERM = "SIGTERM"


class Control:
    """Remote control of the workers on an app's broker: beatd's and Celery's workers alike."""

    def __init__(self, app: AppBase) -> None:
        self._app = app
        self._lamport = LamportClock()

    def broadcast(  # noqa: PLR0917 - Celery's signature
        self,
        command: str,
        arguments: dict[str, Any] | None = None,
        destination: Destination = None,
        reply: bool = False,
        timeout: float | None = 1.0,
        limit: int | None = None,
        callback: Callable[[Reply], Any] | None = None,
        pattern: str | None = None,
        matcher: str | None = None,
        connection: Any = None,  # noqa: ARG002 - Celery's; each call opens a connection of its own
        channel: Any = None,  # noqa: ARG002 - as above
        **more: Any,
    ) -> list[Reply] | None:
        """Send a command to all workers, to ``destination``, or to workers whose names match ``pattern``.

        ``matcher`` is ``"glob"`` or ``"pcre"``. With ``reply``, collect replies until none arrives for ``timeout``
        seconds (None: one second), at most ``limit``; ``callback`` is called with each on arrival. Raises ValueError
        if ``destination`` is a string, and :class:`~beatd.exceptions.BrokerError`.
        """
        if isinstance(destination, str):
            raise ValueError(f"destination is a list of names, not {destination!r}")  # noqa: TRY004 - as Celery
        seconds = 1.0 if timeout is None else timeout
        body = command_body(command, {**(arguments or {}), **more}, destination, pattern, matcher)
        headers = {"clock": self._lamport.forward(), "expires": self._app.clock.now_ms() / 1000 + seconds}
        with self._client() as client:
            if not reply:
                client.tell(BusMessage(body, headers))
                return None
            replies = client.ask(BusMessage(body, headers), seconds, limit or len(destination or ()) or None)
            return list(self._received(replies, callback))

    def _client(self) -> ControlClient:
        conf = self._app.conf
        return bus.call(self._url, Names(conf.control_exchange, conf.event_exchange))

    @property
    def _url(self) -> str:
        url: Any = self._app.conf.broker_url
        return url if isinstance(url, str) else ";".join(url)

    def _remember(self, ids: list[str]) -> None:
        """Store revoked ids in the state store, for workers that are offline now."""
        own_store = self._app.conf.state_store
        url = own_store or (redis_url(self._url) if is_redis(self._url) else None)
        store = RevokedStore(url, Keys(own_prefix(url)), "state store" if own_store else "broker")
        try:
            store.remember(ids, self._app.clock.now_ms())
        except StoreError as error:
            log.warning(
                "Cannot store revoked ids, only workers that are online now get them: %s",
                error,
                extra={"event": "revoked_not_kept"},
            )
        finally:
            store.close()

    def _received(self, replies: Iterable[BusMessage], callback: Callable[[Reply], Any] | None) -> Iterator[Reply]:
        for reply in replies:
            self._lamport.adjust(reply.headers.get("clock"))
            if isinstance(reply.body, dict):
                if callback is not None:
                    callback(reply.body)
                yield reply.body

    def purge(self, connection: Any = None, *, queues: Sequence[str] | None = None) -> int:  # noqa: ARG002 - Celery's
        """Delete all messages that wait in this app's queues, or in ``queues``; returns their number.

        They cannot be restored.
        """
        conf = self._app.conf
        return purge(self._url, queues or Queues(conf).names or (str(conf.task_default_queue),))

    discard_all = purge

    def inspect(  # noqa: PLR0917 - Celery's signature
        self,
        destination: Destination | str = None,
        timeout: float = 1.0,
        callback: Callable[[Reply], Any] | None = None,
        limit: int | None = None,
        pattern: str | None = None,
        matcher: str | None = None,
        **_: Any,
    ) -> Inspect:
        """Return the queries of workers: ``inspect(timeout=2).active()``."""
        return Inspect(self, destination, timeout, callback, limit, pattern, matcher)

    def ping(self, destination: Destination = None, timeout: float = 1.0, **options: Any) -> list[Reply]:
        """Ping workers: ``[{"celery@host": {"ok": "pong"}}, …]``."""
        return self.broadcast("ping", destination=destination, reply=True, timeout=timeout, **options) or []

    def revoke(
        self,
        task_id: str | Iterable[str],
        destination: Destination = None,
        terminate: bool = False,
        signal: str | int | None = _TERM,
        **options: Any,
    ) -> list[Reply] | None:
        """Revoke tasks by id: workers skip them. With ``terminate``, tasks that run already are killed.

        The ids are kept in the state store for beatd's workers that are offline now.
        """
        ids = task_id if isinstance(task_id, str) else list(task_id)
        self._remember([ids] if isinstance(ids, str) else ids)
        arguments = {"task_id": ids, "terminate": terminate, "signal": signal or _TERM}
        return self.broadcast("revoke", arguments, destination, **options)

    def revoke_by_stamped_headers(
        self,
        headers: dict[str, Any],
        destination: Destination = None,
        terminate: bool = False,
        signal: str | int | None = _TERM,
        **options: Any,
    ) -> list[Reply] | None:
        """Revoke tasks by stamp: workers skip those that were sent with one of these stamps."""
        arguments = {"headers": headers, "terminate": terminate, "signal": signal or _TERM}
        return self.broadcast("revoke_by_stamped_headers", arguments, destination, **options)

    def terminate(
        self,
        task_id: str | Iterable[str],
        destination: Destination = None,
        signal: str | int | None = _TERM,
        **options: Any,
    ) -> list[Reply] | None:
        """Revoke tasks by id, and kill those that run: :meth:`revoke` with ``terminate``."""
        return self.revoke(task_id, destination, terminate=True, signal=signal, **options)

    def rate_limit(
        self, task_name: str, rate_limit: str | float, destination: Destination = None, **options: Any
    ) -> list[Reply] | None:
        """Set a task's rate limit per worker: ``"10/s"``, ``"100/m"``, 0 for no limit."""
        return self.broadcast("rate_limit", {"task_name": task_name, "rate_limit": rate_limit}, destination, **options)

    def time_limit(
        self,
        task_name: str,
        soft: float | None = None,
        hard: float | None = None,
        destination: Destination = None,
        **options: Any,
    ) -> list[Reply] | None:
        """Set a task's time limits, in seconds."""
        arguments = {"task_name": task_name, "hard": hard, "soft": soft}
        return self.broadcast("time_limit", arguments, destination, **options)

    def add_consumer(  # noqa: PLR0917 - Celery's signature
        self,
        queue: str,
        exchange: str | None = None,
        exchange_type: str = "direct",
        routing_key: str | None = None,
        options: dict[str, Any] | None = None,
        destination: Destination = None,
        **more: Any,
    ) -> list[Reply] | None:
        """Make workers consume another queue."""
        arguments = {"queue": queue, "exchange": exchange, "exchange_type": exchange_type, "routing_key": routing_key}
        return self.broadcast("add_consumer", {**arguments, **(options or {})}, destination, **more)

    def cancel_consumer(self, queue: str, destination: Destination = None, **options: Any) -> list[Reply] | None:
        """Make workers stop consuming a queue."""
        return self.broadcast("cancel_consumer", {"queue": queue}, destination, **options)

    def enable_events(self, destination: Destination = None, **options: Any) -> list[Reply] | None:
        """Make workers send task events."""
        return self.broadcast("enable_events", {}, destination, **options)

    def disable_events(self, destination: Destination = None, **options: Any) -> list[Reply] | None:
        """Make workers stop sending task events."""
        return self.broadcast("disable_events", {}, destination, **options)

    def pool_grow(self, n: int = 1, destination: Destination = None, **options: Any) -> list[Reply] | None:
        """Add ``n`` processes or threads to the pools."""
        return self.broadcast("pool_grow", {"n": n}, destination, **options)

    def pool_shrink(self, n: int = 1, destination: Destination = None, **options: Any) -> list[Reply] | None:
        """Remove ``n`` processes or threads from the pools."""
        return self.broadcast("pool_shrink", {"n": n}, destination, **options)

    def autoscale(self, max: int, min: int, destination: Destination = None, **options: Any) -> list[Reply] | None:  # noqa: A002
        """Set the bounds of autoscaled pools."""
        return self.broadcast("autoscale", {"max": max, "min": min}, destination, **options)

    def pool_restart(
        self,
        modules: Sequence[str] | None = None,
        reload: bool = False,
        reloader: Any = None,
        destination: Destination = None,
        **options: Any,
    ) -> list[Reply] | None:
        """Restart the pools of Celery's workers; beatd's refuse."""
        arguments = {"modules": modules, "reload": reload, "reloader": reloader}
        return self.broadcast("pool_restart", arguments, destination, **options)

    def heartbeat(self, destination: Destination = None, **options: Any) -> list[Reply] | None:
        """Make workers send a heartbeat now."""
        return self.broadcast("heartbeat", {}, destination, **options)

    def shutdown(self, destination: Destination = None, **options: Any) -> list[Reply] | None:
        """Shut workers down after their running tasks (warm shutdown)."""
        return self.broadcast("shutdown", {}, destination, **options)
