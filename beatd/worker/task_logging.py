"""Task logging: as Celery's, by the app's settings, unless a handler of ``setup_logging`` takes over."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from beatd import signals
from beatd.log import TASK_LOGGER

if TYPE_CHECKING:
    from beatd.app.app import App

REDIRECTED = "celery.redirected"
"""The logger of what tasks print; Celery's name."""


class CeleryFormatter(logging.Formatter):
    """Two formats: one for task loggers, which may use ``task_name`` and ``task_id``, and one for all others."""

    def __init__(self, line: str, task_line: str) -> None:
        super().__init__(line)
        self._of_tasks = logging.Formatter(task_line)

    def format(self, record: logging.LogRecord) -> str:
        if hasattr(record, "task_name") and hasattr(record, "task_id"):
            return self._of_tasks.format(record)
        return super().format(record)


def set_up(
    app: App, level: str, *, ours: list[logging.Handler], celery_format: bool, logfile: str | None = None
) -> None:
    """Finish what was begun before the app was known: formats, signals, and where ``print`` goes.

    ``ours`` is what :func:`beatd.log_format.configure` gave to the root logger. Handlers that the app's modules have
    put there since go, as in Celery; with ``worker_hijack_root_logger`` off they stay, and ours go.
    """
    app.finalize()  # task modules and frameworks may configure logging, too: this comes last
    root, conf = logging.getLogger(), app.conf
    theirs = [handler for handler in root.handlers if handler not in ours]
    if conf.worker_hijack_root_logger or not theirs:
        root.handlers[:] = ours
        root.setLevel(level.upper())
        _enable()
    else:
        root.handlers[:] = theirs
    facts = {
        "loglevel": logging.getLevelName(level.upper()),
        "logfile": logfile,
        "format": conf.worker_log_format,
        "colorize": False,
    }
    if signals.setup_logging:
        root.handlers.clear()  # whoever wants to do it does all of it
        for _, answer in signals.setup_logging.send(sender=None, **facts):
            if isinstance(answer, BaseException):
                raise answer
        return
    if celery_format and root.handlers == ours:
        formatter = CeleryFormatter(conf.worker_log_format, conf.worker_task_log_format)
        for handler in root.handlers:
            handler.setFormatter(formatter)
    signals.after_setup_logger.send(sender=None, logger=root, **facts)
    task_facts = {**facts, "format": conf.worker_task_log_format}
    signals.after_setup_task_logger.send(sender=None, logger=logging.getLogger(TASK_LOGGER), **task_facts)
    if conf.worker_redirect_stdouts:
        redirect_stdouts(conf.worker_redirect_stdouts_level)


def _enable() -> None:
    """``logging.config`` turns off, by default, all loggers that it is not told of."""
    for name, logger in logging.Logger.manager.loggerDict.items():
        if isinstance(logger, logging.Logger) and name.partition(".")[0] in ("beatd", "celery"):
            logger.disabled = False


def redirect_stdouts(level: int | str) -> None:
    """Have what is printed logged, line by line, at ``level``."""
    number = logging.getLevelName(level.upper()) if isinstance(level, str) else level
    logger = logging.getLogger(REDIRECTED)
    sys.stdout = Redirected(sys.stdout, logger, number)
    sys.stderr = Redirected(sys.stderr, logger, number)


@contextmanager
def streams_restored() -> Iterator[None]:
    """At the end of the block ``print`` writes to where it wrote before: what ends a worker is said on its terminal."""
    streams = sys.stdout, sys.stderr
    try:
        yield
    finally:
        sys.stdout, sys.stderr = streams


class Redirected:
    """A text stream whose lines are logged. What a handler writes while it does so goes to the stream behind it."""

    def __init__(self, stream: Any, logger: logging.Logger, level: int) -> None:
        self._stream = stream
        self._logger = logger
        self._level = level
        self._mine = threading.local()

    def write(self, text: str) -> int:
        """Log the lines that are complete now. Each thread has its own beginning of a line."""
        if getattr(self._mine, "logging", False):
            return int(self._stream.write(text))
        *lines, rest = (getattr(self._mine, "begun", "") + text).split("\n")
        self._mine.begun = rest
        for line in lines:
            self._log(line)
        return len(text)

    def flush(self) -> None:
        """Log a line that has been begun."""
        begun, self._mine.begun = getattr(self._mine, "begun", ""), ""
        self._log(begun)
        self._stream.flush()

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def isatty(self) -> bool:
        return False

    def close(self) -> None:
        """Only the line that has been begun ends: the stream is the log's, and a task must not close that."""
        self.flush()

    def _log(self, line: str) -> None:
        if not line.strip():
            return
        self._mine.logging = True
        try:
            self._logger.log(self._level, "%s", line.rstrip(), extra={"event": "printed"})
        finally:
            self._mine.logging = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
