"""Security of every answer: headers that bound what a browser may do with it, and the check of ``Host``.

A page on the loopback address could be read by any web site whose name suddenly means 127.0.0.1 (DNS rebinding). So it
answers only to names of this machine, and to those that were allowed.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})


class Guard:
    """``policy`` is the Content-Security-Policy; ``hosts`` the names it answers to, ``None`` for all."""

    def __init__(self, app: ASGIApp, policy: str, hosts: Collection[str] | None) -> None:
        self._app = app
        self._hosts = hosts
        self._headers = {
            "Content-Security-Policy": policy,
            "X-Content-Type-Options": "nosniff",
            "X-Frame-Options": "DENY",
            "Referrer-Policy": "same-origin",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Cache-Control": "no-store",
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(self._headers)
                if scope["path"].startswith("/badge/"):  # made to be shown by other sites
                    headers["Cross-Origin-Resource-Policy"] = "cross-origin"
            await send(message)

        given = Headers(scope=scope).getlist("host")
        name = host_name(given[0]) if len(given) == 1 else None
        if self._hosts is None or name in self._hosts:
            await self._app(scope, receive, send_guarded)
        else:
            told = "This page does not answer to the name by which you called it; allow it with --allow-host."
            await refusal(scope, 421, told)(scope, receive, send_guarded)


def refusal(scope: Scope, code: int, text: str, headers: Mapping[str, str] | None = None) -> Response:
    """An answer to a request that reaches no endpoint: JSON for the API, else text."""
    if scope["path"].startswith("/api/"):
        return JSONResponse({"error": text}, code, headers)
    return PlainTextResponse(f"{text}\n", code, headers)


def host_name(header: str) -> str | None:
    """The name in a Host header, without its port, in lower case: ``"[::1]:8800"`` is ``"[::1]"``.

    ``None`` for what RFC 9110 does not allow there.
    """
    found = _HOST.fullmatch(header.strip().lower())
    return found["name"] if found else None


_HOST = re.compile(r"(?P<name>\[[0-9a-f:.]{2,45}\]|[a-z0-9._-]{1,253})(:[0-9]{1,5})?", re.ASCII)
