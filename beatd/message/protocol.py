"""The task message, Celery's protocol v2: built, put into kombu's Redis envelope, and read again.

A message has three parts: flat *headers* that say which task and under which id, *properties* for the transport, and a
*body* ``[args, kwargs, embed]`` in JSON. Source of every field: ``celery/app/amqp.py`` (``as_task_v2``) and
``kombu/transport/virtual/base.py``, as of Celery 5.

Two ways lead to a message. :func:`build` makes one from its parts. A :class:`MessageTemplate`
makes thousands of nearly equal ones.
"""

from __future__ import annotations

import base64
import contextlib
import os
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from operator import itemgetter
from typing import Any

import msgspec

from beatd import redaction
from beatd.exceptions import MessageError
from beatd.message import json_codec
from beatd.redaction import redacted
from beatd.timestamps import to_ms

JSON = "application/json"
REPR_MAX = 1024
"""Characters of ``argsrepr`` and ``kwargsrepr``, which logs and monitors show."""

_NO_EMBED: dict[str, Any] = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}


Encoder = Callable[[Any], tuple[str, str, bytes]]
"""Encodes a value; returns content type, encoding and bytes."""


class TaskMessage(msgspec.Struct, frozen=True, kw_only=True):
    """A message as producers make it and consumers see it. ``body`` is undecoded bytes of ``content_type``."""

    headers: dict[str, Any]
    body: bytes
    properties: dict[str, Any] = {}
    content_type: str = JSON
    content_encoding: str = "utf-8"

    @property
    def id(self) -> str:
        """The task id."""
        return str(self.headers["id"])


def build(
    task: str,
    task_id: str,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    embed: Mapping[str, Any] | None = None,
    headers: Mapping[str, Any] | None = None,
    priority: int | None = None,
    reply_to: str = "",
    expiration_ms: int | None = None,
    properties: Mapping[str, Any] | None = None,
    encode: Encoder | None = None,
    **fields: Any,
) -> TaskMessage:
    """A message for ``task``.

    ``fields`` replace defaults among Celery's own headers: ``eta``, ``expires`` (ISO 8601), ``retries``, ``timelimit``
    (``[hard, soft]`` in seconds), ``root_id``, ``parent_id``, ``group``, ``origin``, ``ignore_result``, ``shadow`` and
    so on. ``headers`` are the user's, merged flat beside them. ``expiration_ms`` is the transport's own time to live,
    ``properties`` are further properties of the message, ``encode`` is a serializer other than JSON. Raises
    :class:`MessageError` if it cannot carry the arguments.
    """
    kwargs = dict(kwargs or {})
    content = content_of(args, kwargs, embed)
    content_type, encoding, body = encode(content) if encode else (JSON, "utf-8", json_codec.dumps(content))
    if unknown := fields.keys() - _HEADERS.keys():
        raise MessageError(f"unknown message fields: {', '.join(sorted(unknown))}")
    transported: dict[str, Any] = {
        "correlation_id": task_id,
        **(properties or {}),
        "reply_to": reply_to,
        "delivery_mode": 2,
        "priority": priority or 0,
    }
    if task_id != redaction.encodable(task_id):
        raise MessageError(f"the task id is no text that UTF-8 can carry: {redaction.encodable(task_id)!r}")
    if expiration_ms is not None:
        transported["expiration"] = str(max(0, expiration_ms))
    return TaskMessage(
        headers={
            **_HEADERS,
            "task": task,
            "id": task_id,
            "root_id": task_id,
            "argsrepr": "" if "argsrepr" in fields else shown(task, tuple(args)),
            "kwargsrepr": "" if "kwargsrepr" in fields else shown(task, kwargs),
            **fields,
            **(headers or {}),
        },
        properties=transported,
        body=body,
        content_type=content_type,
        content_encoding=encoding,
    )


def new_id() -> str:
    """Return a new task id: a UUID of version 4."""
    digits = os.urandom(16).hex()
    variant = "89ab"[int(digits[16], 16) & 3]
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:]}"


def content_of(args: Sequence[Any], kwargs: Mapping[str, Any], embed: Mapping[str, Any] | None = None) -> list[Any]:
    """The content of a body, ``[args, kwargs, embed]``."""
    return [list(args), dict(kwargs), {**_NO_EMBED, **(embed or {})}]


def body_of(args: Sequence[Any], kwargs: Mapping[str, Any], embed: Mapping[str, Any] | None = None) -> bytes:
    """The body ``[args, kwargs, embed]``; raises :class:`MessageError` if JSON cannot carry it."""
    return json_codec.dumps(content_of(args, kwargs, embed))


_HEADERS: dict[str, Any] = {
    "lang": "py",
    "task": "",
    "id": "",
    "shadow": None,
    "eta": None,
    "expires": None,
    "group": None,
    "group_index": None,
    "retries": 0,
    "timelimit": [None, None],
    "root_id": None,
    "parent_id": None,
    "argsrepr": "",
    "kwargsrepr": "",
    "origin": "",
    "ignore_result": None,
    "replaced_task_nesting": 0,
    "stamped_headers": None,
    "stamps": {},
}

HEADER_NAMES = frozenset(_HEADERS)
"""Celery's own headers; what is left after removing them is the user's."""


def envelope(message: TaskMessage, *, queue: str, exchange: str = "") -> bytes:
    """The message as one element of a Redis list, as kombu's Redis transport writes it."""
    outer = _envelope(message, "", queue=queue, exchange=exchange, delivery_tag=new_id())
    text = json_codec.dumps(outer)  # without the body, which may be large: base64 needs no look for escapes
    return b"".join((_BODY_KEY, base64_text(message.body), text[len(_BODY_KEY) + len('""') :]))


_BODY_KEY = b'{"body":'
"""The beginning of every envelope."""


def envelope_document(message: TaskMessage, *, queue: str, exchange: str = "") -> dict[str, Any]:
    """The fields of :func:`envelope`, with a delivery tag of its own."""
    body = base64.b64encode(message.body).decode("ascii")
    return _envelope(message, body, queue=queue, exchange=exchange, delivery_tag=new_id())


def _envelope(message: TaskMessage, body: str, *, queue: str, exchange: str, delivery_tag: str) -> dict[str, Any]:
    return {
        "body": body,
        "content-encoding": message.content_encoding,
        "content-type": message.content_type,
        "headers": message.headers,
        "properties": {
            **message.properties,
            "delivery_info": {"exchange": exchange, "routing_key": queue},
            "body_encoding": "base64",
            "delivery_tag": delivery_tag,
        },
    }


class Envelope(msgspec.Struct, frozen=True):
    """Envelope of a message on Redis: the required fields; everything else is optional."""

    body: str
    headers: dict[str, Any] = {}
    properties: dict[str, Any] = {}
    content_type: str = msgspec.field(name="content-type", default=JSON)
    content_encoding: str = msgspec.field(name="content-encoding", default="utf-8")


_DECODER = msgspec.json.Decoder(Envelope)


def open_envelope(raw: bytes) -> TaskMessage:
    """The message in an element of a Redis list; raises :class:`MessageError` with the reason if there is none."""
    try:
        outer = json_codec.decode_as(_DECODER, raw)
        body = _body_in(outer)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise MessageError(f"not a message envelope: {error}") from None
    return TaskMessage(
        headers=outer.headers,
        properties=outer.properties,
        body=body,
        content_type=outer.content_type,
        content_encoding=outer.content_encoding,
    )


def _body_in(outer: Envelope) -> bytes:
    encoding = outer.properties.get("body_encoding")
    if encoding == "base64":
        return _from_base64(outer.body)
    if encoding in (None, "", "utf-8"):
        return outer.body.encode()
    raise ValueError(f"unknown body_encoding {encoding!r}")


def _from_base64(text: str) -> bytes:
    try:
        return msgspec.convert(text, bytes)  # several times as fast as the standard library
    except msgspec.ValidationError:
        return base64.b64decode(text, validate=True)  # takes padding behind the end, too, and says what is wrong


DEATHS = "beatd-deaths"
"""Header: the number of processes and workers that died with the message; 0 for a plain redelivery."""
_ANY_DECODER = msgspec.json.Decoder(dict[str, Any])


def without_marks(raw: bytes) -> bytes:
    """Remove the marks of earlier deliveries, and of deaths in them, from an envelope that can be read."""
    if b'"redelivered"' not in raw:
        return raw
    try:
        outer = json_codec.decode_as(_ANY_DECODER, raw)
        for name in ("redelivered", DEATHS):
            outer["headers"].pop(name, None)
        outer["properties"].get("delivery_info", {}).pop("redelivered", None)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return raw
    return json_codec.dumps_plain(outer)


def shown(task: str, arguments: object) -> str:
    """Arguments for logs and monitors; those of beatd's own tasks have secrets in them, in headers for one."""
    return safe_repr(redacted(arguments, at_most=REPR_MAX) if task.startswith("beatd.") else arguments)


def safe_repr(value: object, at_most: int = REPR_MAX) -> str:
    """``repr(value)`` for people, cut to so many characters; never raises."""
    text = redaction.safe_repr(_beginning(value, at_most))
    return text if len(text) <= at_most else f"{text[: max(0, at_most - 3)]}..."


def _beginning(value: object, at_most: int) -> object:
    """Return a value whose ``repr`` begins with the same ``at_most`` characters, and is made in less time: long texts
    are cut, those among the arguments of a call, too."""
    if type(value) is str:
        start = value[:at_most]
        return start if _quotation_mark(start) == _quotation_mark(value) else value
    if type(value) is tuple:
        return tuple(_beginning(one, at_most) if type(one) is str else one for one in value)
    if type(value) is dict:
        return {name: _beginning(one, at_most) if type(one) is str else one for name, one in value.items()}
    return value


def _quotation_mark(text: str) -> str:
    """Return the mark that ``repr`` puts around a text."""
    return '"' if "'" in text and '"' not in text else "'"


class MessageTemplate:
    """A family of messages that differ only in some places: an encoded envelope with holes.

    Made from an example message in which :func:`placeholder` stands for each value to come.
    """

    __slots__ = ("_pattern", "_values_of")

    def __init__(self, pattern: bytes, holes: Sequence[bytes]) -> None:
        self._pattern = pattern
        self._values_of = itemgetter(*holes)  # with names in the pattern, each message would look for them in its text

    @classmethod
    def of(cls, message: TaskMessage, *, queue: str, exchange: str = "") -> MessageTemplate:
        """The form of an example. Its body is always one hole, ``body`` (in base64); its delivery tag is ``id``."""
        outer = _envelope(message, placeholder("body"), queue=queue, exchange=exchange, delivery_tag=placeholder("id"))
        pattern = json_codec.dumps(outer).replace(b"%", b"%%")
        return cls(_PLACEHOLDER.sub(b"%b", pattern), _PLACEHOLDER.findall(pattern))

    def render(self, values: Mapping[bytes, bytes]) -> bytes:
        """The envelope of one message; ``values`` has the JSON text for every hole."""
        filled: tuple[bytes, ...] = self._values_of(values)
        return self._pattern % filled


def placeholder(name: str) -> str:
    """A stand-in for a value of a :class:`MessageTemplate`. Drawn at random once per process, so that no text can be
    mistaken."""
    return f"hole-{_PLACEHOLDER_SALT}-{name}"


_PLACEHOLDER_SALT = secrets.token_hex(8)
_PLACEHOLDER = re.compile(rb'"hole-%b-([a-z_]+)"' % _PLACEHOLDER_SALT.encode())


def base64_text(body: bytes) -> bytes:
    """A body as JSON text, for the hole ``body``."""
    return _encode_base64(body)


_encode_base64 = msgspec.json.Encoder().encode
"""Bytes as a text in base64."""


def oldest_age_s(envelopes: Sequence[bytes], now_ms: int) -> float | None:
    """Return the seconds since the earliest run of these messages was due; None if none is a scheduler's."""
    dues = []
    for raw in envelopes:
        with contextlib.suppress(MessageError, KeyError, TypeError, ValueError, AttributeError):
            dues.append(to_ms(datetime.fromisoformat(open_envelope(raw).headers["beatd-due-at"])))
    return max((now_ms - min(dues)) / 1000, 0.0) if dues else None
