"""Decoding of messages: from the envelope to the arguments of a call. An error is one sentence.

Two protocols: version 2, with the task in the headers, and version 1 of Celery 3, with everything in the body.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from beatd.exceptions import MessageError
from beatd.message import json_codec
from beatd.message.compression import decompress
from beatd.message.protocol import JSON, TaskMessage, envelope, open_envelope

ACCEPTED = frozenset({JSON, "application/x-json", "json"})
"""JSON's content types; always accepted."""

_PLAIN = frozenset({"utf-8", "utf8", "us-ascii", "ascii", "binary", "None", ""})
"""Character sets that need no conversion; kombu writes ``binary`` for text that it has not encoded."""


class Call(NamedTuple):
    """The content of a body; ``embed`` has the callbacks, errbacks, chain and chord."""

    args: list[Any]
    kwargs: dict[str, Any]
    embed: dict[str, Any]


def accepted_types(names: Iterable[str] | None) -> frozenset[str]:
    """Return the content types of ``accept_content``, and JSON; raises :class:`MessageError` for an unknown name."""
    others = [name for name in names or () if name not in ACCEPTED]
    if not others:
        return ACCEPTED
    from beatd.broker.serialization import content_types  # noqa: PLC0415 - costs memory and time; few need it

    return ACCEPTED | content_types(others)


def check_type(content_type: str, accepted: frozenset[str]) -> None:
    """Raise :class:`MessageError` for a body of another type."""
    if content_type not in accepted:
        types = "only JSON is" if accepted == ACCEPTED else f"accept_content has {', '.join(sorted(accepted))}"
        raise MessageError(f"content type {content_type!r} is not accepted, {types}")


def decode_body(message: TaskMessage, at_most: int, accepted: frozenset[str] = ACCEPTED) -> Call:
    """Decode a message's body of at most ``at_most`` bytes; raises :class:`MessageError`."""
    match _decoded(message, at_most, accepted):
        case [list() | tuple() as args, dict() as kwargs, dict() | None as embed]:
            return Call(args if isinstance(args, list) else list(args), kwargs, _checked(embed or {}))
    raise MessageError("the body is not [args, kwargs, embed]")


def upgrade_protocol_1(raw: bytes, queue: str, at_most: int, accepted: frozenset[str] = ACCEPTED) -> bytes | None:
    """Convert a message of protocol 1 to protocol 2; None if it is no such message."""
    try:
        message = open_envelope(raw)
    except MessageError:
        return None
    if "task" in message.headers:
        return None
    body = _decoded(message, at_most, accepted)
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
    return envelope(second, queue=queue.partition("\x06")[0])  # without kombu's suffix of a priority's list


def _moment(text: Any, body: dict[str, Any]) -> Any:
    """Add the UTC offset to a time without one, if the message is in UTC; other values are returned unchanged."""
    try:
        naive = datetime.fromisoformat(text).tzinfo is None
    except (TypeError, ValueError):
        return text
    return f"{text}+00:00" if naive and body.get("utc") else text


def _decoded(message: TaskMessage, at_most: int, accepted: frozenset[str]) -> Any:
    if message.content_type not in accepted:
        check_type(message.content_type, accepted)
    body = message.body
    if method := message.headers.get("compression"):
        if not isinstance(method, str):
            raise MessageError(f"its compression is {method!r}, which is no name")
        body = decompress(body, method, at_most)
    if len(body) > at_most:
        raise MessageError(f"its body has {len(body):,} bytes, message_max_bytes allows {at_most:,}")
    if message.content_type not in ACCEPTED:
        from beatd.broker.serialization import loads  # noqa: PLC0415 - see accepted_types()

        return loads(body, message.content_type, message.content_encoding)
    if message.content_encoding.lower() not in _PLAIN:
        body = _recoded(body, message.content_encoding)
    return json_codec.loads(body)


def _recoded(body: bytes, charset: str) -> bytes:
    try:
        return body.decode(charset).encode()
    except (LookupError, ValueError):
        raise MessageError(f"its body is not in the character set {charset!r} that it names") from None


class _Options(msgspec.Struct):
    """Options of a signature by which a worker finds other tasks; all others are checked when it is sent."""

    task_id: str | None = None
    root_id: str | None = None
    parent_id: str | None = None
    group_id: str | None = None
    group_index: int | None = None
    reply_to: str | None = None
    chord: dict[str, Any] | None = None
    chain: list[Any] | None = None
    link: list[Any] | dict[str, Any] | None = None
    link_error: list[Any] | dict[str, Any] | None = None


class _Signature(msgspec.Struct):
    task: str
    args: list[Any] | None = None
    kwargs: dict[str, Any] | None = None
    options: _Options | None = None
    subtask_type: str | None = None


class _Parts(msgspec.Struct):
    """The parts of a composition, among its keyword arguments."""

    tasks: list[Any] | None = None
    header: list[Any] | dict[str, Any] | None = None
    body: dict[str, Any] | None = None


_COMPOSITIONS = frozenset({"chain", "group", "chord"})


def _checked(embed: dict[str, Any]) -> dict[str, Any]:
    """Check the callbacks before the run: a task that has run cannot go to the dead letters."""
    for name in ("callbacks", "errbacks", "chain"):
        if (calls := embed.get(name)) is not None:
            if not isinstance(calls, list):
                raise MessageError(f"the body's {name} are no list of signatures")
            _check(calls, f"the body's {name} are no list of signatures")
    if (chord := embed.get("chord")) is not None:
        _check([chord], "the body's chord is no signature")
    return embed


def _check(calls: list[Any], what: str) -> None:
    """Check signatures, and all that they contain; raises :class:`MessageError` that begins with ``what``."""
    waiting = list(calls)
    while waiting:
        try:
            call = msgspec.convert(waiting.pop(), _Signature)
            options = call.options or _Options()
            waiting += [options.chord] if options.chord else []
            for several in (options.chain, options.link, options.link_error):
                waiting += [several] if isinstance(several, dict) else several or []
            if call.subtask_type in _COMPOSITIONS:
                parts = msgspec.convert(call.kwargs or {}, _Parts)
                waiting += [parts.header] if isinstance(parts.header, dict) else parts.header or []
                waiting += [*(parts.tasks or ()), *([parts.body] if parts.body else ())]
        except msgspec.ValidationError as error:
            raise MessageError(f"{what}: {error}") from None
