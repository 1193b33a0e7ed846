"""How redirects are followed: to the web only, so many times, and without taking credentials to another host."""

from __future__ import annotations

import urllib.error
import urllib.request
from typing import Any
from urllib.parse import urlsplit

from beatd.redaction import is_secret
from beatd.worker.builtin.deadline import BoundedHandler, Deadline

FOLLOWED_MAX = 10


class _Redirects(urllib.request.HTTPRedirectHandler):
    def __init__(self, at_most: int) -> None:
        self.max_redirections = max(at_most, 1)  # type: ignore[misc]

    def redirect_request(self, *given: Any) -> Any:
        """The request that follows another one; 307 and 308 repeat it with its body, the others turn it into a GET."""
        req, _, code, _, _, newurl = given
        if urlsplit(newurl).scheme not in ("http", "https"):
            raise urllib.error.URLError(f"redirected to {newurl}, which is not on the web")
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
    """Redirects are left to who follows them; every other answer is an answer, whatever its status."""

    def __init__(self, follow: bool) -> None:
        self._follow = follow

    def http_response(self, request: urllib.request.Request, response: Any) -> Any:
        if self._follow and response.status in (301, 302, 303, 307, 308):
            return super().http_response(request, response)
        return response

    https_response = http_response


def opener_for(redirects: bool | int, deadline: Deadline) -> urllib.request.OpenerDirector:
    """What makes requests and follows redirects: all that are reasonable, none, or so many."""
    at_most = FOLLOWED_MAX if redirects is True else min(int(redirects), FOLLOWED_MAX)
    return urllib.request.build_opener(_AnyStatus(at_most > 0), _Redirects(at_most), BoundedHandler(deadline))
