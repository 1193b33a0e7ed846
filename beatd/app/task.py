"""Tasks: a function with a name, options, hooks that a base class may override, and ways to call it elsewhere.

``Task.replace`` puts another call in the place of a task that is running.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any, ClassVar, Generic, ParamSpec, TypeVar

from beatd.app.base import AppBase
from beatd.app.canvas import chain, chunks, group, xmap, xstarmap
from beatd.app.canvas.signature import Signature, as_signature
from beatd.app.context import Context, current, running
from beatd.app.current import current_app
from beatd.app.pydantic_support import plain
from beatd.app.result import AsyncResult, EagerResult
from beatd.app.retry import next_attempt, retry_task
from beatd.exceptions import Ignore, MaxRetriesExceededError, Retry


class Hooks:
    """What they raise is logged and changes nothing, but for ``before_start``: that is a failure of the task."""

    def before_start(self, task_id: str, args: Any, kwargs: Any) -> None:
        """Called before each attempt."""

    def on_success(self, retval: Any, task_id: str, args: Any, kwargs: Any) -> None:
        """Called when the task returned."""

    def on_failure(self, exc: BaseException, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        """Called when the task failed for good."""

    def on_retry(self, exc: BaseException, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        """Called when the task will be tried again."""

    def after_return(  # noqa: PLR0917 - Celery's signature
        self, status: str, retval: Any, task_id: str, args: Any, kwargs: Any, einfo: Any
    ) -> None:
        """Called at the end, after success and failure."""

    def shadow_name(self, args: Any, kwargs: Any, options: Any) -> str | None:
        """What logs and monitors shall call a run of it, if that is not its name."""

    @classmethod
    def on_bound(cls, app: Any) -> None:
        """Called when it becomes a task of ``app``."""


def replace_task(task: Task[..., Any], call: Signature) -> Any:
    """See :meth:`beatd.Task.replace`."""
    request = task.request
    if "chord" in call.options:
        raise ValueError("what replaces a task must not belong to a chord itself")
    if isinstance(call, chain) and not call.tasks:
        raise ValueError("an empty chain cannot replace a task")
    call = _with_one_end(task, call.clone())
    if request.called_directly or request.is_eager:
        return call.apply().get()
    for callback in request.callbacks or ():
        call.link(callback)
    for errback in request.errbacks or ():
        call.link_error(errback)
    nesting: dict[str, Any] = {"replaced_task_nesting": request.replaced_task_nesting + 1}
    call.freeze(request.id)
    place = {"chord": request.chord, "group_id": request.group, "group_index": request.group_index}
    later = [as_signature(step, task.app).clone().set(**nesting) for step in request.chain or ()]
    options = {"root_id": request.root_id, "chain": later, **nesting, **place}
    call.apply_async(**{name: value for name, value in options.items() if value not in (None, [])})
    raise Ignore("replaced by another call")


def _with_one_end(task: Task[..., Any], call: Signature) -> Signature:
    """A group has as many results as members; with what gathers them it has one, under one id."""
    ends_in_group = isinstance(call, group) or (isinstance(call, chain) and isinstance(call.tasks[-1], group))
    if not ends_in_group:
        return call
    gather = Signature("celery.accumulate", (), {"index": 0}, app=task.app)
    joined: Signature = call | gather
    return joined


P = ParamSpec("P")
R = TypeVar("R")

FROM_CONF = {
    "acks_late": "task_acks_late",
    "acks_on_failure_or_timeout": "task_acks_on_failure_or_timeout",
    "ignore_result": "task_ignore_result",
    "rate_limit": "task_default_rate_limit",
    "reject_on_worker_lost": "task_reject_on_worker_lost",
    "serializer": "task_serializer",
    "soft_time_limit": "task_soft_time_limit",
    "store_errors_even_if_ignored": "task_store_errors_even_if_ignored",
    "time_limit": "task_time_limit",
    "track_started": "task_track_started",
}
"""Options that a task takes from the app's configuration where it does not set them itself."""

_SENT = ("queue", "exchange", "routing_key", "priority", "expires", "serializer", "time_limit", "soft_time_limit")
"""A task's options that go into each of its messages."""


class Task(Hooks, Generic[P, R]):
    """The base of all tasks; ``@app.task`` makes a subclass and its one instance out of a function.

    A base class of one's own may override ``__call__`` and the hooks, and set any of the options below.
    """

    app: AppBase
    name: str = ""
    abstract: ClassVar[bool] = True
    is_bound: bool = False
    """Whether its function gets the task as its first argument."""
    is_configured: bool = False
    takes_models: bool = False
    """Whether it was made with ``pydantic=True``."""
    run: Callable[..., Any]

    Request: Any = None
    """A subclass of :class:`beatd.worker.request.Request`, or ``"module:Name"`` of one."""
    max_retries: int | None = 3
    default_retry_delay: float = 180
    throws: tuple[type[BaseException], ...] = ()
    typing: bool = True
    trail: bool = True
    ignore_result: bool | None = None
    store_errors_even_if_ignored: bool | None = None
    acks_late: bool | None = None
    acks_on_failure_or_timeout: bool | None = None
    reject_on_worker_lost: bool | None = None
    track_started: bool | None = None
    rate_limit: str | float | None = None
    time_limit: float | None = None
    soft_time_limit: float | None = None
    serializer: str | None = None
    expires: Any = None
    priority: int | None = None
    queue: str | None = None
    exchange: str | None = None
    routing_key: str | None = None
    send_events: bool = True
    resultrepr_maxsize: int = 1024
    """Characters of its result in the log."""

    MaxRetriesExceededError = MaxRetriesExceededError

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function here and now, as if it were no task.

        From the ``__call__`` of a base class of one's own (``super().__call__``), it is the run that is going on.
        """
        now = current()
        if now is not None and now.task is self and not now.context.called_directly and not now.context.get("entered"):
            now.context.update(entered=True)  # what calls the task again, from inside of it, makes a call of its own
            return self.run(*args, **kwargs)  # type: ignore[no-any-return]
        with running(self, Context(task=self.name, args=args, kwargs=kwargs)):
            result: R = self.run(*args, **kwargs)
            return result

    # -- sending ------------------------------------------------------------------------------------------------------

    def delay(self, *args: P.args, **kwargs: P.kwargs) -> AsyncResult[R]:
        """Send it to a worker with these arguments."""
        return self.apply_async(args, kwargs)

    def apply_async(
        self,
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        task_id: str | None = None,
        *,
        shadow: str | None = None,
        **options: Any,
    ) -> AsyncResult[R]:
        """Send it to a worker.

        ``options``: ``countdown`` (seconds), ``eta`` (datetime), ``expires`` (seconds or datetime), ``queue``,
        ``priority``, ``headers``, ``time_limit``, ``soft_time_limit``, ``link``, ``link_error``, ``ignore_result`` and
        the rest of Celery's. Raises TypeError at once if the function does not take these arguments,
        :class:`~beatd.exceptions.MessageError` if JSON cannot carry them, and
        :class:`~beatd.exceptions.BrokerError` if the broker does not take the message.
        """
        args, kwargs = tuple(args or ()), dict(kwargs or {})
        if self.typing:
            self._check_arguments(args, kwargs)
        if self.takes_models:
            args, kwargs = tuple(map(plain, args)), {name: plain(value) for name, value in kwargs.items()}
        shadow = shadow or self.shadow_name(args, kwargs, options)
        if self.app.conf.task_always_eager:
            return self.apply(args, kwargs, task_id=task_id, **options)
        own = {name: value for name in _SENT if (value := self.__dict__.get(name, getattr(self, name))) is not None}
        options = {**own, "ignore_result": bool(self.ignore_result), **options, "task_id": task_id, "shadow": shadow}
        result: AsyncResult[R] = self.app.send_task(self.name, args, kwargs, **options)
        return result

    def apply(
        self,
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        *,
        task_id: str | None = None,
        throw: bool | None = None,
        retries: int = 0,
        **options: Any,
    ) -> EagerResult[R]:
        """Run it here and now with everything that belongs to a run: context, retries, hooks.

        ``throw`` (default: ``task_eager_propagates``) raises what the task raises.
        """
        how: dict[str, Any] = {"task_id": task_id, "throw": throw, "retries": retries, "options": options}
        result: EagerResult[R] = self.app.run_eagerly(self, tuple(args or ()), dict(kwargs or {}), **how)
        return result

    def signature(
        self, args: Iterable[Any] | None = None, kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> Signature:
        """The call as data, to be sent later."""
        immutable = bool(options.pop("immutable", False))
        given = options.pop("options", None) or {}
        return Signature(self.name, args, kwargs, {**given, **options}, app=self.app, immutable=immutable)

    subtask = signature

    def subtask_from_request(self, request: Context | None = None, *args: Any, **options: Any) -> Signature:
        """Celery's older name of :meth:`signature_from_request`."""
        return self.signature_from_request(request or self.request, *args, **options)

    def s(self, *args: P.args, **kwargs: P.kwargs) -> Signature:
        """The call as data; further arguments may come in front when it is sent."""
        return self.signature(args, kwargs)

    def si(self, *args: P.args, **kwargs: P.kwargs) -> Signature:
        """The call as data, with exactly these arguments."""
        return self.signature(args, kwargs, immutable=True)

    # -- inside a run -------------------------------------------------------------------------------------------------

    @property
    def request(self) -> Context:
        """What is known about the run that is going on; an empty context outside of one."""
        now = current()
        return now.context if now is not None and now.task is self else Context(task=self.name)

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
        """Ask for another attempt and end this one, by raising :class:`~beatd.exceptions.Retry`.

        It comes after ``countdown`` seconds or at ``eta`` (else after ``default_retry_delay`` seconds), under the same
        id, with the same arguments unless new ones are given. When there were ``max_retries`` already, ``exc`` is
        raised, or what is being handled now, or :class:`~beatd.exceptions.MaxRetriesExceededError`.
        """
        when = {"eta": eta, "countdown": countdown}
        return retry_task(self, args, kwargs, exc or sys.exc_info()[1], when, max_retries, options, throw=throw)

    def signature_from_request(
        self,
        request: Context,
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Signature:
        """The next attempt at a run: the same id, queue, limits and callbacks."""
        again = {**next_attempt(request), **{name: value for name, value in options.items() if value is not None}}
        args, kwargs = request.args if args is None else args, request.kwargs if kwargs is None else kwargs
        return self.signature(args, kwargs, options=again)

    def update_state(self, task_id: str | None = None, state: str | None = None, meta: Any = None, **_: Any) -> None:
        """Store a state of the task's own, with ``meta`` (JSON) as its result; waiting clients see it at once."""
        self.app.store_state(task_id or self.request.id or "", str(state), meta)

    def replace(self, sig: Any) -> Any:
        """Have ``sig`` run in place of this task, under its id: whoever waits for this one waits for that.

        What follows this task (callbacks, chain, chord) follows ``sig``. Use it as ``return self.replace(…)``: the task
        ends here. Raises :class:`~beatd.exceptions.Ignore`; called directly or eagerly, returns the value of ``sig``.
        """
        return replace_task(self, sig)

    def add_to_chord(self, sig: Signature, lazy: bool = False) -> Any:
        """Add ``sig`` to the header of the chord that this run belongs to; ``lazy``: it is returned, not sent."""
        request = self.request
        if not request.chord or not request.group:
            raise ValueError("this run belongs to no chord")
        place = {"group_id": request.group, "group_index": request.group_index, "chord": request.chord}
        sig.set(**place, root_id=request.root_id)
        sig.freeze()
        self.app.results.groups.grow(request.group)
        return sig if lazy else sig.delay()

    def add_trail(self, result: Any) -> Any:
        """Name ``result`` among the children of this run."""
        self.request.children.append(result)
        return result

    def map(self, it: Iterable[Any]) -> Any:
        """One message that calls the task with each item; see :class:`beatd.xmap`."""
        return xmap(self.s(), it, app=self.app)  # type: ignore[call-arg]

    def starmap(self, it: Iterable[Any]) -> Any:
        """As :meth:`map`, each item being the arguments of one call."""
        return xstarmap(self.s(), it, app=self.app)  # type: ignore[call-arg]

    def chunks(self, it: Iterable[Any], n: int) -> Any:
        """:meth:`starmap` in messages of ``n`` items each."""
        return chunks(self.s(), it, n, app=self.app)  # type: ignore[call-arg]

    @property
    def backend(self) -> Any:
        """The way to the results."""
        return self.app.results

    def add_around(self, attribute: str, around: Callable[[Any], Any]) -> None:
        """Replace an attribute by ``around(attribute)``."""
        setattr(self, attribute, around(getattr(self, attribute)))

    # -----------------------------------------------------------------------------------------------------------------

    def AsyncResult(self, task_id: str) -> AsyncResult[R]:  # noqa: N802 - Celery's name
        """The handle of a run of this task."""
        return AsyncResult(task_id, app=self.app)

    def _check_arguments(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        known = self.__dict__.get("_signature")
        if known is None or known[0] is not self.__dict__.get("run"):
            known = self.__dict__["_signature"] = (self.__dict__.get("run"), inspect.signature(self.run))
        try:
            known[1].bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{self.name}() {error}") from None

    def __repr__(self) -> str:
        return f"<@task: {self.name}>"

    def __reduce__(self) -> Any:
        return _task_named, (self.name,)


def _task_named(name: str) -> Task[..., Any]:
    """Where a pickled task comes out: the current app's."""
    return current_app().tasks[name]
