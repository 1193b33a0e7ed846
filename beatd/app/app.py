"""App: a registry of tasks with a configuration, a publisher to the broker and a client of the result backend.

Connections are opened on first use. Periodic tasks for the beat (``conf.beat_schedule``, ``add_periodic_task``) are
collected as plain data.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from functools import cached_property
from typing import Any, Concatenate, Literal, ParamSpec, TypeVar, overload
from zoneinfo import ZoneInfo

from beatd import broker
from beatd.app import current
from beatd.app.amqp import AMQP
from beatd.app.backend import Backend
from beatd.app.canvas.signature import Signature, as_signature
from beatd.app.conf import Conf
from beatd.app.context import current as current_run
from beatd.app.context import is_in_worker, outlet, worker_run
from beatd.app.control import Control
from beatd.app.entrypoints import EntryPoints
from beatd.app.find_app import import_symbol
from beatd.app.group_result import GroupResult, ResultSet
from beatd.app.loader import Loader, TaskRegistry, checked_base, module_names, task_class, warn_of_another
from beatd.app.message_options import arguments, check_options, message_for, utc_now
from beatd.app.publishing import Collected, Outgoing, SentEvents, retry_policy
from beatd.app.registration import Registration, from_conf, registration, warn_of_own_clock
from beatd.app.result import AsyncResult
from beatd.app.result_backends import is_by_reply, open_results
from beatd.app.routing import Queues, Route, route_for
from beatd.app.task import Task as BaseTask
from beatd.app.trace import run_eagerly
from beatd.broker import Publisher, is_redis
from beatd.broker.publisher import RetryPolicy
from beatd.clock import Clock, SystemClock
from beatd.exceptions import BrokerError, MessageError, StoreUnavailable
from beatd.message.protocol import TaskMessage, new_id
from beatd.schedules import zone
from beatd.store.results import Results, Stored

FIXUPS = ("beatd.contrib.django:install",)
"""Framework integrations. Each is called with every new app, and does nothing where its framework is not in use."""

P = ParamSpec("P")
R = TypeVar("R")


class App(EntryPoints, Loader):
    """An application. ``main`` is the module name of tasks that are defined in ``__main__``.

    ``broker`` and ``backend`` are URLs; further keywords are settings (``timezone="Asia/Baku"``), and so are
    ``changes``. ``task_cls`` is the base class of its tasks, or ``"module:Class"``; without ``strict_typing`` their
    arguments are not checked. Where ``DJANGO_SETTINGS_MODULE`` is set, the app integrates with Django, see
    :mod:`beatd.contrib.django`. The constructor opens no connection. Tests hand in ``publisher``, ``results`` and
    ``clock``.
    """

    task_cls: Any = None
    """Base class of the app's tasks, or ``"module:Class"``; for subclasses to set."""

    def __init__(
        self,
        main: str | None = None,
        broker: str | None = None,
        backend: str | None = None,
        *,
        include: Iterable[str] | None = (),
        changes: Mapping[str, Any] | None = None,
        config_source: Any = None,
        namespace: str | None = None,
        set_as_current: bool = True,
        task_cls: Any = None,
        strict_typing: bool = True,
        clock: Clock | None = None,
        publisher: Publisher | None = None,
        results: Results | None = None,
        **conf: Any,
    ) -> None:
        given = {"broker_url": broker, "result_backend": backend, "include": module_names(include)}
        self.main = main
        self.clock = clock or SystemClock()
        self.strict_typing = strict_typing
        self.conf = Conf({**(changes or {}), **{name: value for name, value in given.items() if value}, **conf})
        self.tasks = TaskRegistry(self.import_tasks)
        self.oid = new_id()
        if task_cls is not None:
            self.task_cls = task_cls
        self._periodic: dict[str, Registration] = {}
        self._handed_in = {k: part for k, part in (("publisher", publisher), ("results", results)) if part is not None}
        self.__dict__.update(self._handed_in)
        super().__init__()
        if config_source is not None:
            self.config_from_object(config_source, namespace=namespace)
        if set_as_current:
            current.set_current_app(self)
        for fixup in FIXUPS:
            import_symbol(fixup)(self)

    # -- tasks --------------------------------------------------------------------------------------------------------

    @overload
    def task(self, fun: Callable[P, R], /) -> BaseTask[P, R]: ...

    @overload
    def task(
        self, *, bind: Literal[True], **options: Any
    ) -> Callable[[Callable[Concatenate[Any, P], R]], BaseTask[P, R]]: ...

    @overload
    def task(self, *, bind: Literal[False] = False, **options: Any) -> Callable[[Callable[P, R]], BaseTask[P, R]]: ...

    def task(self, fun: Any = None, *, bind: bool = False, **options: Any) -> Any:
        """Make a task of a function: ``@app.task``, or ``@app.task(bind=True, max_retries=5, …)``.

        Any other keyword becomes an attribute of the task; ``raises`` is taken for ``throws``.
        """
        options["bind"] = bind
        if fun is None:
            return lambda function: self.task_from(function, options)
        if not callable(fun):
            raise TypeError(f"@app.task takes keyword arguments only, not {fun!r}")
        return self.task_from(fun, options)

    def task_from(self, fun: Callable[..., Any], options: dict[str, Any]) -> BaseTask[..., Any]:
        """Make a task of ``fun`` with the keywords of :meth:`task`, or return the registered task of that name.

        So a module may be imported twice. A different function with the same name is logged.
        """
        options = dict(options)
        name = options.pop("name", None) or self.gen_task_name(fun.__name__, fun.__module__)
        if name in self.tasks:
            warn_of_another(self.tasks, name, fun)
        else:
            made = self.prepare_task(task_class(fun, name, self.Task, options)())
            if self.tasks.setdefault(name, made) is made:  # no other thread was quicker
                self.bind_task(made)
        return self.tasks[name]

    def register_task(self, task: Any) -> BaseTask[..., Any]:
        """Add a task object (an instance of a subclass of :class:`beatd.Task`, or such a class)."""
        instance: BaseTask[..., Any] = self.prepare_task(task() if isinstance(task, type) else task)
        self.tasks[instance.name] = instance
        self.bind_task(instance)
        return instance

    @cached_property
    def Task(self) -> type[BaseTask[..., Any]]:  # noqa: N802 - Celery's name
        """The base class of this app's tasks."""
        base = import_symbol(self.task_cls) if isinstance(self.task_cls, str) else self.task_cls or BaseTask
        attributes = {"app": self, "__module__": __name__, **({} if self.strict_typing else {"typing": False})}
        return type("Task", (checked_base(base, str(self.main or "app"), "task_cls"),), attributes)

    # -- the beat -----------------------------------------------------------------------------------------------------

    def add_periodic_task(
        self,
        schedule: Any,
        sig: Signature | BaseTask[..., Any],
        args: Iterable[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        name: str | None = None,
        **opts: Any,
    ) -> str:
        """Add an entry: the beat sends ``sig`` by ``schedule`` (seconds, timedelta, ``crontab(…)``). Returns its name.

        ``opts`` are options of ``apply_async``. The default name is the call as text: ``tasks.test('world')``.
        """
        default_name, entry = registration(schedule, sig, args, kwargs, opts)
        self._periodic[name or default_name] = entry
        warn_of_own_clock(name or default_name, schedule)
        return name or default_name

    def registrations(self) -> dict[str, Registration]:
        """Return this app's periodic entries: name → task, schedule, args, kwargs, options."""
        self.import_tasks()
        return {**from_conf(self.conf.beat_schedule), **self._periodic}

    # -- sending ------------------------------------------------------------------------------------------------------

    def send_task(
        self,
        name: str,
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> AsyncResult[Any]:
        """Send a task by name; it need not be registered here. If it is, options that are not given are the task's.

        Options, errors: see :meth:`beatd.Task.apply_async`.
        """
        self.finalize()
        args, kwargs = arguments(name, args, kwargs)
        task = options.get("task_type") or self.tasks.get(name)
        options = options if task is None else {**task.message_options(), **options}
        check_options(options)
        running = worker_run()
        parent = None if running is None else running.context
        if parent is not None:
            options["root_id"] = options.get("root_id") or parent.root_id
            options["parent_id"] = options.get("parent_id") or parent.id
        routed = options.get("route_name") or name
        route = route_for(routed, args, kwargs, options, self.conf, task)
        options |= {option: value for option, value in route.options.items() if options.get(option) is None}
        options["serializer"] = options.get("serializer") or self.conf["task_serializer"]
        if parent is not None and self.conf.task_inherit_parent_priority and options.get("priority") is None:
            options["priority"] = (parent.delivery_info or {}).get("priority")
        if not options.get("ignore_result") and is_by_reply(self.conf["result_backend"]):
            options["reply_to"] = options.get("reply_to") or self.reply_address()
        now = utc_now(self.clock.now_ms())
        try:
            message = message_for(name, args, kwargs, options, now=now, timezone=self.timezone.key)
        except MessageError as error:
            raise MessageError(f"{name} cannot be sent: {error}") from None
        if len(message.body) > (most := self.conf["message_max_bytes"]):
            limit = f"more than message_max_bytes ({most}) allows"
            raise MessageError(f"{name} cannot be sent: its message has {len(message.body)} bytes, {limit}")
        compression = options.get("compression") or self.conf["task_compression"]
        self.publish(message, route, compression, retry_policy(options, self.conf))
        result: AsyncResult[Any] = (options.get("result_cls") or self.AsyncResult)(message.id)
        result.ignored = bool(options.get("ignore_result"))
        if running is not None and running.context.id != message.id and options.get("add_to_parent", True):
            running.task.add_trail(result)
        return result

    def reply_address(self) -> str:
        """Return the queue for results of tasks that are sent now; empty in a task, which does not wait for them."""
        if not is_by_reply(self.conf.result_backend):
            return self.oid
        if is_in_worker():
            return ""
        try:
            return self.results.expect() or ""
        except StoreUnavailable as error:
            raise BrokerError(str(error)) from error

    def signature(self, task: Any, args: Any = None, kwargs: Any = None, options: Any = None, **more: Any) -> Signature:
        """Return a signature that this app sends: of a task or its name, from a JSON dict, or a copy of a signature."""
        if isinstance(task, Signature):
            return task.clone()
        if isinstance(task, Mapping):
            return as_signature(task, self)
        return Signature(task, args, kwargs, options, **{**more, "app": self})

    def run_eagerly(self, task: Any, args: Iterable[Any], kwargs: Mapping[str, Any], **options: Any) -> Any:
        """Run ``task`` in this process; see :func:`beatd.app.trace.run_eagerly`."""
        return run_eagerly(task, tuple(args), dict(kwargs), **options)

    @cached_property
    def control(self) -> Control:
        """Remote control of the workers: ``app.control.revoke(id)``, ``app.control.inspect().active()``."""
        return Control(self)

    @cached_property
    def amqp(self) -> AMQP:
        """The queues and the router: ``app.amqp.router.route({}, name)["queue"].name``, ``app.amqp.queues``."""
        return AMQP(self)

    # -- connections --------------------------------------------------------------------------------------------------

    def connection(self, url: str | None = None, **options: Any) -> Any:
        """Return a ``kombu.Connection`` to the broker, for a program's own messages; it connects on first use."""
        given: str | list[str] = url or self.conf.broker_url
        options = {"transport_options": dict(self.conf.broker_transport_options or {}), **options}
        return broker.connection(given if isinstance(given, str) else ";".join(given), **options)

    def connection_for_read(self, url: str | None = None, **options: Any) -> Any:
        """Return :meth:`connection` to ``broker_read_url``, if there is one."""
        return self.connection(url or self.conf.broker_read_url, **options)

    def connection_for_write(self, url: str | None = None, **options: Any) -> Any:
        """Return :meth:`connection` to ``broker_write_url``, if there is one."""
        return self.connection(url or self.conf.broker_write_url, **options)

    @cached_property
    def publisher(self) -> Publisher:
        """The broker connection for task messages; connects on first use."""
        url = self.conf.broker_write_url
        urls = url if isinstance(url, str) else ";".join(url)
        return broker.open(
            urls.split(";")[0] if is_redis(urls) else urls,
            arguments=Queues(self.conf).arguments,
            transport_options=self.conf.broker_transport_options,
        )

    @cached_property
    def outgoing(self) -> Outgoing:
        """The publishing pipeline: signals, compression, batches."""
        return Outgoing(lambda: self.publisher, self._tell_monitors, str(self.conf.task_default_queue))

    @cached_property
    def sent_events(self) -> SentEvents:
        """The sender of ``task-sent`` events."""
        return SentEvents(self.conf, self.clock)

    def _tell_monitors(self, sent: Sequence[Collected]) -> None:
        if sent and self.conf["task_send_sent_event"]:
            self.sent_events.tell(sent)

    def publish(
        self, message: TaskMessage, route: Route, compression: str | None = None, policy: RetryPolicy | None = None
    ) -> None:
        """Publish a message; raises :class:`~beatd.exceptions.BrokerError`."""
        self.outgoing.send(message, route, compression, policy)

    def publishing_together(self) -> AbstractContextManager[None]:
        """Batch the messages that are sent in the block: they leave at its end, or not at all if it raises."""
        return self.outgoing.together()

    @cached_property
    def results(self) -> Results:
        """The result backend. Without a ``result_backend`` nothing is stored, and reading results is an error."""
        return open_results(self.conf, self.oid, self.connection)

    @cached_property
    def backend(self) -> Backend:
        """The result backend with the methods that Celery's backends have."""
        return Backend(self)

    def AsyncResult(self, id: str, **options: Any) -> AsyncResult[Any]:  # noqa: A002, N802 - Celery's names
        """Return the handle of the task with that id."""
        return AsyncResult(id, **{"app": self, **options})

    @cached_property
    def GroupResult(self) -> type[GroupResult]:  # noqa: N802 - Celery's name
        """Handles of several tasks under one id: ``app.GroupResult(id, results)``, ``app.GroupResult.restore(id)``."""
        return type("GroupResult", (GroupResult,), {"of": self})

    def ResultSet(self, results: Any = None, **options: Any) -> ResultSet:  # noqa: N802 - Celery's name
        """Return one handle for several tasks."""
        return ResultSet(results, **{"app": self, **options})

    def store_results(self, results: Sequence[Stored]) -> None:
        """Store results: here, or by the worker whose thread runs this task."""
        way_out = outlet.get()
        (self.results.store if way_out is None else way_out.results)(results)

    @property
    def current_task(self) -> Any:
        """The task of this app that runs in this thread or coroutine, else None."""
        running = current_run()
        return running.task if running is not None and running.task.app is self else None

    @property
    def current_worker_task(self) -> Any:
        """The innermost task of this app that was not called as a function, else None."""
        running = worker_run()
        return running.task if running is not None and running.task.app is self else None

    @property
    def finalized(self) -> bool:
        """True once the tasks are complete: after :meth:`finalize`."""
        return self._finalized

    @property
    def timezone(self) -> ZoneInfo:
        """The time zone of naive times. Raises ScheduleError for one that is unknown, or has no name."""
        return zone(self.conf["timezone"] or "UTC").info

    def now(self) -> datetime:
        """Return the time in :attr:`timezone`."""
        return utc_now(self.clock.now_ms()).astimezone(self.timezone)

    def close(self) -> None:
        """Close all connections; the next use opens them again. Parts that were handed in stay as they are."""
        for name in {"publisher", "results", "sent_events"} - self._handed_in.keys():
            if (part := self.__dict__.pop(name, None)) is not None:
                part.close()

    def set_current(self) -> None:
        """Make it the current app: the one that shared tasks belong to."""
        current.set_current_app(self)

    set_default = set_current

    def __enter__(self) -> App:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<App {self.main or '__main__'}>"
