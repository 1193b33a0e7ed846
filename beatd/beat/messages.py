"""From a run to the bytes of its message."""

from __future__ import annotations

import os
import socket
from datetime import datetime

from beatd import message
from beatd.clock import iso_ms, to_ms
from beatd.message import HOLES, Template
from beatd.model import Entry, Run

CACHED_TEMPLATES = 50_000
"""Templates kept: one is about 1.5 kB, and making one takes as long as a dozen renderings."""


class Messages:
    """Renders runs as elements of a Redis list, from one template per entry."""

    def __init__(self, default_queue: str, *, origin: str | None = None) -> None:
        self._default_queue = default_queue
        self._origin = origin or f"beatd{os.getpid()}@{socket.gethostname()}"
        self._templates: dict[str, tuple[Entry, Template]] = {}

    def queue_of(self, entry: Entry) -> str:
        """The name of the queue that the entry's messages go to."""
        return entry.options.queue or self._default_queue

    def render(self, run: Run, expires_ms: int | None) -> bytes:
        """The envelope of a run's message; ``expires_ms`` is an instant (see :func:`expires_at_ms`)."""
        due_ms = run.due_ms
        values = {
            b"id": _quoted(run.id),
            b"due_at": _quoted(iso_ms(due_ms)),
            b"expires": b"null",
            b"expiration": b"null",
        }
        if expires_ms is not None:
            values[b"expires"] = _quoted(iso_ms(expires_ms))
            values[b"expiration"] = b'"%d"' % max(0, expires_ms - run.fire_ms)
        if countdown_ms := run.entry.options.countdown_ms:
            values[b"eta"] = _quoted(iso_ms(run.fire_ms + countdown_ms))
        return self._template(run.entry).render(values)

    def _template(self, entry: Entry) -> Template:
        cached = self._templates.get(entry.name)
        if cached is not None and cached[0] is entry:
            return cached[1]
        template = Template(skeleton(entry, self._origin), queue=self.queue_of(entry))
        if len(self._templates) >= CACHED_TEMPLATES:
            self._templates.clear()
        self._templates[entry.name] = (entry, template)
        return template


def _quoted(text: str) -> bytes:
    return b'"%b"' % text.encode()


def skeleton(entry: Entry, origin: str) -> message.TaskMessage:
    """The message of an entry with holes where its runs differ. Celery beat's own, plus the ``beatd-*`` headers."""
    options = entry.options
    expiring = options.expires is not None
    built = message.build(
        entry.task,
        HOLES["id"],
        entry.args,
        entry.kwargs,
        embed={"callbacks": options.link, "errbacks": options.link_error},
        headers={
            **options.headers,
            "periodic_task_name": entry.name,
            "celery_beat_task": True,
            "beatd-entry": entry.name,
            "beatd-due-at": HOLES["due_at"],
        },
        priority=options.priority,
        eta=HOLES["eta"] if options.countdown_ms else None,
        expires=HOLES["expires"] if expiring else None,
        timelimit=[options.time_limit, options.soft_time_limit],
        ignore_result=options.ignore_result,
        shadow=options.shadow,
        origin=origin,
    )
    if expiring:
        built.properties["expiration"] = HOLES["expiration"]
    return built


def expires_at_ms(run: Run) -> int | None:
    """The instant (ms) after which a run is not worth starting; ``None`` for never.

    ``"auto"`` is one period: the run expires when the next one is due. A duration counts from when the run leaves.
    """
    match run.entry.options.expires:
        case None:
            return None
        case "auto":
            return run.entry.schedule.next_after_ms(run.due_ms)
        case datetime() as instant:
            return to_ms(instant)
        case duration_ms:
            return run.fire_ms + duration_ms
