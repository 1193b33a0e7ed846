"""HTTP request to a target: bounded in time, and with errors in which no address is.

Redirects are not followed. A message goes to the address of the configuration only: who answers there could send it,
and with it the daemon, to servers of this host and its network, or out of TLS.
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

_REDIRECTS = frozenset({301, 302, 307, 308})
_LASTING = frozenset({301, 308, 400, 405, 406, 410, 411, 413, 414, 415, 422, 431, 501, 505})
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
    with Deadline(timeout_s) as deadline, _named(url, deadline, timeout_s):
        opener = urllib.request.build_opener(_NoRedirect(), BoundedHandler(deadline))
        status, answered = _answer(opener, _prepared(url, body, headers or {}), timeout_s)
    if not (200 <= status < 300 or status == 303):
        after_s = _retry_after_s(answered.get("retry-after", ""), now_ms)
        phrase = http.client.responses.get(status, "")
        text = f"{host_of(url)} answered {status} {phrase}".rstrip()
        if status in _REDIRECTS:
            text += f", a redirect to {_place_of(url, answered.get('location', ''))}, which is not followed"
        raise DeliveryFailed(text, passing=status not in _LASTING, after_s=after_s)


def _answer(
    opener: urllib.request.OpenerDirector, prepared: urllib.request.Request, timeout_s: float
) -> tuple[int, dict[str, str]]:
    with opener.open(prepared, timeout=timeout_s) as answer:
        answer.read1(_ANSWER_MAX)
        return answer.status, {name.lower(): value for name, value in answer.headers.items()}


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


def _place_of(url: str, location: str) -> str:
    """The scheme and host of a redirect; its path may be a secret."""
    try:
        parts = urlsplit(urljoin(url, location))
        place = f"{parts.scheme}://{parts.hostname}" if location and parts.hostname else ""
    except ValueError:
        place = ""
    return printable(place)[:_REFUSAL_MAX] or "no web address"


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
