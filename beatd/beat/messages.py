"""From a run to the bytes of its message."""

from __future__ import annotations

import os
import socket
from datetime import datetime

from beatd import message, wire
from beatd.broker import Address
from beatd.epoch import iso_ms, to_ms
from beatd.exceptions import MessageError
from beatd.message import Form, hole
from beatd.model import Entry, Options, Run

CACHED_FORMS = 20_000
"""Forms of entries that are kept: one is about 1.5 kB, and making one takes as long as three renderings."""

RUN_HOLES = ("id", "due_at", "eta", "expires", "expiration")
"""What differs between the runs of an entry."""


class Messages:
    """Renders runs as elements of a Redis list: from one form per entry, and those from one per set of options."""

    def __init__(self, default_queue: str, *, most_bytes: int = 1 << 20, origin: str | None = None) -> None:
        self._default_queue = default_queue
        self._most_bytes = most_bytes
        self._origin = origin or f"beatd{os.getpid()}@{socket.gethostname()}"
        self._times: tuple[int | None, ...] = ()
        self._values: dict[bytes, bytes] = {}
        self._by_options: dict[int, tuple[Options, Form]] = {}
        self._by_entry: dict[str, tuple[Entry, Form]] = {}

    def queue_of(self, entry: Entry) -> str:
        """The name of the queue that the entry's messages go to."""
        return entry.options.queue or self._default_queue

    def address_of(self, entry: Entry) -> Address:
        """Where the entry's messages go, by Celery's rule: a queue's name outweighs an exchange without a routing key.

        A routing key without an exchange says nothing.
        """
        options = entry.options
        if options.exchange and (options.routing_key or not options.queue):
            return Address(options.routing_key or self._default_queue, options.exchange)
        return Address(self.queue_of(entry))

    def prepare(self, entry: Entry) -> Form:
        """The entry's form, made now if need be: worth doing ahead of a herd."""
        cached = self._by_entry.get(entry.name)
        if cached is not None and cached[0] is entry:
            return cached[1]
        form = self._form_of_options(entry).fill(_entry_values(entry), open_holes=RUN_HOLES)
        if len(self._by_entry) >= CACHED_FORMS:
            self._by_entry.clear()
        self._by_entry[entry.name] = (entry, form)
        return form

    def render(self, run: Run, expires_ms: int | None) -> bytes:
        """The envelope of a run's message; ``expires_ms`` is an instant (see :func:`expires_at_ms`).

        Raises :class:`~beatd.exceptions.MessageError` if JSON cannot carry the entry's arguments, or if they make the
        message larger than it may be.
        """
        entry = run.entry
        times = (run.due_ms, run.fire_ms, expires_ms, entry.options.countdown_ms)
        if times != self._times:  # the runs of a herd have them in common
            self._times, self._values = times, _values(*times)
        self._values[b"id"] = _text(run.id)
        rendered = self.prepare(entry).render(self._values)
        if len(rendered) > self._most_bytes:
            raise MessageError(f"it has {len(rendered):,} bytes; max_message_size of [broker] is {self._most_bytes:,}")
        return rendered

    def _form_of_options(self, entry: Entry) -> Form:
        cached = self._by_options.get(id(entry.options))
        if cached is not None and cached[0] is entry.options:
            return cached[1]
        to = self.address_of(entry)
        form = Form.of(example(entry.options, self._origin), queue=to.key, exchange=to.exchange)
        if len(self._by_options) >= CACHED_FORMS:
            self._by_options.clear()
        self._by_options[id(entry.options)] = (entry.options, form)
        return form


def example(options: Options, origin: str) -> message.TaskMessage:
    """A message with holes where entries and runs differ: Celery beat's own, plus the ``beatd-*`` headers."""
    built = message.build(
        hole("task"),
        hole("id"),
        headers={
            **{name: value for name, value in options.headers.items() if name not in message.HEADER_NAMES},
            "periodic_task_name": hole("entry"),
            "celery_beat_task": True,
            "beatd-entry": hole("entry"),
            "beatd-due-at": hole("due_at"),
        },
        priority=options.priority,
        eta=hole("eta"),
        expires=hole("expires"),
        timelimit=[options.time_limit, options.soft_time_limit],
        argsrepr=hole("args"),
        kwargsrepr=hole("kwargs"),
        ignore_result=options.ignore_result,
        shadow=options.shadow,
        origin=origin,
    )
    if options.expires is not None:
        built.properties["expiration"] = hole("expiration")
    return built


def _entry_values(entry: Entry) -> dict[bytes, bytes]:
    embed = {"callbacks": entry.options.link, "errbacks": entry.options.link_error}
    return {
        b"task": wire.dumps(entry.task),
        b"entry": wire.dumps(entry.name),
        b"args": wire.dumps(message.shown(entry.task, list(entry.args))),
        b"kwargs": wire.dumps(message.shown(entry.task, entry.kwargs)),
        b"body": message.base64_text(message.body_of(entry.args, entry.kwargs, embed)),
    }


def _values(due_ms: int, fire_ms: int, expires_ms: int | None, countdown_ms: int | None) -> dict[bytes, bytes]:
    """The values of a run's holes, but for its id, as JSON."""
    return {
        b"due_at": _text(iso_ms(due_ms)),
        b"eta": _text(iso_ms(fire_ms + countdown_ms)) if countdown_ms else b"null",
        b"expires": _text(iso_ms(expires_ms)) if expires_ms is not None else b"null",
        b"expiration": b'"%d"' % max(0, expires_ms - fire_ms) if expires_ms is not None else b"null",
    }


def _text(plain: str) -> bytes:
    """Text without anything to escape, as JSON."""
    return b'"%b"' % plain.encode()


def expires_at_ms(run: Run) -> int | None:
    """The instant (ms) after which a run is not worth starting; ``None`` for never.

    ``"auto"`` is one period: the run expires when the next one is due. A duration counts from when the run leaves.
    """
    match run.entry.options.expires:
        case None:
            return None
        case "auto":
            return run.timeline.next_after_ms(run.due_ms)
        case datetime() as instant:
            return to_ms(instant)
        case duration_ms:
            return run.fire_ms + duration_ms
