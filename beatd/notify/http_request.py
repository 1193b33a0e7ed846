"""HTTP request to a target: bounded in time, with redirects, and with errors in which no address is.

A redirect repeats the request with its body, so that a message is not lost on the way from http to https. Headers that
were set for the target are sent to its host only, and never over http if its URL is https.
"""

from __future__ import annotations

import base64
import http.client
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import quote, unquote, urljoin, urlsplit, urlunsplit

from beatd.exceptions import BeatdError
from beatd.http_deadline import BoundedHandler, Deadline
from beatd.redaction import printable
from beatd.timestamps import to_ms

_REDIRECTS_MAX = 5
_LASTING = frozenset({400, 405, 406, 410, 411, 413, 414, 415, 422, 431, 501, 505})
"""Statuses after which the same request does not go better."""
_ANSWER_MAX = 64 << 10
_WAIT_MAX_S = 3600.0
_REFUSAL_MAX = 100
_SAFE = "%/:=&?~+!$,;'@()*[]|"
"""Characters of a path and a query that are sent as they are; what ASCII does not have, and blanks, are quoted."""


class DeliveryFailed(BeatdError):
    """A notice that could not be delivered. ``passing``: another attempt may go better, after ``after_s`` seconds.

    ``left`` are the addresses of a target that have not got it, when others have.
    """

    def __init__(self, reason: str, *, passing: bool = True, after_s: float = 0.0, left: tuple[int, ...] = ()) -> None:
        super().__init__(reason)
        self.passing = passing
        self.after_s = after_s
        self.left = left


class _NoRedirect(urllib.request.HTTPErrorProcessor):
    def http_response(self, request: urllib.request.Request, response: Any) -> Any:  # noqa: ARG002
        return response

    https_response = http_response


def request(
    url: str, *, now_ms: int, timeout_s: float, body: bytes | None = None, headers: Mapping[str, str] | None = None
) -> None:
    """POST ``body``, or GET without one; raises :class:`DeliveryFailed` unless the answer is a 2xx."""
    first = url
    with Deadline(timeout_s) as deadline:
        opener = urllib.request.build_opener(_NoRedirect(), BoundedHandler(deadline))
        for _ in range(_REDIRECTS_MAX + 1):
            own = headers if _may_have_headers(url, first) else {}
            with _named(url, deadline, timeout_s):
                status, answered = _answer(opener, _prepared(url, body, own or {}), timeout_s)
            if status not in (301, 302, 307, 308):
                break
            url = _redirected(url, answered.get("location", ""))
        else:
            raise DeliveryFailed(f"redirected more than {_REDIRECTS_MAX} times")
    if not (200 <= status < 300 or status == 303):
        after_s = _retry_after_s(answered.get("retry-after", ""), now_ms)
        phrase = http.client.responses.get(status, "")
        text = f"{host_of(url)} answered {status} {phrase}".rstrip()
        raise DeliveryFailed(text, passing=status not in _LASTING, after_s=after_s)


def _answer(
    opener: urllib.request.OpenerDirector, prepared: urllib.request.Request, timeout_s: float
) -> tuple[int, dict[str, str]]:
    with opener.open(prepared, timeout=timeout_s) as answer:
        answer.read1(_ANSWER_MAX)
        return answer.status, {name.lower(): value for name, value in answer.headers.items()}


def _may_have_headers(url: str, first: str) -> bool:
    """True if headers for the first URL may be sent to another one: to the same host, and not from https to http."""
    here, there = urlsplit(url), urlsplit(first)
    return here.netloc == there.netloc and (here.scheme == "https" or there.scheme == "http")


@contextmanager
def _named(url: str, deadline: Deadline, timeout_s: float) -> Iterator[None]:
    """Turn errors of a request into one that names the host only."""
    try:
        yield
    except (OSError, http.client.HTTPException, ValueError) as error:
        cause = error.reason if isinstance(error, urllib.error.URLError) else error
        if deadline.expired or isinstance(cause, TimeoutError):
            raise DeliveryFailed(f"{host_of(url)} did not answer within {timeout_s:g} s") from None
        reason = getattr(cause, "strerror", None) or _of_proxy(cause) or f"{type(cause).__name__} while it was asked"
        raise DeliveryFailed(f"{host_of(url)}: {reason}") from None


def _of_proxy(cause: object) -> str:
    """The refusal of a proxy, which has no address in it; empty for other causes."""
    text = str(cause)
    return printable(text)[:_REFUSAL_MAX] if text.startswith("Tunnel connection failed") else ""


def _prepared(url: str, body: bytes | None, headers: Mapping[str, str]) -> urllib.request.Request:
    parts = urlsplit(url)
    login, _, host = parts.netloc.rpartition("@")
    sent = {"User-Agent": "beatd"} | ({"Content-Type": "application/json"} if body is not None else {})
    if login:
        sent["Authorization"] = f"Basic {base64.b64encode(unquote(login).encode()).decode()}"
    path, query = (quote(part, safe=_SAFE) for part in (parts.path, parts.query))
    address = urlunsplit(parts._replace(netloc=host, path=path, query=query, fragment=""))
    return urllib.request.Request(address, data=body, headers={**sent, **headers})  # noqa: S310 - the scheme was checked


def _redirected(url: str, location: str) -> str:
    try:
        target = urljoin(url, location)
        parts = urlsplit(target)
        is_web = bool(location and parts.hostname) and parts.scheme in ("http", "https") and parts.port != 0
    except ValueError:
        is_web = False
    if not is_web:
        raise DeliveryFailed(f"{host_of(url)} redirects to no web address", passing=False)
    return target


def host_of(url: str) -> str:
    """The host of a URL, which is no secret."""
    try:
        return urlsplit(url).hostname or "the host"
    except ValueError:
        return "the host"


def _retry_after_s(text: str, now_ms: int) -> float:
    """Read ``Retry-After``: seconds, or a date."""
    if text.isascii() and text.isdigit() and len(text) < 10:
        return min(float(text), _WAIT_MAX_S)
    try:
        moment = parsedate_to_datetime(text)
    except (TypeError, ValueError, OverflowError):
        return 0.0
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return min(max((to_ms(moment) - now_ms) / 1000, 0.0), _WAIT_MAX_S)
