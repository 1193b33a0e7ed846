"""URL syntax: splitting a URL into its parts, strictly, and showing it without its secrets.

A URL that can be read in two ways is refused. An error names the scheme and nothing else of the URL.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, unquote

from beatd.exceptions import WrongUrl
from beatd.redaction import HIDDEN, is_secret
from beatd.url_options import WrongOption, option_value

ENCODE = "percent-encode the password, or give `password` beside `url`"

_LONGEST = 8192
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]{0,31}")
_HOST = re.compile(r"[\w.\-]{1,253}|\[[0-9A-Fa-f:.]{2,45}(?:%25[\w.\-]{1,32})?\]")
_PORT = re.compile(r"[0-9]{1,5}")
_BAD = re.compile(r"[\x00-\x20\x7f-\xa0\u2028\u2029\ud800-\udfff]")
_BAD_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_PLAIN_NAME = re.compile(r"[a-z_]{1,40}")
_TRANSPORT_OPTIONS = frozenset({"visibility_timeout", "fanout_prefix", "fanout_patterns", "queue_order_strategy"})

Host = tuple[str, int | None]


class Parts(NamedTuple):
    """A URL in its parts as they are written, not decoded."""

    scheme: str
    userinfo: str | None
    hosts: str
    path: str
    query: str

    @property
    def username(self) -> str | None:
        return unquote(self.userinfo.partition(":")[0]) or None if self.userinfo is not None else None

    @property
    def password(self) -> str | None:
        return unquote(self.userinfo.partition(":")[2]) or None if self.userinfo is not None else None

    @property
    def text(self) -> str:
        login = f"{self.userinfo}@" if self.userinfo is not None else ""
        return f"{self.scheme}://{login}{self.hosts}{self.path}{'?' if self.query else ''}{self.query}"

    @property
    def shown(self) -> str:
        """The URL without its password and without the values of secret options."""
        pairs = [pair.partition("=") for pair in self.query.split("&") if pair]
        query = "&".join(f"{name}{sign}{HIDDEN if is_secret(unquote(name)) else value}" for name, sign, value in pairs)
        return self._replace(userinfo=self._login_shown, query=query).text

    @property
    def _login_shown(self) -> str | None:
        if self.userinfo is None:
            return None
        user, sign, _ = self.userinfo.partition(":")
        return f"{user}:{HIDDEN}" if sign else HIDDEN  # a user alone may be a password in the wrong place


def scheme_of(text: str) -> str:
    """The scheme in lower case; empty if there is none."""
    scheme, sign, _ = text.partition("://")
    return scheme.lower() if sign and _SCHEME.fullmatch(scheme) else ""


KOMBU_SCHEMES = (
    *("azureservicebus", "azurestoragequeues", "confluentkafka", "consul", "etcd", "filesystem", "gcpubsub", "kafka"),
    *("librabbitmq", "memory", "mongodb", "pgmq", "pyro", "qpid", "slmq", "sqla", "sqlalchemy", "sqs", "zookeeper"),
)
"""Of brokers that only kombu knows. A host may be missing in their URLs, as in ``sqs://``."""


def is_host(text: str) -> bool:
    """True for the name or address of a host; an IPv6 address with or without brackets."""
    return bool(_HOST.fullmatch(text) or _HOST.fullmatch(f"[{text}]"))


def wrong_url(scheme: str, reason: str) -> WrongUrl:
    """The error for a URL of that scheme."""
    return WrongUrl(f"{scheme}://…" if scheme else "a URL", reason)


def check_kombu(text: str, own: tuple[str, ...]) -> None:
    """Raise :class:`WrongUrl` for a URL that kombu cannot take; ``own`` are the schemes that beatd reads itself."""
    scheme = scheme_of(text)
    if not scheme:
        raise wrong_url("", "expected SCHEME://HOST")
    known = sorted((*own, *KOMBU_SCHEMES))
    if (name := scheme.partition("+")[0]) not in known:
        near = difflib.get_close_matches(name, known, 1)
        hint = f"did you mean {near[0]}://?" if near else f"expected one of {', '.join(known)}"
        raise wrong_url(scheme, f"there is no such transport; {hint}")
    if "global_keyprefix=" in text:
        raise wrong_url(scheme, "its option global_keyprefix is for a Redis that beatd reads without kombu")


def split(text: str) -> Parts:
    """Split a URL. Raises :class:`WrongUrl` for one that can be read in more than one way."""
    scheme = scheme_of(text)
    if not scheme:
        raise wrong_url("", "expected SCHEME://HOST")
    rest = text.partition("://")[2]
    if len(text) > _LONGEST:
        raise wrong_url(scheme, f"it has more than {_LONGEST} characters")
    if _BAD.search(rest):
        raise wrong_url(scheme, f"it has a space or a control character in it: {ENCODE}")
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    tail = rest[len(authority) :]
    if "@" in tail or "#" in tail or authority.count("@") > 1 or _BAD_PERCENT.search(rest):
        raise wrong_url(
            scheme, f"it has a character that has a meaning in URLs, such as / ? # @ %, in its password: {ENCODE}"
        )
    userinfo, sign, hosts = authority.rpartition("@")
    if "[" in userinfo or "]" in userinfo:
        raise wrong_url(scheme, f"it has a bracket in its password: {ENCODE}")
    path, _, query = tail.partition("?")
    return Parts(scheme, userinfo if sign else None, hosts, path, query)


def host_and_port(scheme: str, text: str) -> Host:
    """Read ``host:port``; either may be missing."""
    host, sign, port = text.rpartition(":") if not text.endswith("]") else (text, "", "")
    if not sign:
        host, port = text, ""
    if host and not _HOST.fullmatch(host):
        raise wrong_url(scheme, f"its host cannot be read; if that is a part of a password: {ENCODE}")
    if sign and (not _PORT.fullmatch(port) or not 1 <= int(port) <= 65535):
        raise wrong_url(scheme, f"its port is not a number from 1 to 65535; if that is a part of a password: {ENCODE}")
    return unquote(host).strip("[]"), int(port) if port else None


def read_options(scheme: str, query: str, known: Mapping[str, Any]) -> dict[str, Any]:
    """The options in a query, with their types."""
    options: dict[str, Any] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in known:
            raise wrong_url(scheme, _unknown_option(name, known))
        if name in options:
            raise wrong_url(scheme, f"its option {name} is there twice")
        try:
            options[name] = option_value(known[name], value)
        except WrongOption as error:
            raise wrong_url(scheme, f"its option {name} {error}") from None
    return options


def _unknown_option(name: str, known: Mapping[str, Any]) -> str:
    """The reason; a name that does not look like an option may be a part of a password and is not shown."""
    option = f"an option {name!r}" if _PLAIN_NAME.fullmatch(name) else "an option"
    if name in _TRANSPORT_OPTIONS:
        return f"it has {option}: that is one of Celery's broker_transport_options, and none of a URL"
    near = difflib.get_close_matches(name, known, 1)
    hint = f"did you mean {near[0]!r}?" if near else f"use one of: {', '.join(sorted(known))}"
    return f"it has {option} that does not exist; {hint}"
