"""Errors of commands: in words on standard error, and with ``--json`` also as a document."""

from __future__ import annotations

import errno
import os
import traceback
from collections.abc import Mapping, Sequence
from typing import Any

import click

import beatd
from beatd.exceptions import BeatdError, BrokerError, ConfigError, ScheduleError, StoreUnavailable
from beatd.redaction import printable, printable_lines, redacted_text
from beatd.timestamps import iso_ms

WORDS = "beatd.words"
"""Key of the words of the command line in the context."""
_ERROR_FIELDS = "beatd.error_fields"
ANSWERED = "beatd.answered"
"""Key of the context that is true when a document has been printed; there is one at most."""


def add_to_error(fields: Mapping[str, Any]) -> None:
    """Add fields to the document that ``--json`` prints if the command that runs fails."""
    click.get_current_context().meta.setdefault(_ERROR_FIELDS, {}).update(fields)


def report_error(error: Exception | KeyboardInterrupt, ctx: click.Context) -> Exception:
    """Tell an error in words on standard error, with ``--json`` also as a document; return what click is to raise."""
    if isinstance(error, click.exceptions.Exit) or (isinstance(error, OSError) and error.errno == errno.EPIPE):
        return error  # click ends quietly
    words = ctx.meta[WORDS]
    if isinstance(error, UnicodeEncodeError) and any(map(_has_other_bytes, words)):
        error = click.UsageError("an argument has bytes that are no UTF-8")
    if isinstance(error, KeyboardInterrupt):
        click.echo(err=True)  # after "^C", as click does it
        error = click.Abort()
    end: Exception = error
    if isinstance(error, click.ClickException):  # click prints it
        vars(error)["message"] = printable_lines(error.message)
        text = error.format_message()
    elif isinstance(error, click.Abort):
        text = "aborted"
    elif isinstance(error, BeatdError):
        text = str(error)
        end = click.exceptions.Exit(2 if isinstance(error, ConfigError | ScheduleError) else 1)
        label = "Error: " if end.exit_code == 1 else ""
        _print_error(f"{label}{text}{_next_step(error)}")
    else:
        text = _unexpected(error)
        end = click.exceptions.Exit(1)
    if _asks_for_json(words) and not ctx.meta.get(ANSWERED):
        code = getattr(end, "exit_code", 1)
        _print_document({"error": text, "exit_code": code, **_facts(error), **ctx.meta.get(_ERROR_FIELDS, {})})
    return end


def _print_error(text: str) -> None:
    """Print on standard error, with nothing in it that controls the terminal."""
    click.echo(printable_lines(text), err=True)


def _asks_for_json(words: Sequence[str]) -> bool:
    """True if a command line asks for JSON, whatever is wrong with it: ``--json``, ``-j``, ``-jt 5``."""
    options = words[: words.index("--")] if "--" in words else words
    return any(word == "--json" or word.startswith("-j") for word in options)


def _facts(error: Exception) -> dict[str, Any]:
    """Return more fields of the document of an error: ``faults`` of a file, ``since`` of a store that is away."""
    if isinstance(error, ConfigError):
        return {"faults": [fault._asdict() for fault in error.faults]}
    if isinstance(error, StoreUnavailable) and error.since_ms is not None:
        return {"since": iso_ms(error.since_ms)}
    return {}


def _print_document(document: Mapping[str, Any]) -> None:
    """Print one line of JSON: the command may have printed others before, as ``beatd events`` does."""
    import json  # noqa: PLC0415 - for this alone

    try:
        click.echo(json.dumps(document, default=str))
    except OSError:
        _discard_output()


def _discard_output() -> None:
    """Send what is left in the buffer of standard output nowhere: it cannot be written."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _has_other_bytes(word: str) -> bool:
    """True for an argument that cannot be written as UTF-8. Files may have such names; other values may not."""
    try:
        word.encode()
    except UnicodeEncodeError:
        return True
    return False


def _next_step(error: BeatdError) -> str:
    """Return a line that says what to do about an error that newcomers meet; nothing for others."""
    if isinstance(error, StoreUnavailable | BrokerError) and (advice := server_advice(error)):
        return f"\n{advice}"
    if isinstance(error, ConfigError) and any(
        fault.message.startswith("unknown setting") and "; expected" in fault.message for fault in error.faults
    ):
        return f"\nThis is beatd {beatd.__version__}: a file for a newer version needs that version."
    return ""


_OF_FILE = {
    "state store": "url under [redis]",
    "broker": "url under [broker]",
    "result backend": "url under [results]",
}
_PLACES = "beatd.places"
"""Key of the context: where the URLs of servers are set, by role."""


def name_places(places: Mapping[str, str]) -> None:
    """Say where the URLs of servers are set, by role, if not in a file: errors of this command advise it."""
    if context := click.get_current_context(silent=True):
        context.meta[_PLACES] = places


def server_advice(error: object, role: str = "") -> str:
    """Return a sentence that says what to do about a server that refuses connections; nothing for other errors.

    ``role`` is what the server is used for; by default what the error says, or its class.
    """
    text = str(error)
    if "Connection refused" not in text:
        return ""
    usual = "state store" if isinstance(error, StoreUnavailable) else "broker"
    role = role or next((each for each in _OF_FILE if text.startswith(each)), usual)
    place = {**_OF_FILE, **_places()}[role]
    advice = f"Start the server, or set {place} to another one"
    return f'{advice}; url = "embedded" starts one by itself.' if place == _OF_FILE["state store"] else f"{advice}."


def _places() -> Mapping[str, str]:
    """The places that the command has named, else those of the app that it has used in place of a file."""
    from beatd.sources.app_file import places  # noqa: PLC0415 - for this alone

    context = click.get_current_context(silent=True)
    named: Mapping[str, str] | None = context.meta.get(_PLACES) if context else None
    return places() if named is None else named


def _unexpected(error: Exception) -> str:
    """The last resort: print and return one line instead of a traceback, unless BEATD_DEBUG asks for one."""
    if os.environ.get("BEATD_DEBUG"):
        traceback.print_exc()
    if limit := _limit_reached(error):
        text = limit
        _print_error(f"Error: {text}")
    elif isinstance(error, OSError) and error.errno == errno.ENOSPC:
        text = f"the output cannot be written: {error.strerror}"
        _print_error(f"Error: {text}")
        _discard_output()
    else:
        said = printable(redacted_text(" ".join(f"{type(error).__name__}: {error}".split()), at_most=500))
        text = f"internal error: {said}; please report it; run with BEATD_DEBUG=1 for the traceback"
        _print_error(f"beatd: {text}")
    return text


def _limit_reached(error: Exception) -> str:
    """Return a sentence for an error that is a limit of the process; empty for others."""
    number = error.errno if isinstance(error, OSError) else None
    if number in (errno.EMFILE, errno.ENFILE):
        return f"{os.strerror(number)}: raise the limit of this process (ulimit -n, LimitNOFILE= of systemd)"
    if number in (errno.ENOMEM, errno.EAGAIN) or isinstance(error, MemoryError) or _NO_THREAD in str(error):
        text = "the system gives this process no more memory, or no more threads: raise its limits (ulimit -v and -u, "
        return f"{text}MemoryMax= and TasksMax= of systemd, those of the container)"
    return ""


_NO_THREAD = "can't start new thread"
"""Text of the interpreter's RuntimeError."""
