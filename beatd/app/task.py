"""Tasks: a function with a name, options and hooks, and the methods that send it to workers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar, Generic, ParamSpec, TypeVar

from beatd.app.canvas import chunks, xmap, xstarmap
from beatd.app.canvas.signature import Signature
from beatd.app.context import Context, RequestStack, context_of, current, running
from beatd.app.current import current_app
from beatd.app.eager_result import EagerResult
from beatd.app.message_options import Parameters, arguments, as_received
from beatd.app.pydantic_support import plain
from beatd.app.replacement import replace_task
from beatd.app.result import AsyncResult
from beatd.app.retry import options_of, retry_task, send_after_state
from beatd.exceptions import BrokerError, Ignore, MaxRetriesExceededError, Retry

if TYPE_CHECKING:
    import typing_extensions

    from beatd.app.app import App  # the public type of ``Task.app``

    P = typing_extensions.ParamSpec("P", default=...)  # for ``class Base(Task)``; at run time it needs Python 3.13
    R = typing_extensions.TypeVar("R", default=Any)
else:
    P, R = ParamSpec("P"), TypeVar("R")


class Hooks:
    """Task hooks, for base classes to override. An exception is logged only; in ``before_start`` it fails the task."""

    def before_start(self, task_id: str, args: Any, kwargs: Any) -> None:
        """Run before each attempt."""

    def on_success(self, retval: Any, task_id: str, args: Any, kwargs: Any) -> None:
        """Run after a success."""

    def on_failure(self, exc: BaseException, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        """Run after the final failure."""

    def on_retry(self, exc: BaseException, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        """Run before the task is retried."""

    def after_return(  # noqa: PLR0917 - Celery's signature
        self, status: str, retval: Any, task_id: str, args: Any, kwargs: Any, einfo: Any
    ) -> None:
        """Run after a success or the final failure."""

    def shadow_name(self, args: Any, kwargs: Any, options: Any) -> str | None:
        """Return a name for logs and monitors, or None for the task's own."""

    @classmethod
    def on_bound(cls, app: Any) -> None:
        """Run when the task is registered in ``app``."""


FROM_CONF = {
    "acks_late": "task_acks_late",
    "acks_on_failure_or_timeout": "task_acks_on_failure_or_timeout",
    "ignore_result": "task_ignore_result",
    "keep_result": "task_keep_result",
    "priority": "task_default_priority",
    "rate_limit": "task_default_rate_limit",
    "reject_on_worker_lost": "task_reject_on_worker_lost",
    "serializer": "task_serializer",
    "soft_time_limit": "task_soft_time_limit",
    "store_errors_even_if_ignored": "task_store_errors_even_if_ignored",
    "time_limit": "task_time_limit",
    "track_started": "task_track_started",
}
"""Options that default to a setting of the app."""

_SENT = (
    "queue",
    "exchange",
    "routing_key",
    "priority",
    "expires",
    "serializer",
    "compression",
    "time_limit",
    "soft_time_limit",
)
"""Task options that are copied into each message."""


class Task(Hooks, Generic[P, R]):
    """The base class of tasks; ``@app.task`` makes a subclass and its single instance out of a function.

    A custom base class may override ``__call__`` and the hooks, and set any of the options below.
    """

    app: App
    name: str = ""
    abstract: ClassVar[bool] = True
    is_bound: bool = False
    """True if the function takes the task as its first argument."""
    is_function: bool = False
    """True if it was made of a function."""
    is_configured: bool = False
    takes_models: bool = False
    """True if it was made with ``pydantic=True``."""
    run: Callable[..., Any]

    Request: Any = None
    """A subclass of :class:`beatd.worker.request.Request`, or ``"module:Name"`` of one."""
    max_retries: int | None = 3
    default_retry_delay: float = 180
    throws: tuple[type[BaseException], ...] = ()
    typing: bool = True
    trail: bool = True
    ignore_result: bool | None = None
    keep_result: bool | None = None
    """True: the result of a run of the schedule is a document as well, as that of any other task."""
    store_errors_even_if_ignored: bool | None = None
    acks_late: bool | None = None
    acks_on_failure_or_timeout: bool | None = None
    reject_on_worker_lost: bool | None = None
    track_started: bool | None = None
    rate_limit: str | float | None = None
    time_limit: float | None = None
    soft_time_limit: float | None = None
    serializer: str | None = None
    compression: str | None = None
    expires: Any = None
    priority: int | None = None
    queue: str | None = None
    exchange: str | None = None
    routing_key: str | None = None
    send_events: bool = True
    resultrepr_maxsize: int = 1024
    """Maximum characters of a result in the log."""

    MaxRetriesExceededError = MaxRetriesExceededError
    OperationalError = BrokerError

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function in this process, like a plain function.

        In a run of the task itself it belongs to that run: from the ``__call__`` of a custom base class
        (``super().__call__``), and from a task that calls itself.
        """
        now = current()
        if now is not None and now.task is self and not now.context.called_directly:
            return self.run(*args, **kwargs)  # type: ignore[no-any-return]
        with running(self, Context(task=self.name, args=args, kwargs=kwargs)):
            result: R = self.run(*args, **kwargs)
            return result

    # -- sending ------------------------------------------------------------------------------------------------------

    def delay(self, *args: P.args, **kwargs: P.kwargs) -> AsyncResult[R]:
        """Send the task to a worker with these arguments."""
        return self.apply_async(args, kwargs)

    def apply_async(  # noqa: PLR0917 - Celery's signature
        self,
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        task_id: str | None = None,
        producer: Any = None,  # noqa: ARG002 - Celery's; the app has one connection for what it sends
        link: Any = None,
        link_error: Any = None,
        shadow: str | None = None,
        **options: Any,
    ) -> AsyncResult[R]:
        """Send the task to a worker.

        ``options``: ``countdown`` (seconds), ``eta`` (datetime), ``expires`` (seconds or datetime), ``queue``,
        ``priority``, ``headers``, ``time_limit``, ``soft_time_limit``, ``link``, ``link_error``, ``ignore_result`` and
        the rest of Celery's. Raises TypeError if the function does not accept the arguments,
        :class:`~beatd.exceptions.MessageError` if JSON cannot carry them, and
        :class:`~beatd.exceptions.BrokerError` if the broker does not accept the message.
        """
        self.app.finalize()  # it completes the options below
        args, kwargs = arguments(self.name, args, kwargs)
        if link is not None:
            options["link"] = link
        if link_error is not None:
            options["link_error"] = link_error
        if self.typing:
            self._check_arguments(args, kwargs)
        if self.takes_models:
            args, kwargs = tuple(map(plain, args)), {name: plain(value) for name, value in kwargs.items()}
        shadow = shadow or self.shadow_name(args, kwargs, options)
        if self.app.conf["task_always_eager"]:
            args, kwargs = as_received([args, kwargs], options.get("serializer") or self.serializer)
            return self.apply(args, kwargs, task_id=task_id, **{**self.message_options(), **options})
        own: dict[str, Any] = {"ignore_result": bool(self.ignore_result), "task_type": self}
        if type(self).AsyncResult is not Task.AsyncResult:
            own["result_cls"] = self.AsyncResult
        options = {**own, **options, "task_id": task_id, "shadow": shadow}
        result: AsyncResult[R] = self.app.send_task(self.name, args, kwargs, **options)
        return result

    def message_options(self) -> dict[str, Any]:
        """Return the options that each message of the task has, unless the call gives others."""
        return {name: value for name in _SENT if (value := getattr(self, name)) is not None}

    def apply(  # noqa: PLR0917 - Celery's signature
        self,
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        link: Any = None,
        link_error: Any = None,
        task_id: str | None = None,
        retries: int | None = None,
        throw: bool | None = None,
        **options: Any,
    ) -> EagerResult[R]:
        """Run the task in this process, with context, retries and hooks.

        ``throw`` (default: ``task_eager_propagates``) raises the task's exception.
        """
        options |= {"link": link, "link_error": link_error}
        how: dict[str, Any] = {"task_id": task_id, "throw": throw, "retries": retries or 0, "options": options}
        result: EagerResult[R] = self.app.run_eagerly(self, tuple(args or ()), dict(kwargs or {}), **how)
        return result

    def signature(
        self,
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        *,
        immutable: bool = False,
        app: App | None = None,
        **more: Any,
    ) -> Signature:
        """Return the call as a signature, to be sent later; ``more`` are further options."""
        given = {**(options or {}), **more}
        return Signature(self.name, args, kwargs, given, app=app or self.app, immutable=bool(immutable))

    subtask = signature

    def s(self, *args: Any, **kwargs: Any) -> Signature:
        """Return a signature; arguments given later come in front of these, so that some may be missing here."""
        return self.signature(args, kwargs)

    def si(self, *args: P.args, **kwargs: P.kwargs) -> Signature:
        """Return an immutable signature: exactly these arguments."""
        return self.signature(args, kwargs, immutable=True)

    # -- inside a run -------------------------------------------------------------------------------------------------

    @property
    def request(self) -> Context:
        """The context of the running attempt; empty outside of one."""
        return context_of(self) or Context(task=self.name)

    @property
    def request_stack(self) -> RequestStack:
        """The contexts that :meth:`push_request` has set."""
        return RequestStack(self)

    def push_request(self, *args: Any, **fields: Any) -> None:
        """Set :attr:`request` in this thread or coroutine, until :meth:`pop_request`: for tests of a task's code.

        ``task.push_request(id="1", retries=2, called_directly=False)``
        """
        self.request_stack.push(Context(*args, **{"task": self.name, **fields}))

    def pop_request(self) -> None:
        """Undo the last :meth:`push_request`."""
        self.request_stack.pop()

    def retry(  # noqa: PLR0917 - Celery's signature
        self,
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        exc: BaseException | None = None,
        throw: bool = True,
        eta: datetime | None = None,
        countdown: float | None = None,
        max_retries: int | None = None,
        **options: Any,
    ) -> Retry:
        """Retry the task: enqueue another attempt and end this one, by raising :class:`~beatd.exceptions.Retry`.

        The next attempt starts after ``countdown`` seconds or at ``eta`` (default: after ``default_retry_delay``
        seconds), with the same id, and the same arguments unless new ones are given. After ``max_retries`` retries,
        ``exc`` is raised, or :class:`~beatd.exceptions.MaxRetriesExceededError` without one. In a task that was called
        as a function it is ``exc``, or ``Retry``, at once.
        """
        when = {"eta": eta, "countdown": countdown}
        return retry_task(self, args, kwargs, exc, when, max_retries, options, throw=throw)

    def signature_from_request(
        self,
        request: Context | None = None,
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Signature:
        """Return the signature of this call: the same id, queue, limits, callbacks and number of retries."""
        request = request or self.request
        again = options_of(request, options)
        if again["ignore_result"] is None:
            again["ignore_result"] = self.ignore_result
        args, kwargs = request.args if args is None else args, request.kwargs if kwargs is None else kwargs
        return self.signature(args, kwargs, again)

    subtask_from_request = signature_from_request

    def update_state(self, task_id: str | None = None, state: str | None = None, meta: Any = None, **more: Any) -> None:
        """Store a custom state, with ``meta`` (JSON, or an exception) as its result. Waiting clients are notified."""
        request = self.request
        named = str(task_id or request.id or "")
        own = request if named == request.id else None
        self.app.backend.store_result(named, meta, str(state), more.get("traceback"), own)
        if own is not None and not own.called_directly:
            own.stored_state = True

    def send_event(self, type_: str, retry: bool = True, retry_policy: Any = None, **fields: Any) -> None:  # noqa: ARG002
        """Send an event of this run to monitors: ``self.send_event("task-progress", percent=40)``."""
        self.app.sent_events.send(type_, {"uuid": self.request.id, **fields})

    def replace(self, sig: Any) -> Any:
        """Replace this task by ``sig``, which runs under the same id; clients wait for its result.

        The callbacks, chain and chord of this task are moved to ``sig``. Use ``return self.replace(…)``: the task ends
        here. Raises :class:`~beatd.exceptions.Ignore`; called directly or eagerly, returns the value of ``sig``.
        """
        return replace_task(self, sig)

    def on_replace(self, sig: Signature) -> Any:
        """Send the replacement of this run and end the run; an override must return ``super().on_replace(sig)``."""
        if self.request.called_directly or self.request.is_eager:
            return sig.apply().get()
        send_after_state(self, sig)
        raise Ignore("Replaced by new task")

    def add_to_chord(self, sig: Signature, lazy: bool = False) -> Any:
        """Add ``sig`` to the header of this run's chord. With ``lazy`` it is returned, not sent."""
        request = self.request
        if not request.chord or not request.group:
            raise ValueError("this task is not part of a chord")
        place = {"group_id": request.group, "group_index": request.group_index, "chord": request.chord}
        sig.set(**place, root_id=request.root_id)
        sig.freeze()
        self.app.results.groups.grow(request.group)
        return sig if lazy else sig.delay()

    def add_trail(self, result: Any) -> Any:
        """Add ``result`` to the children of this run, unless the task's option ``trail`` is off."""
        if self.trail:
            self.request.children.append(result)
        return result

    def map(self, it: Iterable[Any]) -> Any:
        """Return one message that calls the task with each item; see :class:`beatd.xmap`."""
        return xmap(self.s(), it, app=self.app)

    def starmap(self, it: Iterable[Any]) -> Any:
        """Return one message like :meth:`map`, where each item is the arguments of one call."""
        return xstarmap(self.s(), it, app=self.app)

    def chunks(self, it: Iterable[Any], n: int) -> Any:
        """Split :meth:`starmap` into messages of ``n`` items each."""
        return chunks(self.s(), it, n, app=self.app)

    @property
    def backend(self) -> Any:
        """The app's result backend."""
        return self.app.backend

    def add_around(self, attribute: str, around: Callable[[Any], Any]) -> None:
        """Replace a method by ``around(method)``: that of the class, but for ``run``."""
        owner = self if attribute == "run" else type(self)
        setattr(owner, attribute, around(getattr(owner, attribute)))

    def AsyncResult(self, task_id: str, **options: Any) -> AsyncResult[R]:  # noqa: N802 - Celery's name
        """Return the handle of a run of this task; that of a subclass is used for what is sent, too."""
        return AsyncResult(task_id, **{"app": self.app, **options})

    def _check_arguments(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        run, cached = self.__dict__.get("run"), self.__dict__.get("_parameters")
        if cached is None or cached[0] is not run:
            called = self.run if self.is_function or type(self).__call__ is Task.__call__ else self.__call__
            cached = self.__dict__["_parameters"] = (run, Parameters(called))
        try:
            cached[1].check(args, kwargs)
        except TypeError as error:
            raise TypeError(f"{self.name}() {error}") from None

    def __repr__(self) -> str:
        return f"<@task: {self.name}>"

    def __reduce__(self) -> Any:
        return _task_named, (self.name,)


def _task_named(name: str) -> Task[..., Any]:
    """Unpickle a task: the current app's task of that name."""
    return current_app().tasks[name]
