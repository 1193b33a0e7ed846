"""Access: who asks, what they may do, and whether a request that changes something was meant by them.

Somebody is known by a token (``Authorization: Bearer``), by the session that a browser got for one, or by the header
of a proxy at a trusted address. All others are nobody: they may read, or do nothing.
"""

from __future__ import annotations

import hmac
import ipaddress
import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Literal, NamedTuple

from starlette.exceptions import HTTPException
from starlette.requests import Request

from beatd.clock import Clock
from beatd.model import WebSettings
from beatd.web import session
from beatd.web.rates import Buckets
from beatd.web.tokens import Role, Token, Tokens, digest_of

LOGINS = (10, 60.0)
"""Different wrong tokens of one address, and the seconds in which so many more are allowed."""
_NAME_MAX = 100
_REFUSED_MAX = 1_000
"""Wrong tokens that are remembered."""


class Person(NamedTuple):
    """The sender of a request. ``role``: None may not even read."""

    name: str
    role: Role | None
    by: Literal["token", "session", "proxy", "nobody"]
    csrf: str = ""
    """The token that their forms carry."""

    @property
    def operates(self) -> bool:
        """True if they may change things."""
        return self.role == "operate"


class Access:
    """``reads``: True if requests without a token may read. ``settings`` are those of ``[web]``."""

    def __init__(self, settings: WebSettings, tokens: Tokens, clock: Clock, *, reads: bool) -> None:
        self._settings, self._tokens, self._clock = settings, tokens, clock
        self.nobody = Person("", "read" if reads else None, "nobody")
        self._proxies = networks(settings.trusted_proxies or ())
        self._wrong = Buckets(*LOGINS, clock)
        self._noting = threading.Lock()
        self._refused: OrderedDict[bytes, None] = OrderedDict()

    @property
    def can_log_in(self) -> bool:
        """True if there are tokens."""
        return self._tokens.is_configured

    @property
    def can_operate(self) -> bool:
        """True if anybody can have the right to act."""
        return self._tokens.is_configured or (
            bool(self._settings.user_header) and self._settings.proxy_role == "operate"
        )

    def person(self, request: Request) -> Person:
        """Return the sender. Raises HTTPException 401 for a token that is not known, 429 after too many of these."""
        header = request.headers.get("authorization")
        scheme, _, text = (header or "").partition(" ")
        if scheme.lower() == "bearer":
            token = self.token(request, text.strip())
            return Person(token.name, token.role, "token")
        named = self._of_proxy(request)
        if header is not None and named is None:  # a proxy that asks its users for a password may pass it on
            raise HTTPException(401, "expected Authorization: Bearer TOKEN", _CHALLENGE)
        return named or self._of_session(request) or self.nobody

    def token(self, request: Request, text: str) -> Token:
        """The token of that text, or HTTPException 401, 429 after too many wrong ones.

        A right one is taken also then: others behind the same proxy must lock nobody out. Tokens are too long
        (:data:`~beatd.web.tokens.TOKEN_MIN`) to be guessed by as many requests as are let in
        (:class:`~beatd.web.rates.RateLimit`).
        """
        token = self._tokens.find(text)
        if token is not None:
            return token
        if not self._wrong.has_room(peer_of(request)):
            raise HTTPException(429, "too many wrong tokens; try again in a minute", {"Retry-After": "60"})
        if self._is_new_guess(text):
            self._wrong.take(peer_of(request))
        raise HTTPException(401, "this token is not known", _CHALLENGE)

    def _is_new_guess(self, text: str) -> bool:
        """False for a wrong token that came before: a program that goes on with an old one must lock nobody out."""
        digest = digest_of(text)
        with self._noting:
            is_new = digest not in self._refused
            self._refused[digest] = None
            self._refused.move_to_end(digest)
            if len(self._refused) > _REFUSED_MAX:
                self._refused.popitem(last=False)
        return is_new

    def require(self, request: Request, role: Role) -> Person:
        """Return the sender, if they have that role. Raises HTTPException 401 or 403."""
        person = self.person(request)
        if person.role == role or person.operates:
            return person
        if role == "read" or (person.by == "nobody" and self.can_operate):
            raise HTTPException(401, "a token is needed", _CHALLENGE)
        if not self.can_operate:
            raise HTTPException(403, "this page is read-only; name a file with tokens: [web] tokens_file")
        raise HTTPException(403, f"{person.name or 'this token'} may read and not operate")

    def check_origin(self, request: Request, person: Person, form_token: str) -> None:
        """Raise HTTPException 403 for a request that another site may have made the browser send."""
        if person.by == "token":
            self.check_site(request, browser=False)
            return
        self.check_site(request)
        if not person.csrf or not hmac.compare_digest(person.csrf.encode(), form_token.encode()):
            raise HTTPException(403, "the form is out of date; load the page again")

    def check_site(self, request: Request, *, browser: bool = True) -> None:
        """Raise HTTPException 403 for a request of another site; a ``browser`` says from which it comes."""
        origin, site = request.headers.get("origin"), request.headers.get("sec-fetch-site")
        is_here = origin is not None and origin.partition("://")[2] == request.headers.get("host", "")
        is_same = is_here or site == "same-origin"  # behind a proxy the host may have another name
        if (origin is not None and not is_same) or site not in (None, "same-origin", "none"):
            raise HTTPException(403, "this request comes from another site")
        if browser and origin is None and site is None:
            raise HTTPException(403, "this request does not say from which site it comes")

    def session_of(self, token: Token) -> str:
        """The value of the session's cookie for somebody who gave that token."""
        until_ms = self._clock.now_ms() + session.SESSION_S * 1000
        return session.sign(self._tokens.key, "session", [token.name, token.digest.hex()], until_ms)

    def note(self, text: str) -> str:
        """The value of the cookie with a note for the next page."""
        shown = text if len(text) <= session.NOTE_MAX else f"{text[: session.NOTE_MAX - 1]}…"
        return session.sign(self._tokens.key, "note", shown, self._clock.now_ms() + session.NOTE_S * 1000)

    def read_note(self, request: Request) -> str:
        """The note that was left for this page."""
        signed = request.cookies.get(session.NOTE, "")
        return str(session.verify(self._tokens.key, "note", signed, self._clock.now_ms()) or "") if signed else ""

    def _of_session(self, request: Request) -> Person | None:
        cookie = request.cookies.get(session.SESSION)
        if not cookie:
            return None
        self._tokens.known()
        value = session.verify(self._tokens.key, "session", cookie, self._clock.now_ms())
        token = self._tokens.named(value[0]) if value else None
        if token is None or token.digest.hex() != value[1]:
            return None
        return Person(token.name, token.role, "session", session.form_token(self._tokens.key, cookie))

    def _of_proxy(self, request: Request) -> Person | None:
        header = self._settings.user_header
        name = request.headers.get(header, "").strip() if header else ""
        if not name or len(request.headers.getlist(header or "")) != 1 or not self._is_trusted(peer_of(request)):
            return None
        name = "".join(char for char in name[:_NAME_MAX] if char.isprintable())
        csrf = session.form_token(self._tokens.key, f"proxy {name}")
        return Person(name, self._settings.proxy_role, "proxy", csrf)

    def _is_trusted(self, peer: str) -> bool:
        try:
            address = ipaddress.ip_address(peer)
        except ValueError:
            return False
        return any(address in network for network in self._proxies)


def peer_of(request: Request) -> str:
    """The address from which a request comes."""
    return request.client.host if request.client else ""


def networks(texts: Sequence[str]) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    """The networks of addresses such as ``10.0.0.5`` and ``10.0.0.0/8``; raises ValueError."""
    return [ipaddress.ip_network(each, strict=False) for each in texts]


_CHALLENGE = {"WWW-Authenticate": 'Bearer realm="beatd"'}
