"""``beatd.http``: make an HTTP request. Redirects lead to http and https only, and credentials stay with their host."""

from __future__ import annotations

import base64
import json as json_format
import logging
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit, urlunsplit

from beatd.clock import sleep
from beatd.exceptions import TaskError
from beatd.http_deadline import BoundedHandler, Deadline
from beatd.redaction import is_secret, printable, redacted, redacted_text

FOLLOWED_MAX = 10


class _Redirects(urllib.request.HTTPRedirectHandler):
    def __init__(self, at_most: int) -> None:
        self.max_redirections = max(at_most, 1)  # type: ignore[misc]

    def redirect_request(self, *given: Any) -> Any:
        """Return the redirected request: 307 and 308 repeat it with its body, other codes make it a GET."""
        req, _, code, _, _, newurl = given
        if urlsplit(newurl).scheme not in ("http", "https"):
            raise urllib.error.URLError(f"redirected to {printable(newurl)}, which is not on the web")
        keeps = code in (307, 308)
        same = urlsplit(newurl)[:2] == urlsplit(req.full_url)[:2]
        sent = {
            name: value
            for name, value in req.header_items()
            if name.lower() not in ("host", "content-length")
            and (keeps or name.lower() != "content-type")
            and (same or not is_secret(name))
        }
        method = req.get_method() if keeps or req.get_method() == "HEAD" else "GET"
        return urllib.request.Request(  # noqa: S310 - the scheme was checked
            newurl, data=req.data if keeps else None, headers=sent, method=method, unverifiable=True
        )


class _AnyStatus(urllib.request.HTTPErrorProcessor):
    """Handler that returns every response, whatever its status; redirects are followed elsewhere."""

    def __init__(self, follow: bool) -> None:
        self._follow = follow

    def http_response(self, request: urllib.request.Request, response: Any) -> Any:
        if self._follow and response.status in (301, 302, 303, 307, 308):
            return super().http_response(request, response)
        return response

    https_response = http_response


def opener_for(redirects: bool | int, deadline: Deadline) -> urllib.request.OpenerDirector:
    """Return the opener that follows redirects: a sensible number, none, or ``at_most``."""
    at_most = FOLLOWED_MAX if redirects is True else min(int(redirects), FOLLOWED_MAX)
    return urllib.request.build_opener(_AnyStatus(at_most > 0), _Redirects(at_most), BoundedHandler(deadline))


log = logging.getLogger(__name__)

BODY_MAX = 64 * 1024
"""Bytes of the answer that are kept: the first ones."""
TAIL = 2_000
_URL_SHOWN = 2_000
RETRIES_MAX = 20
_BACKOFF_MAX_S = 300.0
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Statuses after which another attempt may go better."""
_CHUNK = 16 * 1024


class HttpFailed(TaskError):
    """A request without an answer, or with an unexpected one."""


class Answer(NamedTuple):
    """The answer; ``truncated`` if only the beginning of the body is kept."""

    status: int
    headers: dict[str, str]
    body: str
    truncated: bool


class _Failure(NamedTuple):
    """A failed attempt: the reason, true if a retry may succeed, and the server's Retry-After (seconds)."""

    text: str
    passing: bool
    after: float | None = None


def http(
    url: str,
    method: str | None = None,
    *,
    headers: Mapping[str, str] | None = None,
    body: str | None = None,
    json: Any = None,
    expect: int | Sequence[int] | None = None,
    expect_json: Any = None,
    timeout: float = 30.0,
    retries: int = 0,
    backoff: float = 1.0,
    redirects: bool | int = True,
) -> dict[str, Any]:
    """Make a request and return ``{"status", "headers", "body", "truncated"}``.

    ``method`` is GET, or POST if there is something to send. ``json`` is sent as ``application/json``, ``body`` as it
    is. ``expect`` is a status or a list of them; default: any from 200 to 299, after redirects. ``expect_json`` must be
    in the answer: its tables with these names and values at least, everything else as it is. ``timeout`` (seconds) is
    for one attempt, from connecting to the last byte that is kept. After failures that may pass there are ``retries``
    more attempts, ``backoff`` seconds later and then twice as many each time, or when the server says. ``redirects``
    are followed, or so many, or not; credentials stay with the host that they were for. Raises :class:`HttpFailed`.
    """
    _check(timeout=timeout, retries=retries, backoff=backoff)
    pause, retries = float(backoff), min(int(retries), RETRIES_MAX)
    for attempt in range(retries + 1):
        request = _request(url, method, headers, body, json)
        found = _attempt(redirects, request, timeout)
        failure = found if isinstance(found, _Failure) else _unexpected(found, request, expect, expect_json)
        if failure is None:
            return {**found._asdict(), "headers": redacted(found.headers)}  # type: ignore[union-attr]
        if not failure.passing or attempt >= retries:
            raise HttpFailed(failure.text)
        wait = min(_BACKOFF_MAX_S, max(pause, failure.after or 0.0))
        text = "%s. Trying again in %.1fs."
        log.warning(text, failure.text, wait, extra={"event": "http_retrying", "attempt": attempt + 1})
        sleep(wait)
        pause *= 2
    raise AssertionError("the last attempt returns or raises")


def _check(**numbers: Any) -> None:
    for name, value in numbers.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
            raise HttpFailed(f"{name} must be a number, 0 or more, not {value!r}")


def _request(
    url: str, method: str | None, headers: Mapping[str, str] | None, body: str | None, json: Any
) -> urllib.request.Request:
    if not str(url).lower().startswith(("http://", "https://")):
        raise HttpFailed(f"{redacted_text(str(url), at_most=_URL_SHOWN)!r} is no http:// or https:// URL")
    if body is not None and json is not None:
        raise HttpFailed("either body or json can be sent, not both")
    sent = {"User-Agent": "beatd", **{str(name): str(value) for name, value in (headers or {}).items()}}
    data = None if body is None else str(body).encode()
    if json is not None:
        data = json_format.dumps(json).encode()
        sent.setdefault("Content-Type", "application/json")
    method = (method or ("GET" if data is None else "POST")).upper()
    try:
        url, login = _without_login(url)
        if login:
            sent.setdefault("Authorization", login)
        return urllib.request.Request(url, data=data, headers=sent, method=method)  # noqa: S310 - the scheme was checked
    except ValueError as error:
        raise HttpFailed(f"{redacted_text(url, at_most=_URL_SHOWN)!r} is no URL: {error}") from None


def _without_login(url: str) -> tuple[str, str]:
    """Return the URL without ``user:password@``, and the header with the same credentials."""
    parts = urlsplit(url)
    login, at, host = parts.netloc.rpartition("@")
    if not at:
        return url, ""
    return urlunsplit(parts._replace(netloc=host)), f"Basic {base64.b64encode(unquote(login).encode()).decode()}"


def _attempt(redirects: bool | int, request: urllib.request.Request, timeout: float) -> Answer | _Failure:
    with Deadline(timeout) as deadline:
        try:
            with opener_for(redirects, deadline).open(request, timeout=timeout) as answer:
                data = _body(answer)
                found: Answer | _Failure = Answer(
                    answer.status,
                    dict(answer.headers),
                    data[:BODY_MAX].decode("utf-8", "replace"),
                    truncated=len(data) > BODY_MAX,
                )
        except (urllib.error.URLError, OSError) as error:
            found = _Failure(
                f"{_name(request)} failed: {printable(str(getattr(error, 'reason', None) or error))}", passing=True
            )
        except Exception as error:  # noqa: BLE001 - http.client has many errors for what servers and users write
            found = _Failure(f"{_name(request)} failed: {_without_header(error)}", passing=False)
    if deadline.expired:
        return _Failure(f"{_name(request)} failed: timed out after {timeout:g}s", passing=True)
    return found


def _without_header(error: Exception) -> str:
    """Return the text of an error; http.client's about a header has its value, which may be a token with a line end."""
    text = str(error)
    return (
        "a header has a character that none can have, such as a line end" if "header value" in text else printable(text)
    )


def _body(answer: Any) -> bytes:
    """Read the first bytes of the body."""
    data = bytearray()
    while len(data) <= BODY_MAX and (chunk := answer.read1(_CHUNK)):
        data += chunk
    return bytes(data[: BODY_MAX + 1])


def _unexpected(answer: Answer, request: urllib.request.Request, expect: Any, expect_json: Any) -> _Failure | None:
    """Return the reason why an answer is unexpected, or None."""
    wanted = (expect,) if isinstance(expect, int) else expect
    if not (200 <= answer.status < 300 if wanted is None else answer.status in wanted):
        expected = "200 to 299" if expect is None else expect
        text = f"{_name(request)} answered {answer.status}, expected {expected}: {_beginning(answer)}"
        return _Failure(text, answer.status in _PASSING, _retry_after(answer))
    if expect_json is None:
        return None
    try:
        found = json_format.loads(answer.body)
    except ValueError:
        return _Failure(f"{_name(request)} answered no JSON: {_beginning(answer)}", passing=False)
    if (path := _difference(expect_json, found, "$")) is not None:
        return _Failure(f"{_name(request)} answered other JSON at {path}: {_beginning(answer)}", passing=False)
    return None


def _difference(wanted: Any, found: Any, path: str) -> str | None:
    """Return the place where the JSON differs from the expected one; tables may have further keys."""
    if isinstance(wanted, Mapping) and isinstance(found, Mapping):
        for name, value in wanted.items():
            if name not in found:
                return f"{path}.{name}"
            if (deeper := _difference(value, found[name], f"{path}.{name}")) is not None:
                return deeper
        return None
    return None if wanted == found else path


def _retry_after(answer: Answer) -> float | None:
    text = next((value for name, value in answer.headers.items() if name.lower() == "retry-after"), "")
    return float(text) if text.isascii() and text.isdigit() else None


def _name(request: urllib.request.Request) -> str:
    return printable(f"{request.get_method()} {redacted_text(request.full_url, at_most=_URL_SHOWN)}")


def _beginning(answer: Answer) -> str:
    """Return the beginning of the body, which cannot control the terminal in which the error is read."""
    return "\n".join(map(printable, answer.body[:TAIL].splitlines()))
