"""Entry points of an app that starts itself: a worker, a daemon, any command; and connections for its own messages.

The command line imports the app, so it is imported by name.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

from beatd import broker
from beatd.app.base import AppBase
from beatd.app.events import Events
from beatd.app.find_app import import_symbol

WORKER_MAIN, COMMAND_MAIN = "beatd.cli.worker:run_for_app", "beatd.cli.run:command_for_app"
BEAT, REPORT = "beatd.cli.run:AppBeat", "beatd.cli.report:bug_report"
REDIRECT = "beatd.worker.task_logging:redirect_stdouts"

INSTEAD = {
    "amqp": "app.connection() and kombu's producers do its work; beatd worker -Q and app.control.add_consumer, queues",
    "annotations": "use the setting task_annotations",
    "fixups": "call the function from the signal worker_init",
    "loader": "app.import_tasks() imports the task modules; there are the signals import_modules and worker_init",
    "steps": "bootsteps are parts of Celery's worker: use the signals worker_init, worker_ready and worker_shutdown",
    "user_options": "read options from the environment or a file",
    "WorkController": "run beatd worker as a process",
    "Worker": "run beatd worker as a process",
    "on_after_fork": "use the signal worker_process_init",
}
"""Attributes of Celery's apps that beatd's have not, each with what to do instead."""


class Log:
    """``app.log``."""

    def redirect_stdouts_to_logger(
        self, logger: logging.Logger, loglevel: int | str | None = None, stdout: bool = True, stderr: bool = True
    ) -> None:
        """Have the lines of stdout and stderr go to ``logger``; default level: WARNING."""
        import_symbol(REDIRECT)(loglevel or "WARNING", logger, stdout=stdout, stderr=stderr)

    def get_default_logger(self, name: str = "celery", **_celerys: Any) -> logging.Logger:
        """Return the logger of that name."""
        return logging.getLogger(name)


class EntryPoints(AppBase):
    """The methods of an app by which a program becomes its worker, its daemon or its monitor."""

    def worker_main(self, argv: list[str] | None = None) -> None:
        """Run a worker for this app. ``argv`` is its command line, with or without the word ``worker``.

        Without ``argv`` it is what follows the word ``worker`` on the command line of the program, if that is there.
        """
        if argv is None:
            argv = sys.argv[sys.argv.index("worker", 1) :] if "worker" in sys.argv[1:] else []
        import_symbol(WORKER_MAIN)(self, list(argv))

    def start(self, argv: list[str] | None = None) -> None:
        """Run the command on the command line of the program: ``worker``, ``beat``, or any other of beatd's.

        Without a command it runs a worker.
        """
        words = list(sys.argv[1:] if argv is None else argv)
        if not words or words[0] == "worker":
            self.worker_main(words)
        else:
            import_symbol(COMMAND_MAIN)(self, words)

    def Beat(self, **options: Any) -> Any:  # noqa: N802 - Celery's name
        """Return a daemon for this app: ``app.Beat(loglevel="info").run()``. Celery's further options are ignored."""
        return import_symbol(BEAT)(self, **options)

    def bugreport(self) -> str:
        """Return versions of software and the app's settings as text, without secrets."""
        return str(import_symbol(REPORT)(self))

    @cached_property
    def events(self) -> Events:
        """Events of workers, for monitors: ``app.events.Receiver(handlers={"task-failed": told}).capture()``."""
        return Events(self)

    @cached_property
    def log(self) -> Log:
        """Logging, as far as tasks of Celery use it: the output of a block to a logger."""
        return Log()

    @cached_property
    def pool(self) -> Any:
        """The pool of ``kombu`` with connections to the broker: ``with app.pool.acquire(block=True) as connection``."""
        return broker.pool(self.connection())

    @cached_property
    def producer_pool(self) -> Any:
        """The pool of ``kombu`` with producers: ``with app.producer_pool.acquire(block=True) as producer``."""
        return broker.pool(self.connection(), producers=True)

    if not TYPE_CHECKING:  # a type checker shall know the attributes

        def __getattr__(self, name: str) -> Any:
            """Raise AttributeError, with what to do instead of an attribute of Celery's."""
            advice = f": {INSTEAD[name]}" if name in INSTEAD else ""
            raise AttributeError(f"an app of beatd has no {name!r}{advice}", name=name, obj=self)

    @contextmanager
    def connection_or_acquire(self, connection: Any = None, pool: bool = True) -> Iterator[Any]:  # noqa: ARG002
        """Yield ``connection``, or a new one that is closed at the end."""
        if connection is not None:
            yield connection
            return
        with self.connection() as opened:
            yield opened

    @contextmanager
    def producer_or_acquire(self, producer: Any = None) -> Iterator[Any]:
        """Yield ``producer``, or a ``kombu.Producer`` with a connection of its own that is closed at the end."""
        if producer is not None:
            yield producer
            return
        with self.connection() as opened:
            yield opened.Producer()
