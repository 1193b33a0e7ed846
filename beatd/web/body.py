"""Body of a request: read up to a limit, as JSON or as a form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar
from urllib.parse import parse_qsl

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request

BODY_MAX = (1 << 20) + (64 << 10)
"""Bytes: the largest table of an entry, and some more."""
_FIELDS_MAX = 100

S = TypeVar("S", bound=msgspec.Struct)


async def read_body(request: Request) -> bytes:
    """The body; HTTPException 413 for one that is too large, which is not read to its end."""
    said = request.headers.get("content-length", "")
    if said.isdigit() and len(said) < 20 and int(said) > BODY_MAX:
        raise HTTPException(413, f"a body has at most {BODY_MAX:,} bytes", {"Connection": "close"})
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > BODY_MAX:
            raise HTTPException(413, f"a body has at most {BODY_MAX:,} bytes", {"Connection": "close"})
    return bytes(body)


def read_json(request: Request, body: bytes, kind: type[S]) -> S:
    """The document in a body; HTTPException 400 and 415. An empty body is an empty document."""
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if body and content_type != "application/json":
        raise HTTPException(415, "expected Content-Type: application/json")
    try:
        return msgspec.json.decode(body or b"{}", type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise HTTPException(400, f"the body is not valid: {error}") from None


def read_form(request: Request, body: bytes) -> Mapping[str, str]:
    """The fields of a form that are filled in; HTTPException 400 and 415."""
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type != "application/x-www-form-urlencoded":
        raise HTTPException(415, "expected a form: application/x-www-form-urlencoded")
    try:
        pairs = parse_qsl(body.decode(), max_num_fields=_FIELDS_MAX, errors="strict")
    except ValueError:
        raise HTTPException(400, "the form cannot be read") from None
    return {name: text for name, text in pairs if text.strip()}


def convert(fields: Mapping[str, Any], kind: type[S]) -> S:
    """The fields of a form as the document that the API takes; HTTPException 400."""
    try:
        return msgspec.convert(dict(fields), kind, strict=False)
    except msgspec.MsgspecError as error:
        raise HTTPException(400, f"the form is not valid: {error}") from None
