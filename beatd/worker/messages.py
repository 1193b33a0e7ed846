"""Messages inside a worker: a delivery from the broker, a job for the pool, a report from the pool."""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

import msgspec

from beatd.app.publishing import Collected
from beatd.app.routing import Route
from beatd.exceptions import MessageError
from beatd.message import json_codec
from beatd.message.protocol import JSON, TaskMessage
from beatd.redaction import encodable
from beatd.states import STARTED
from beatd.store.groups import Part
from beatd.store.results import Stored
from beatd.worker.execution.decode import ACCEPTED, check_type


class Delivery(NamedTuple):
    """A message that this worker has taken and must settle."""

    tag: int
    """The consumer's receipt; unique among the messages that this worker holds."""
    queue: str
    """The queue it came from, in the consumer's terms."""
    raw: bytes
    """The envelope; see :func:`beatd.message.protocol.open_envelope`."""
    fault: str = ""
    """The reason it cannot run, if the consumer knows one."""
    first: bytes = b""
    """The envelope of protocol 1, for a message that was converted to protocol 2."""

    @property
    def original(self) -> bytes:
        """The envelope as it came."""
        return self.first or self.raw


_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=1024)]
_Seconds = Annotated[float, msgspec.Meta(ge=0)]
_Count = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]
"""Numbers go on in messages and records, which carry 64 bits at most."""
_Place = Annotated[int, msgspec.Meta(ge=-(2**31), le=2**31 - 1)]
_Millis = Annotated[int, msgspec.Meta(ge=0, le=2**53)]


class Headers(msgspec.Struct, frozen=True):
    """The headers that decisions, events and remote control read; other headers are ignored."""

    id: _Name
    task: _Name
    eta: str | None = None
    expires: str | None = None
    retries: _Count = 0
    timelimit: tuple[_Seconds | None, _Seconds | None] | None = None
    ignore_result: bool | None = None
    root_id: str | None = None
    parent_id: str | None = None
    group: str | None = None
    group_index: _Place | None = None
    shadow: str | None = None
    redelivered: bool | None = None
    entry: str | None = msgspec.field(name="beatd-entry", default=None)
    due_at: str | None = msgspec.field(name="beatd-due-at", default=None)
    after_ms: _Millis | None = msgspec.field(name="beatd-after", default=None)
    """Of a run that the schedule sent: see :attr:`beatd.model.Run.after_ms`."""
    keep_result: bool | None = msgspec.field(name="beatd-keep-result", default=None)
    deaths: _Count | None = msgspec.field(name="beatd-deaths", default=None)
    """How often a process or worker died while it ran the message; None if the broker does not count."""
    received: bool = msgspec.field(name="beatd-received", default=False)
    """True if a worker has announced it before it parked it."""
    argsrepr: Any = ""
    kwargsrepr: Any = ""
    stamped_headers: Any = None
    stamps: Any = None
    reply_to: str = msgspec.field(name="beatd-reply-to", default="")
    """The queue in which the client waits for the result: a property of the message, not a header."""

    def keeps_result(self, *, default: bool) -> bool:
        """True if the result document is to be stored. For a run of the schedule ``keep_result`` decides, or else
        ``default``; results of all other messages are stored."""
        return self.after_ms is None or (default if self.keep_result is None else self.keep_result)


class _Properties(msgspec.Struct, frozen=True):
    """Checked for their types only: the executor relies on them."""

    delivery_info: dict[str, Any] | None = None
    correlation_id: str | None = None
    reply_to: str | None = None
    priority: int | None = None


class Envelope(msgspec.Struct, frozen=True):
    """The envelope without its body, for decisions about the message; the executor opens the body."""

    headers: Headers
    properties: _Properties = _Properties()
    content_type: str = msgspec.field(name="content-type", default=JSON)


_DECODER = msgspec.json.Decoder(Envelope)


def headers_of(raw: bytes, accepted: frozenset[str] = ACCEPTED) -> Headers:
    """Open an envelope, but not its body; raises :class:`MessageError` with the reason if it is not valid."""
    try:
        envelope = _DECODER.decode(raw)
        headers = envelope.headers
    except (ValueError, RecursionError):
        envelope = _read(raw)
        headers = _encodable(envelope.headers)
    if envelope.content_type not in accepted:
        check_type(envelope.content_type, accepted)
    msgspec.structs.force_setattr(headers, "reply_to", envelope.properties.reply_to or "")
    return headers


def _read(raw: bytes) -> Envelope:
    """Open an envelope that is not valid at first sight: it may have what only Python writes."""
    try:
        return json_codec.decode_as(_DECODER, raw)
    except (ValueError, RecursionError) as error:
        raise MessageError(f"not a task message: {error}") from None


def _encodable(headers: Headers) -> Headers:
    """Escape lone surrogates in what is only shown; refuse them elsewhere: ids become keys of the store."""
    shown = {}
    for name in headers.__struct_fields__:
        value = getattr(headers, name)
        if not isinstance(value, str) or value == encodable(value):
            continue
        if name not in ("argsrepr", "kwargsrepr"):
            raise MessageError(f"its header {name} is no text that UTF-8 can carry: {encodable(value)!r}")
        shown[name] = encodable(value)
    return msgspec.structs.replace(headers, **shown)


class Job(msgspec.Struct, frozen=True, array_like=True):
    """A message for the pool. ``announce``: report its start, so that it can be acknowledged then."""

    tag: int
    raw: bytes
    queue: str
    announce: bool = False
    soft_limit: float | None = None
    hard_limit: float | None = None
    """Enforced by the worker; in the solo pool by the process itself."""
    describe: bool = False
    """Report the outcome as text, too: monitors show it, and not every outcome is stored."""
    record: bool = False
    """Report a record of the attempt, for the outcomes of its entry."""
    document: bool = True
    """Report the document of the result, unless the task ignores it."""


class FollowUpMessage(msgspec.Struct, frozen=True, array_like=True):
    """A task message that follows the end of a job; the worker publishes it after it has stored the result."""

    headers: bytes
    """JSON: a header may be anything that JSON can carry."""
    properties: bytes
    body: bytes
    content_type: str
    content_encoding: str
    queue: str
    exchange: str
    routing_key: str | None

    @classmethod
    def of(cls, message: TaskMessage, route: Route) -> FollowUpMessage:
        """Raise :class:`MessageError` if JSON cannot carry the headers, or UTF-8 the names in the route."""
        for name in route[:3]:
            if name is not None and name != encodable(name):
                raise MessageError(f"{encodable(name)!r} is no text that UTF-8 can carry")
        headers, properties = json_codec.dumps(message.headers), json_codec.dumps(message.properties)
        return cls(headers, properties, message.body, message.content_type, message.content_encoding, *route[:3])

    def unpack(self) -> Collected:
        """Return the message and its route."""
        message = TaskMessage(
            headers=json_codec.loads(self.headers),
            properties=json_codec.loads(self.properties),
            body=self.body,
            content_type=self.content_type,
            content_encoding=self.content_encoding,
        )
        return Collected(message, Route(self.queue, self.exchange, self.routing_key))


class JobReport(msgspec.Struct, frozen=True, array_like=True):
    """The pool's report about a job: it has begun, it has ended, or it has something to store or to publish.

    ``state`` is a state of :mod:`beatd.states`, ``MALFORMED`` for a body that cannot be read, or ``LOST`` for a process
    that is gone. ``document`` is the result to store under the task's id. ``text`` is the reason if there is none.
    """

    tag: int
    state: str
    runtime: float = 0.0
    document: bytes | None = None
    text: str = ""
    requeue: bool = False
    results: list[Stored] = []
    """Results of other tasks that will not run because this one failed."""
    parts: list[Part] = []
    """Ends of members of chord headers."""
    outcome_repr: str = ""
    """The result or the exception as text; only for jobs with ``describe``."""
    traceback: str | None = None
    """The exception's traceback; only for jobs with ``describe``."""
    follow_ups: list[FollowUpMessage] = []
    """Callbacks, errbacks and the next step of a chain."""
    record: bytes = b""
    """The attempt as :func:`beatd.store.run_record.encoded`; only for jobs with ``record``."""


MALFORMED = "MALFORMED"
MEANWHILE = "MEANWHILE"
"""A report of a job that goes on: ``results`` and ``follow_ups`` that leave before its end."""
NO_JOB = 0
"""The tag in a report that belongs to no job: messages that threads or coroutines of an ended job have sent."""
LOST = "LOST"
"""The process of the job is gone, and the worker has not ended it."""
KILLED = "KILLED"
"""The worker has ended the process of the job: at a time limit, or by a command."""
SKIPPED = "SKIPPED"
"""A job that was recalled from a process before it began; another process runs it."""


def is_end(report: JobReport) -> bool:
    """True unless the job goes on."""
    return report.state not in (STARTED, MEANWHILE)
