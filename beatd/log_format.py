"""Log formats: events as readable lines or as JSON.

An event is a short sentence and ``extra={"event": "run_dispatched", ...}``. The text format shows the sentence and then
the extras as ``key=value``; the JSON format writes the same as one object per line.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from logging.handlers import WatchedFileHandler
from pathlib import Path
from typing import Any, Literal, TextIO

from beatd.clock import Backoff
from beatd.redaction import redacted_text

log = logging.getLogger("beatd")

_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
"""The attributes of every record; all others came as ``extra``."""

_COLOURS = {"DEBUG": "2", "WARNING": "33", "ERROR": "31", "CRITICAL": "1;31"}
_NAMES = {"WARNING": "WARN", "CRITICAL": "FATAL"}


def configure(
    level: str = "info",
    format: Literal["text", "json"] = "text",  # noqa: A002 - the name that the setting has
    *,
    stream: TextIO | None = None,
    color: bool = False,
) -> None:
    """Log to ``stream`` (standard error) from ``level`` on, in place of whatever was configured before.

    Python's warnings and uncaught exceptions, of threads too, become log lines. Raises ValueError for an unknown level.
    """
    handler = StreamLog(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if format == "json" else TextFormatter(color=color))
    root = logging.getLogger()
    root.setLevel(level.upper())
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    logging.captureWarnings(capture=True)
    logging.getLogger("watchfiles").setLevel(logging.WARNING)  # it says each time that something in a folder changed
    sys.excepthook = _log_uncaught
    threading.excepthook = _log_thread_death


class _LossesNoted(logging.Handler):
    """Handler whose lines may be lost, on a full disk for example, and that says so: on standard error when that begins
    and now and then while it lasts, and in the log with the number of lines when it is over. It never raises, lest what
    is logged about stop."""

    _losses: Backoff

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line; an error of the file is no error of who logs."""
        lost = self._losses.attempts
        try:
            super().emit(record)
        except OSError:  # a file that cannot be opened again after a rotation
            self.handleError(record)
        if lost and self._losses.attempts == lost:
            self._losses.succeeded()
            extra = {"event": "log_lines_lost", "count": lost}
            text = "%d log lines before this one could not be written"
            super().emit(log.makeRecord(log.name, logging.WARNING, __file__, 0, text, (lost,), None, extra=extra))

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Count a lost line; other errors than those of files are said as Python does."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
            return
        self._losses.failed()
        if self._losses.level >= logging.WARNING and sys.__stderr__ is not None:
            with suppress(OSError, ValueError):
                print(f"beatd: log lines are lost: {error.strerror}", file=sys.__stderr__, flush=True)


class StreamLog(_LossesNoted, logging.StreamHandler[TextIO]):
    """The log on a stream."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._losses = Backoff(1.0, 1.0)


class FileLog(_LossesNoted, WatchedFileHandler):
    """The log in a file, which is opened again when it has been moved away. Raises OSError if it cannot be opened."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, encoding="utf-8", errors="backslashreplace")
        self._losses = Backoff(1.0, 1.0)


class TextFormatter(logging.Formatter):
    """``2026-11-22 08:00:01.123 INFO  beatd.beat  Dispatched report  lateness_ms=3``, in UTC.

    Further lines of a message or traceback are indented: none of them can pass for a record of its own.
    """

    def __init__(self, *, color: bool = False) -> None:
        super().__init__()
        self._color = color

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(sep=" ", timespec="milliseconds")[:23]
        level = self._paint(f"{_NAMES.get(record.levelname, record.levelname):<5}", record.levelname)
        sentence = record.getMessage()
        pairs = "".join(f"  {key}={_value(value)}" for key, value in _unsaid(record, sentence))
        line = f"{moment} {level} {record.name}  {_printable(sentence)}{pairs}"
        return "\n  ".join("\n".join([line, *map(_printable, _trace(self, record))]).split("\n"))

    def _paint(self, text: str, level: str) -> str:
        code = _COLOURS.get(level) if self._color else None
        return f"\x1b[{code}m{text}\x1b[0m" if code else text


class JsonFormatter(logging.Formatter):
    """One object per line: ``ts`` (ISO 8601, UTC), ``level``, ``logger``, ``event``, ``message``, and the extras."""

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = {
            "ts": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": None,
            "message": record.getMessage(),
            **extras(record),
        }
        if trace := _trace(self, record):
            fields["trace"] = "\n".join(trace)
        if fields["event"] is None:
            del fields["event"]
        text = json.dumps(fields, default=str, ensure_ascii=False)
        return text if text.isprintable() else json.dumps(fields, default=str)


def extras(record: logging.LogRecord) -> Mapping[str, Any]:
    """Return the fields that came with the record as ``extra``."""
    return {key: value for key, value in vars(record).items() if key not in _OWN}


def _unsaid(record: logging.LogRecord, sentence: str) -> Iterator[tuple[str, Any]]:
    """The extras that the sentence does not have in it already."""
    for key, value in extras(record).items():
        if key != "event" and not (isinstance(value, str) and value in sentence):
            yield key, value


def _trace(formatter: logging.Formatter, record: logging.LogRecord) -> list[str]:
    """The traceback and the stack; exceptions of others may have secrets in their texts."""
    lines: list[str] = []
    if record.exc_info:
        lines.append(redacted_text(formatter.formatException(record.exc_info)))
    if record.stack_info:
        lines.append(formatter.formatStack(record.stack_info))
    return lines


def _value(value: object) -> str:
    """A value as one word: quoted when it has blanks or could be mistaken."""
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    if text and text.isprintable() and not any(mark in text for mark in ' "='):
        return text
    return json.dumps(text, ensure_ascii=not text.isprintable())


def _printable(text: str) -> str:
    """The text with control characters but newlines escaped, so that no log line can paint a terminal."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() or char == "\n" else char.encode("unicode_escape").decode() for char in text
    )


def _log_uncaught(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    if issubclass(kind, KeyboardInterrupt):
        return
    logging.getLogger("beatd").critical(
        "Uncaught %s: %s",
        kind.__name__,
        redacted_text(str(error)),
        exc_info=(kind, error, trace),
        extra={"event": "uncaught"},
    )


def _log_thread_death(death: threading.ExceptHookArgs) -> None:
    if issubclass(death.exc_type, SystemExit):
        return
    error = death.exc_value or death.exc_type()
    name = death.thread.name if death.thread else "?"
    logging.getLogger("beatd").critical(
        "Thread %s died of %s: %s",
        name,
        death.exc_type.__name__,
        redacted_text(str(error)),
        exc_info=(death.exc_type, error, death.exc_traceback),
        extra={"event": "thread_died"},
    )
