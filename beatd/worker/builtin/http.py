"""``beatd.http``: make a request."""

from __future__ import annotations

import json as json_format
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from beatd.exceptions import TaskError

BODY_MAX = 64 * 1024
"""Bytes of the answer that are kept: the first ones."""
TAIL = 2_000


class HttpFailed(TaskError):
    """No answer, or one with another status than expected."""


def http(
    url: str,
    method: str | None = None,
    *,
    expect: int | Sequence[int] | None = None,
    timeout: float = 30.0,
    headers: Mapping[str, str] | None = None,
    body: str | None = None,
    json: Any = None,
) -> dict[str, Any]:
    """Make a request and return ``{"status", "headers", "body", "truncated"}``.

    ``method`` is GET, or POST if there is something to send. ``expect`` is a status or a list of them; default: any
    from 200 to 299, after redirects. ``json`` is sent as ``application/json``, ``body`` as it is. ``timeout`` (seconds)
    is for connecting and for each read. Raises :class:`HttpFailed`.
    """
    if urlsplit(url).scheme not in ("http", "https"):
        raise HttpFailed(f"{url!r} is no http:// or https:// URL")
    request = _request(url, method, headers, body, json)
    try:
        with _opener.open(request, timeout=timeout) as answer:
            status, found, data = answer.status, dict(answer.headers), answer.read(BODY_MAX + 1)
    except (urllib.error.URLError, OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise HttpFailed(f"{request.get_method()} {url} failed: {reason}") from None
    text = data[:BODY_MAX].decode("utf-8", "replace")
    if not _is_expected(status, expect):
        wanted = "200 to 299" if expect is None else expect
        raise HttpFailed(f"{request.get_method()} {url} answered {status}, expected {wanted}: {text[:TAIL]}")
    return {"status": status, "headers": found, "body": text, "truncated": len(data) > BODY_MAX}


class _AnyStatus(urllib.request.HTTPErrorProcessor):
    """Redirects are followed; every other answer is an answer, whatever its status."""

    def http_response(self, request: urllib.request.Request, response: Any) -> Any:
        if response.status in (301, 302, 303, 307, 308):
            return super().http_response(request, response)
        return response

    https_response = http_response


_opener = urllib.request.build_opener(_AnyStatus)


def _request(
    url: str, method: str | None, headers: Mapping[str, str] | None, body: str | None, json: Any
) -> urllib.request.Request:
    sent = {"User-Agent": "beatd", **(headers or {})}
    data = None if body is None else body.encode()
    if json is not None:
        data = json_format.dumps(json).encode()
        sent.setdefault("Content-Type", "application/json")
    method = (method or ("GET" if data is None else "POST")).upper()
    return urllib.request.Request(url, data=data, headers=sent, method=method)  # noqa: S310 - the scheme was checked


def _is_expected(status: int, expect: int | Sequence[int] | None) -> bool:
    if expect is None:
        return 200 <= status < 300
    return status == expect if isinstance(expect, int) else status in expect
