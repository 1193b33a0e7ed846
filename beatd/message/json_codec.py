"""JSON as kombu writes and reads it: plain values as they are, and a few types marked ``{"__type__", "__value__"}``.

Celery clients and workers see the same Python values on both ends. The marks are those of ``kombu.utils.json``:
datetime, date, time, UUID, Decimal, bytes, and types that the program registered there. :func:`loads` reads unmarked
documents at full speed and looks for marks only where the text has one.
"""

from __future__ import annotations

import base64
import contextlib
import json
import sys
import uuid
from collections.abc import Callable
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any, TypeVar

import msgspec

from beatd.exceptions import MessageError

T = TypeVar("T")
_MARK = b'"__type__"'
_PLAIN_DECODER = msgspec.json.Decoder(Any)
_encode_plain = msgspec.json.Encoder().encode
_BAD_MARKS = (AttributeError, ArithmeticError)
"""What reviving a mark raises whose value is not of its type, or no decimal."""


def dumps(value: Any) -> bytes:
    """``value`` as UTF-8 JSON; raises :class:`MessageError` with the offending type when JSON cannot carry it."""
    try:
        return _encoder.encode(value).encode("utf-8", "surrogatepass")
    except (TypeError, ValueError, RecursionError) as error:
        raise MessageError(f"JSON cannot carry this value: {error}") from None


def dumps_plain(value: Any) -> bytes:
    """:func:`dumps` for values known to be made of None, bools, ints, texts, lists and dicts only: several times as
    fast."""
    try:
        return _encode_plain(value)
    except (msgspec.EncodeError, OverflowError, UnicodeError):  # numbers of more than 64 bits, lone surrogates
        return dumps(value)


def loads(data: bytes) -> Any:
    """The value of a JSON document; raises :class:`MessageError` for anything else."""
    try:
        if _MARK not in data:
            return decode_as(_PLAIN_DECODER, data)
        return json.loads(data, object_hook=_revive)
    except (msgspec.DecodeError, ValueError, RecursionError, LookupError, TypeError, *_BAD_MARKS) as error:
        raise MessageError(f"not a JSON document: {error}") from None


def decode_as(decoder: msgspec.json.Decoder[T], data: bytes) -> T:
    """``decoder.decode(data)``; values that only Python writes (:data:`_PYTHONS`) are read more slowly.

    Raises ValueError or RecursionError.
    """
    try:
        return decoder.decode(data)
    except msgspec.DecodeError:
        if any(mark in data for mark in _PYTHONS):
            return msgspec.convert(json.loads(data), decoder.type)
        raise


_PYTHONS = (b"NaN", b"Infinity", b"\\ud", b"\\uD")
"""Numbers that are none, and lone surrogates: parts of file names that are no UTF-8."""


def _mark(value: Any) -> Any:
    match value:
        case datetime():
            return _marked("datetime", value.isoformat())
        case date() | time():
            return _marked(type(value).__name__, value.isoformat())
        case Decimal():
            return _marked("decimal", str(value))
        case uuid.UUID():
            return _marked("uuid", {"hex": value.hex})
        case bytes():
            try:
                return _marked("bytes", value.decode("utf-8"))
            except UnicodeDecodeError:
                return _marked("base64", base64.b64encode(value).decode("ascii"))
        case set() | frozenset():
            return list(value)
    return _of_own_type(value)


def _of_own_type(value: Any) -> Any:
    """Return the JSON of a value that brings it along, of Django's lazy texts, and of types registered at kombu."""
    if callable(as_json := getattr(value, "__json__", None)):
        return as_json()
    if _is_lazy_text(value):
        return str(value)
    if (kombu := sys.modules.get("kombu.utils.json")) is not None:
        with contextlib.suppress(TypeError):
            return kombu.JSONEncoder().default(value)
    raise TypeError(f"{type(value).__name__} is not serializable")


def _is_lazy_text(value: Any) -> bool:
    """True for Django's translations that are made on use."""
    django = sys.modules.get("django.utils.functional")
    return django is not None and isinstance(value, django.Promise)


def _marked(kind: str, value: Any) -> dict[str, Any]:
    return {"__type__": kind, "__value__": value}


_REVIVERS: dict[str, Callable[[Any], Any]] = {
    "datetime": datetime.fromisoformat,
    "date": lambda value: datetime.fromisoformat(value).date(),
    "time": time.fromisoformat,
    "decimal": Decimal,
    "uuid": lambda value: uuid.UUID(**value),
    "bytes": lambda value: value.encode("utf-8"),
    "base64": lambda value: base64.b64decode(value.encode("ascii")),
}


def _revive(pairs: dict[str, Any]) -> Any:
    if pairs.keys() != {"__type__", "__value__"}:
        return pairs
    revive = _REVIVERS.get(pairs["__type__"])
    if revive is None and (kombu := sys.modules.get("kombu.utils.json")) is not None:
        return kombu.object_hook(pairs)
    if revive is None:
        raise ValueError(f"unknown type {pairs['__type__']!r}")
    return revive(pairs["__value__"])


_encoder = json.JSONEncoder(default=_mark, separators=(",", ":"), ensure_ascii=True, allow_nan=True)
