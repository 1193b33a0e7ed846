"""Logging of a worker, as in Celery: by the app's settings, unless ``setup_logging`` has a receiver."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from beatd import signals
from beatd.log import TASK_LOGGER
from beatd.redaction import printable

if TYPE_CHECKING:
    from beatd.app.app import App

REDIRECTED = "celery.redirected"
"""Logger of the output of tasks; Celery's name."""


class CeleryFormatter(logging.Formatter):
    """Celery's log formats: one for task loggers, with ``task_name`` and ``task_id``, and one for all others.

    Control characters are escaped and further lines are indented: no argument, result or exception can forge a record
    or control a terminal.
    """

    def __init__(self, line: str, task_line: str, times: str | None = None, task_times: str | None = None) -> None:
        super().__init__(line, times)
        self._task_format = logging.Formatter(task_line, task_times)

    def format(self, record: logging.LogRecord) -> str:
        message = record.getMessage()
        trace = [self.formatException(record.exc_info)] if record.exc_info else []
        trace += [self.formatStack(record.stack_info)] if record.stack_info else []
        facts: dict[str, Any] = {"msg": _indented(message), "args": None, "exc_info": None, "stack_info": None}
        fields = vars(record)
        is_task = "task_name" in fields and "task_id" in fields
        if is_task:
            facts |= {name: printable(str(fields[name])) for name in ("task_name", "task_id")}
        safe = logging.makeLogRecord({**fields, **facts, "exc_text": None})
        line = self._task_format.format(safe) if is_task else super().format(safe)
        return "\n  ".join([line, *map(_indented, trace)])


_LINE_MAX = 8_192
"""Characters of a line without an end after which it is logged: a task may write points for days."""


def _indented(text: str) -> str:
    """Return the text with escaped control characters, further lines indented."""
    return text if text.isprintable() else "\n  ".join(map(printable, text.split("\n")))


def set_up(
    app: App, level: str, *, ours: list[logging.Handler], celery_format: bool, logfile: str | None = None
) -> None:
    """Complete the logging setup once the app is known: formats, signals, and redirection of ``print``.

    ``ours`` is what :func:`beatd.log_format.configure` gave to the root logger. Handlers that the app's modules have
    put there since go, as in Celery; with ``worker_hijack_root_logger`` off they stay, and ours go.
    """
    app.import_tasks()  # last, because task modules and frameworks may configure logging, too
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
        root.handlers.clear()  # the receiver does the whole setup
        for _, answer in signals.setup_logging.send(sender=None, **facts):
            if isinstance(answer, BaseException):
                raise answer
        return
    if celery_format and root.handlers == ours:
        formatter = CeleryFormatter(
            conf.worker_log_format,
            conf.worker_task_log_format,
            conf.worker_log_datefmt,
            conf.worker_task_log_datefmt,
        )
        for handler in root.handlers:
            handler.setFormatter(formatter)
    signals.after_setup_logger.send(sender=None, logger=root, **facts)
    task_facts = {**facts, "format": conf.worker_task_log_format}
    signals.after_setup_task_logger.send(sender=None, logger=logging.getLogger(TASK_LOGGER), **task_facts)
    if conf.worker_redirect_stdouts:
        redirect_stdouts(conf.worker_redirect_stdouts_level)


def _enable() -> None:
    """Enable beatd's loggers again: by default ``logging.config`` disables loggers that it does not name."""
    for name, logger in logging.Logger.manager.loggerDict.items():
        if isinstance(logger, logging.Logger) and name.partition(".")[0] in ("beatd", "celery"):
            logger.disabled = False


def redirect_stdouts(
    level: int | str, logger: logging.Logger | None = None, *, stdout: bool = True, stderr: bool = True
) -> None:
    """Redirect stdout and stderr to the log, line by line, at ``level``."""
    number = logging.getLevelName(level.upper()) if isinstance(level, str) else level
    logger = logger or logging.getLogger(REDIRECTED)
    if stdout:
        sys.stdout = Redirected(sys.stdout, logger, number)
    if stderr:
        sys.stderr = Redirected(sys.stderr, logger, number)


@contextmanager
def streams_restored() -> Iterator[None]:
    """Restore stdout and stderr at the end of the block: the worker's last messages go to its terminal."""
    streams = sys.stdout, sys.stderr
    try:
        yield
    finally:
        sys.stdout, sys.stderr = streams


class Redirected:
    """Text stream that logs its lines. Output of the log handlers themselves goes to the stream behind it."""

    def __init__(self, stream: Any, logger: logging.Logger, level: int) -> None:
        self._stream = stream
        self._logger = logger
        self._level = level
        self._mine = threading.local()

    def write(self, text: str) -> int:
        """Log the complete lines; each thread has its own incomplete one."""
        if getattr(self._mine, "logging", False):
            return int(self._stream.write(text))
        *lines, rest = (getattr(self._mine, "begun", "") + text).split("\n")
        self._mine.begun = rest
        for line in lines:
            self._log(line)
        if len(rest) > _LINE_MAX:
            self.flush()
        return len(text)

    def flush(self) -> None:
        """Log the incomplete line."""
        begun, self._mine.begun = getattr(self._mine, "begun", ""), ""
        self._log(begun)
        self._stream.flush()

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def isatty(self) -> bool:
        return False

    def close(self) -> None:
        """Log the incomplete line, but keep the stream open: a task must not close the log."""
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
