"""Opening a message: from its envelope to the arguments of a call. Whatever is wrong with it is said in one sentence.

Two protocols: the second, whose headers say which task, and the first, of Celery 3, whose body says everything.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple

from beatd.exceptions import MessageError
from beatd.message import json_codec
from beatd.message.compression import decompress
from beatd.message.protocol import JSON, TaskMessage, envelope, open_envelope

ACCEPTED = frozenset({JSON, "application/x-json", "json"})

_PLAIN = frozenset({"utf-8", "utf8", "us-ascii", "ascii", "binary", "None", ""})
"""Character sets that need no conversion; kombu writes ``binary`` for text that it has not encoded itself."""


class Call(NamedTuple):
    """Decoded body; ``embed`` has the follow-ups to be sent when the task has ended."""

    args: list[Any]
    kwargs: dict[str, Any]
    embed: dict[str, Any]


def decode_body(message: TaskMessage, at_most: int) -> Call:
    """The call in a message's body, which may unpack to ``at_most`` bytes; raises :class:`MessageError`."""
    match _decoded(message, at_most):
        case [list() as args, dict() as kwargs, dict() | None as embed]:
            return Call(args, kwargs, _checked(embed or {}))
    raise MessageError("the body is not [args, kwargs, embed]")


def upgrade_protocol_1(raw: bytes, queue: str, at_most: int) -> bytes | None:
    """A message of protocol 1 as one of protocol 2; None for what does not look like one at all."""
    try:
        message = open_envelope(raw)
    except MessageError:
        return None
    if "task" in message.headers:
        return None
    _check_type(message.content_type)
    body = _decoded(message, at_most)
    if not isinstance(body, dict) or "task" not in body:
        return None
    if "id" not in body:
        raise MessageError("a message of protocol 1 without an id")
    embed = {name: body.get(name) for name in ("callbacks", "errbacks", "chord")}
    headers = {
        **message.headers,
        "lang": "py",
        "task": body["task"],
        "id": body["id"],
        "root_id": body["id"],
        "eta": _moment(body.get("eta"), body),
        "expires": _moment(body.get("expires"), body),
        "retries": body.get("retries") or 0,
        "timelimit": body.get("timelimit"),
        "group": body.get("taskset"),
    }
    headers.pop("compression", None)
    second = TaskMessage(
        headers=headers,
        body=json_codec.dumps([body.get("args") or [], body.get("kwargs") or {}, embed]),
        properties=message.properties,
    )
    return envelope(second, queue=queue)


def _moment(text: Any, body: dict[str, Any]) -> Any:
    """Times without an offset are in UTC if the message says so. What is no time is left for others to complain of."""
    try:
        naive = datetime.fromisoformat(text).tzinfo is None
    except (TypeError, ValueError):
        return text
    return f"{text}+00:00" if naive and body.get("utc") else text


def _check_type(content_type: str) -> None:
    if content_type not in ACCEPTED:
        raise MessageError(f"content type {content_type!r} is not accepted, only JSON is")


def _decoded(message: TaskMessage, at_most: int) -> Any:
    body = message.body
    if method := message.headers.get("compression"):
        if not isinstance(method, str):
            raise MessageError(f"its compression is {method!r}, which is no name")
        body = decompress(body, method, at_most)
    if message.content_encoding.lower() not in _PLAIN:
        body = _recoded(body, message.content_encoding)
    return json_codec.loads(body)


def _recoded(body: bytes, charset: str) -> bytes:
    try:
        return body.decode(charset).encode()
    except (LookupError, ValueError):
        raise MessageError(f"its body is not in the character set {charset!r} that it names") from None


def _checked(embed: dict[str, Any]) -> dict[str, Any]:
    """Check follow-ups before the task runs: one that has run cannot become a dead letter."""
    for name in ("callbacks", "errbacks", "chain"):
        calls = embed.get(name)
        if calls is not None and not (isinstance(calls, list) and all(map(_is_signature, calls))):
            raise MessageError(f"the body's {name} are no list of signatures")
    if (chord := embed.get("chord")) is not None and not _is_signature(chord):
        raise MessageError("the body's chord is no signature")
    return embed


def _is_signature(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("task"), str)
