"""Message builder: renders the message of a run, from the template of its options and the values of its entry."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterable

from beatd import tracing
from beatd.broker import Address
from beatd.exceptions import MessageError
from beatd.message import json_codec, protocol
from beatd.message.protocol import MessageTemplate, placeholder
from beatd.model import Entry, Options, Run
from beatd.timestamps import iso_ms

TraceContext = Callable[[str], tuple[str, str]]
"""Function from a run id to the headers ``traceparent`` and ``tracestate``."""

CACHED_ENTRIES = 50_000
"""Entries whose values are cached as JSON: each takes about 600 bytes, and as long to make as three renderings."""
CACHED_TEMPLATES = 2_000
"""Templates that are kept, one for each set of options: one is about 1.2 kB."""


class MessageBuilder:
    """Renders runs as elements of a Redis list. Entries with the same options share a template."""

    def __init__(
        self,
        default_queue: str,
        *,
        most_bytes: int = 1 << 20,
        origin: str | None = None,
        trace: TraceContext | None = None,
    ) -> None:
        """``trace`` gives the trace context of a run, where its messages carry one."""
        self._trace = trace
        self._default_queue = default_queue
        self._most_bytes = most_bytes
        self._origin = origin or f"beatd{os.getpid()}@{socket.gethostname()}"
        self._times: tuple[int | None, ...] = ()
        self._values: dict[bytes, bytes] = {}
        """Values for the holes of a template, as JSON: those of the run that is rendered."""
        self._by_options: dict[int, tuple[Options, MessageTemplate, Address]] = {}
        self._by_entry: dict[str, tuple[Entry, dict[bytes, bytes]]] = {}

    def queue_of(self, entry: Entry) -> str:
        """The name of the queue that the entry's messages go to."""
        return entry.options.queue or self._default_queue

    def address_of(self, entry: Entry) -> Address:
        """Return the address of the entry's messages, by Celery's rule: a queue outweighs an exchange without a key.

        A routing key without an exchange says nothing.
        """
        options = entry.options
        cached = self._by_options.get(id(options))
        if cached is not None and cached[0] is options:
            return cached[2]
        if options.exchange and (options.routing_key or not options.queue):
            return Address(options.routing_key or self._default_queue, options.exchange)
        return Address(self.queue_of(entry))

    def forget(self, names: Iterable[str]) -> None:
        """Forget the values of entries that have left the schedule."""
        for name in names:
            self._by_entry.pop(name, None)

    @property
    def begins_traces(self) -> bool:
        """True if a message carries the context of a trace, which begins when its run leaves."""
        return self._trace is not None

    def make_ready(self, entry: Entry) -> None:
        """Make the values of an entry ready for the messages of its runs; raises as :meth:`render` does."""
        self._entry_values(entry)

    def render(self, run: Run, expires_ms: int | None) -> bytes:
        """The envelope of a run's message; ``expires_ms`` is an instant (see :func:`expires_at_ms`).

        Raises :class:`~beatd.exceptions.MessageError` if JSON cannot carry the entry's arguments, or if they make the
        message larger than it may be.
        """
        entry = run.entry
        times = (run.due_ms, run.fire_ms, expires_ms, entry.options.countdown_ms, run.after_ms)
        if times != self._times:  # the runs of a herd have them in common
            self._times, self._values = times, _time_values(*times)
        values = self._values
        values[b"id"] = _text(run.id)
        values.update(self._entry_values(entry))
        if self._trace is not None:
            values[b"traceparent"], values[b"tracestate"] = map(_text, self._trace(run.id))
        rendered = self._template(entry).render(values)
        if len(rendered) > self._most_bytes:
            raise MessageError(f"it has {len(rendered):,} bytes; max_message_size of [broker] is {self._most_bytes:,}")
        return rendered

    def _example(self, options: Options) -> protocol.TaskMessage:
        made = example(options, self._origin)
        if self._trace is not None:
            made.headers.update({name: placeholder(name) for name in (tracing.PARENT, tracing.STATE)})
        return made

    def _template(self, entry: Entry) -> MessageTemplate:
        cached = self._by_options.get(id(entry.options))
        if cached is not None and cached[0] is entry.options:
            return cached[1]
        to = self.address_of(entry)
        template = MessageTemplate.of(self._example(entry.options), queue=to.key, exchange=to.exchange)
        if len(self._by_options) >= CACHED_TEMPLATES:
            self._by_options.clear()
        self._by_options[id(entry.options)] = (entry.options, template, to)
        return template

    def _entry_values(self, entry: Entry) -> dict[bytes, bytes]:
        cached = self._by_entry.get(entry.name)
        if cached is not None and cached[0] is entry:
            return cached[1]
        values = _entry_values(entry)
        if len(self._by_entry) >= CACHED_ENTRIES:
            self._by_entry.clear()
        self._by_entry[entry.name] = (entry, values)
        return values


def example(options: Options, origin: str) -> protocol.TaskMessage:
    """A message with holes where entries and runs differ: Celery beat's own, plus the ``beatd-*`` headers."""
    built = protocol.build(
        placeholder("task"),
        placeholder("id"),
        headers={
            **{name: value for name, value in options.headers.items() if name not in protocol.HEADER_NAMES},
            "periodic_task_name": placeholder("entry"),
            "celery_beat_task": True,
            "beatd-entry": placeholder("entry"),
            "beatd-due-at": placeholder("due_at"),
            "beatd-after": placeholder("after"),
            **({} if options.keep_result is None else {"beatd-keep-result": options.keep_result}),
        },
        priority=options.priority,
        eta=placeholder("eta"),
        expires=placeholder("expires"),
        timelimit=[options.time_limit, options.soft_time_limit],
        argsrepr=placeholder("args"),
        kwargsrepr=placeholder("kwargs"),
        ignore_result=options.ignore_result,
        shadow=options.shadow,
        origin=origin,
    )
    if options.expires is not None:
        built.properties["expiration"] = placeholder("expiration")
    return built


def _entry_values(entry: Entry) -> dict[bytes, bytes]:
    """The values that all runs of an entry have in common, as JSON; raises MessageError if JSON cannot carry them."""
    embed = {"callbacks": entry.options.link, "errbacks": entry.options.link_error}
    return {
        b"task": json_codec.dumps(entry.task),
        b"entry": json_codec.dumps(entry.name),
        b"args": json_codec.dumps(protocol.shown(entry.task, list(entry.args) or ())),
        b"kwargs": json_codec.dumps(protocol.shown(entry.task, entry.kwargs)),
        b"body": protocol.base64_text(protocol.body_of(entry.args, entry.kwargs, embed)),
    }


def _time_values(
    due_ms: int, fire_ms: int, expires_ms: int | None, countdown_ms: int | None, after_ms: int | None
) -> dict[bytes, bytes]:
    """The values of a run that depend on its times, as JSON."""
    return {
        b"due_at": _text(iso_ms(due_ms)),
        b"after": b"null" if after_ms is None else b"%d" % after_ms,
        b"eta": _text(iso_ms(fire_ms + countdown_ms)) if countdown_ms else b"null",
        b"expires": _text(iso_ms(expires_ms)) if expires_ms is not None else b"null",
        b"expiration": b'"%d"' % max(0, expires_ms - fire_ms) if expires_ms is not None else b"null",
    }


def _text(plain: str) -> bytes:
    """Text without anything to escape, as JSON."""
    return b'"%b"' % plain.encode()
