"""Signals: connect a function to what an app or a worker does. Celery's names and arguments.

``from beatd.signals import task_failure``, then ``@task_failure.connect``.
"""

from __future__ import annotations

import inspect
import logging
import weakref
from collections.abc import Callable
from typing import Any

__all__ = [
    "Signal",
    "after_setup_logger",
    "after_setup_task_logger",
    "after_task_publish",
    "beat_embedded_init",
    "beat_init",
    "before_task_publish",
    "celeryd_after_setup",
    "celeryd_init",
    "eventlet_pool_apply",
    "eventlet_pool_postshutdown",
    "eventlet_pool_preshutdown",
    "eventlet_pool_started",
    "heartbeat_sent",
    "import_modules",
    "setup_logging",
    "task_failure",
    "task_internal_error",
    "task_postrun",
    "task_prerun",
    "task_received",
    "task_rejected",
    "task_retry",
    "task_revoked",
    "task_success",
    "task_unknown",
    "user_preload_options",
    "worker_before_create_process",
    "worker_init",
    "worker_process_init",
    "worker_process_shutdown",
    "worker_ready",
    "worker_shutdown",
    "worker_shutting_down",
]


log = logging.getLogger("beatd.app.signals")

Receiver = Callable[..., Any]


class Signal:
    """Something that happens. Receivers are held weakly, as Celery does: a function that nobody keeps is forgotten.

    ``careful`` signals go on when a receiver raises, and log it; the others let the error out, because what the
    receiver was meant to set up would be missing.
    """

    def __init__(self, name: str, *, careful: bool = True) -> None:
        self.name = name
        self._careful = careful
        self._receivers: list[tuple[Any, Callable[[], Receiver | None], Any]] = []

    def connect(
        self, receiver: Receiver | None = None, sender: Any = None, weak: bool = True, dispatch_uid: Any = None
    ) -> Any:
        """Call ``receiver(sender=…, **facts)`` whenever this happens. Also a decorator, bare or with arguments.

        With ``sender`` only for that one. ``dispatch_uid`` connects the same thing no more than once.
        """
        if receiver is None:
            return lambda function: self.connect(function, sender, weak, dispatch_uid)
        key = dispatch_uid if dispatch_uid is not None else _identity(receiver)
        # A forgotten receiver's identity may have gone to a new one.
        self._receivers = [item for item in self._receivers if item[1]() is not None]
        if not any(known == key and wanted is sender for known, _, wanted in self._receivers):
            self._receivers.append((key, _reference(receiver, weak), sender))
        return receiver

    def disconnect(self, receiver: Receiver | None = None, sender: Any = None, dispatch_uid: Any = None) -> bool:
        """Forget a receiver; tells whether it was connected."""
        key = dispatch_uid if dispatch_uid is not None else _identity(receiver)
        before = len(self._receivers)
        self._receivers = [
            item for item in self._receivers if not (item[0] == key and (sender is None or item[2] is sender))
        ]
        return len(self._receivers) < before

    @property
    def receivers(self) -> list[Receiver]:
        """Return the receivers that still exist."""
        return [receiver for _, reference, _ in self._receivers if (receiver := reference()) is not None]

    def send(self, sender: Any = None, **facts: Any) -> list[tuple[Receiver, Any]]:
        """Tell all receivers, in the order in which they connected; returns what each of them returned."""
        if not self._receivers:
            return []
        answers = []
        for _, reference, wanted in list(self._receivers):
            receiver = reference()
            if receiver is not None and _wants(wanted, sender):
                answers.append((receiver, self._tell(receiver, sender, facts)))
        return answers

    def _tell(self, receiver: Receiver, sender: Any, facts: dict[str, Any]) -> Any:
        if not self._careful:
            return receiver(sender=sender, **facts)
        try:
            return receiver(signal=self, sender=sender, **facts)
        except Exception as error:
            log.exception("Signal handler %r raised", receiver, extra={"event": "signal_handler_failed"})
            return error

    def __bool__(self) -> bool:
        """True if there may be receivers: lets hot paths skip the call."""
        return bool(self._receivers)

    def __repr__(self) -> str:
        return f"<Signal: {self.name}>"


def _wants(wanted: Any, sender: Any) -> bool:
    """A receiver may name a sender by itself or, for tasks, by name."""
    return wanted is None or wanted is sender or wanted == getattr(sender, "name", sender)


def _identity(receiver: Any) -> Any:
    if inspect.ismethod(receiver):
        return id(receiver.__self__), id(receiver.__func__)
    return id(receiver)


def _reference(receiver: Receiver, weak: bool) -> Callable[[], Receiver | None]:
    if not weak:
        return lambda: receiver
    if inspect.ismethod(receiver):
        return weakref.WeakMethod(receiver)
    try:
        return weakref.ref(receiver)
    except TypeError:  # built-in functions and the like cannot be held weakly
        return lambda: receiver


before_task_publish = Signal("before_task_publish")
"""In the client, sender: the task's name. Receivers may change ``headers``, ``properties`` and ``body``."""
after_task_publish = Signal("after_task_publish")
task_received = Signal("task_received")
"""In the worker's own process, with the ``request``; so are ``task_revoked``, ``…_rejected`` and ``…_unknown``."""
task_prerun = Signal("task_prerun")
"""Where the task runs, sender: the task; as are ``task_postrun``, ``…_success``, ``…_failure`` and ``…_retry``."""
task_postrun = Signal("task_postrun")
task_success = Signal("task_success")
task_failure = Signal("task_failure")
task_internal_error = Signal("task_internal_error")
task_retry = Signal("task_retry")
task_revoked = Signal("task_revoked")
task_rejected = Signal("task_rejected")
task_unknown = Signal("task_unknown")

import_modules = Signal("import_modules", careful=False)
"""Sender: the app, whose task modules are about to be imported."""
celeryd_init = Signal("celeryd_init")
"""Sender: the worker's name, before anything is set up; with the app as ``instance``, and ``conf``."""
celeryd_after_setup = Signal("celeryd_after_setup")
worker_init = Signal("worker_init")
worker_ready = Signal("worker_ready")
worker_shutting_down = Signal("worker_shutting_down")
worker_shutdown = Signal("worker_shutdown")
worker_before_create_process = Signal("worker_before_create_process")
worker_process_init = Signal("worker_process_init")
worker_process_shutdown = Signal("worker_process_shutdown")
heartbeat_sent = Signal("heartbeat_sent")

beat_init = Signal("beat_init")
"""Sender: the app, when the beat has read its entries."""
beat_embedded_init = Signal("beat_embedded_init")

setup_logging = Signal("setup_logging")
"""With a receiver, the worker leaves logging alone: the receiver configures it."""
after_setup_logger = Signal("after_setup_logger")
"""With ``logger``, the root logger: add handlers, change formats."""
after_setup_task_logger = Signal("after_setup_task_logger")

eventlet_pool_started = Signal("eventlet_pool_started")
"""There is no such pool; these four exist for modules that connect to them."""
eventlet_pool_preshutdown = Signal("eventlet_pool_preshutdown")
eventlet_pool_postshutdown = Signal("eventlet_pool_postshutdown")
eventlet_pool_apply = Signal("eventlet_pool_apply")
user_preload_options = Signal("user_preload_options")
