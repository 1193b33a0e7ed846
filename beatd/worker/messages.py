"""Messages inside a worker: a delivery from the broker, a job to the pool, a report from the pool."""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

import msgspec

from beatd.exceptions import MessageError
from beatd.message.protocol import JSON
from beatd.store.groups import Part
from beatd.store.results import Stored
from beatd.worker.execution.decode import ACCEPTED


class Delivery(NamedTuple):
    """A message that this worker has taken and must settle."""

    tag: int
    """The consumer's receipt; unique among the messages that this worker holds."""
    queue: str
    """Where it came from, in the consumer's terms."""
    raw: bytes
    """The envelope, see :func:`beatd.message.protocol.open_envelope`."""
    fault: str = ""
    """Why it cannot be run, where the consumer knows that already."""
    first: bytes = b""
    """What it was before it was turned into a message of protocol 2."""

    @property
    def original(self) -> bytes:
        """The envelope as it came."""
        return self.first or self.raw


_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=1024)]
_Seconds = Annotated[float, msgspec.Meta(ge=0)]


class Headers(msgspec.Struct, frozen=True):
    """The headers that decide what happens to a message before it runs; whoever sends others is welcome."""

    id: _Name
    task: _Name
    eta: str | None = None
    expires: str | None = None
    retries: Annotated[int, msgspec.Meta(ge=0)] = 0
    timelimit: tuple[_Seconds | None, _Seconds | None] | None = None
    ignore_result: bool | None = None
    root_id: str | None = None
    parent_id: str | None = None
    shadow: str | None = None
    redelivered: bool | None = None
    entry: str | None = msgspec.field(name="beatd-entry", default=None)
    due_at: str | None = msgspec.field(name="beatd-due-at", default=None)
    deaths: Annotated[int, msgspec.Meta(ge=0)] | None = msgspec.field(name="beatd-deaths", default=None)
    """How often it was in the hands of a process or worker that died; None if nobody counts."""


class _Properties(msgspec.Struct, frozen=True):
    """Of interest for their types only: what runs the task relies on them."""

    delivery_info: dict[str, Any] | None = None
    correlation_id: str | None = None
    reply_to: str | None = None
    priority: int | None = None


class _Envelope(msgspec.Struct, frozen=True):
    headers: Headers
    properties: _Properties = _Properties()
    content_type: str = msgspec.field(name="content-type", default=JSON)


_decode = msgspec.json.Decoder(_Envelope).decode


def headers_of(raw: bytes) -> Headers:
    """The headers of an envelope, without opening its body; raises :class:`MessageError` with what is wrong."""
    try:
        envelope = _decode(raw)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise MessageError(f"not a task message: {error}") from None
    if envelope.content_type not in ACCEPTED:
        raise MessageError(f"content type {envelope.content_type!r} is not accepted, only JSON is")
    return envelope.headers


class Job(msgspec.Struct, frozen=True, array_like=True):
    """A message on its way to where it runs. ``announce``: report its start, so that it can be acknowledged then."""

    tag: int
    raw: bytes
    queue: str
    announce: bool = False
    soft_limit: float | None = None
    hard_limit: float | None = None
    """Enforced from outside where that can be done: by the process itself in the solo pool only."""
    describe: bool = False
    """Report the outcome in words, too: monitors want them, and not every outcome is stored."""


class JobReport(msgspec.Struct, frozen=True, array_like=True):
    """Report of the pool about a job.

    ``state`` is a state of :mod:`beatd.store.result_document`, ``MALFORMED`` for a message whose body cannot be read,
    or ``LOST`` for one whose process is gone; ``document`` is to be stored under the task's id, if there is one;
    ``text`` is the reason where there is no document.
    """

    tag: int
    state: str
    runtime: float = 0.0
    document: bytes | None = None
    text: str = ""
    requeue: bool = False
    results: list[Stored] = []
    """Results of other tasks, which will never run because this one failed."""
    parts: list[Part] = []
    """Ends of tasks that chords wait for."""
    words: str = ""
    """The result or the exception, as it prints itself; only for jobs that ask for it."""
    trace: str | None = None
    """The exception's traceback; as above."""


MALFORMED = "MALFORMED"
LOST = "LOST"
KILLED = "KILLED"
SKIPPED = "SKIPPED"
"""Said by a process about a job that was recalled before it began; it is run elsewhere."""
