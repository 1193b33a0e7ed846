"""Readers of what a connection needs: URLs, hosts, secrets, and the name of an app."""

from __future__ import annotations

import re
from typing import Any

from beatd import urls
from beatd.config import schema_types
from beatd.config.schema_types import accepts, matching, or_variable
from beatd.config.toml import Substituted
from beatd.config.values import CONTROL, InvalidValue, Reader, shown, text
from beatd.exceptions import WrongUrl
from beatd.schedules.literals import or_list, quoted
from beatd.url_parts import KOMBU_SCHEMES
from beatd.urls import SENTINEL

_APP = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*(:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*)?")
_WORD = r"[A-Za-z_][\w\u0080-\uffff]*"
_APP_PATTERN = rf"^{_WORD}(?:\.{_WORD})*(?::{_WORD}(?:\.{_WORD})*)?$"


@accepts(schema_types.TEXT)
def secret(value: Any, _zone: str = "") -> str:
    """Text that is never shown, whatever is wrong with it."""
    if not isinstance(value, str):
        raise InvalidValue(f"expected a string, got a {type(value).__name__}")
    if not value.strip():
        raise InvalidValue("expected a non-empty string")
    if CONTROL.search(value):
        raise InvalidValue("it contains a control character")
    return str(value)


@accepts(or_variable(matching(_APP_PATTERN)))
def app(value: Any, _zone: str = "") -> str:
    """``MODULE`` or ``MODULE:APP``."""
    name = text(value)
    if not _APP.fullmatch(name):
        raise InvalidValue(f'expected MODULE or MODULE:APP such as "proj.tasks:app", got {shown(value)}')
    return name


_BROKERS = "|".join(map(re.escape, (*urls.REDIS_SCHEMES, *urls.AMQP_SCHEMES)))
_BROKERS += rf"|(?:{'|'.join(each for each in KOMBU_SCHEMES if each != 'memory')})(?:\+[A-Za-z0-9+.\-]*)?"


def url(*schemes: str, also: str = "") -> Reader:
    """A URL with one of ``schemes`` (any, if none is given). What it says is never shown: it may hold a password."""

    one = "|".join(map(re.escape, schemes)) or _BROKERS
    place = rf"(?:{one})://[\s\S]" + ("+" if schemes else "*")  # sqs:// has no host
    if SENTINEL.removesuffix("://") in schemes:
        place = rf"(?!{SENTINEL}[^/]*/*(?:\d*(?:/|\?|$))){place}"

    @accepts(or_variable(matching(rf"^(?:{also}|{place})$" if also else f"^{place}$")))
    def reader(value: Any, _zone: str = "") -> str:
        address = secret(value)
        if also and address == also:
            return address
        scheme = urls.scheme_of(address)
        if not scheme or (schemes and not address.partition("://")[2]):
            raise InvalidValue("not a URL: expected " + _forms(schemes, also))
        if scheme == "memory" and not schemes:
            raise InvalidValue("memory:// is within one process: no worker gets its messages; expected another broker")
        if schemes and scheme not in schemes:
            shown = "" if isinstance(value, Substituted) else f", got {quoted(scheme + '://…')}"
            raise InvalidValue("expected " + _forms(schemes, also) + shown)
        try:
            urls.RedisUrl.parse(address) if schemes else urls.check_broker(address)
        except WrongUrl as error:
            raise InvalidValue(f"{error.shown}: {error.reason}") from None
        return address

    return reader


@accepts(schema_types.TEXT)
def host(value: Any, _zone: str = "") -> str:
    """The name or address of a server."""
    name = text(value)
    if not urls.is_host(name):
        raise InvalidValue(f"expected a host name or an IP address, got {shown(value)}")
    return name


def _forms(schemes: tuple[str, ...], also: str) -> str:
    forms = or_list([f"{scheme}://" for scheme in schemes]) if schemes else "SCHEME://HOST"
    return f"{quoted(also)}, {forms}" if also else forms
