"""Readers of single values: the values that a setting may have, and the words for those that it may not.

A reader takes the raw value and the time zone that naive times are read in, and returns what the struct holds. It
raises :class:`InvalidValue` (or ScheduleError, from the readers in :mod:`beatd.schedules`) with the reason.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, date, datetime, time
from typing import Any

from beatd import urls
from beatd.config import schema_types as said
from beatd.config.environment import Substituted, plain
from beatd.config.errors import near
from beatd.config.schema_types import accepts, either, matching, or_variable
from beatd.config.toml_lines import KeyPath
from beatd.exceptions import WrongUrl
from beatd.schedules import duration_ms, zone
from beatd.schedules.literals import or_list, quoted
from beatd.schedules.literals import shown as literal_shown
from beatd.timestamps import in_range, to_ms
from beatd.urls import SENTINEL


def size_text(size: int) -> str:
    """Bytes, rounded as people say them."""
    for unit, factor in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if size >= factor:
            return f"{size / factor:.1f}".removesuffix(".0") + f" {unit}"
    return f"{size} B"


Reader = Callable[[Any, str], Any]

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_APP = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*(:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*)?")
_WORD = r"[A-Za-z_][\w\u0080-\uffff]*"
_APP_PATTERN = rf"^{_WORD}(?:\.{_WORD})*(?::{_WORD}(?:\.{_WORD})*)?$"
_SIZE = re.compile(r"^([0-9]{1,12})\s*((?:[kKmMgG]i?)?[bB])?$")
_BYTES = {"b": 1, "kb": 10**3, "kib": 1 << 10, "mb": 10**6, "mib": 1 << 20, "gb": 10**9, "gib": 1 << 30}
_INSTANT = re.compile(r"\s*\d{4}-\d\d-\d\d")


MOST = 2**53 - 1
"""The largest whole number that JSON, Lua and Python all hold exactly."""


class InvalidValue(ValueError):
    """A value that cannot be used; the text says why and what would be right, and never what a variable stands for.

    ``inside`` are the keys from the value to the part of it that is meant.
    """

    inside: KeyPath = ()


def shown(value: object) -> str:
    """A value as messages show it: as TOML has it, short, and with variables unresolved."""
    return quoted(value.written) if isinstance(value, Substituted) else literal_shown(value)


@accepts(said.TEXT)
def text(value: Any, _zone: str = "") -> str:
    """Text of at least one character, none of them a control character."""
    if not isinstance(value, str):
        raise InvalidValue(f"expected a string, got {shown(value)}")
    if not value.strip():
        raise InvalidValue("expected a non-empty string")
    if _CONTROL.search(value):
        raise InvalidValue(f"{shown(value)} contains a control character")
    return str(value)


@accepts(or_variable({"type": "boolean"}))
def flag(value: Any, _zone: str = "") -> bool:
    """true or false; from a variable also as text."""
    if isinstance(value, Substituted) and value.lower() in {"true", "false"}:
        return value.lower() == "true"
    if not isinstance(value, bool):
        raise InvalidValue(f"expected true or false, got {shown(value)}")
    return value


def whole(least: int, most: int = MOST) -> Reader:
    """A whole number within bounds; from a variable also as text."""
    bounds = f"from {least} to {most}" if most < MOST else f"of at least {least}"

    @accepts(or_variable(said.number(least, most, "integer")))
    def reader(value: Any, _zone: str = "") -> int:
        number = int(value) if isinstance(value, Substituted) and re.fullmatch(r"-?[0-9]{1,18}", value) else value
        if isinstance(number, bool) or not isinstance(number, int):
            raise InvalidValue(f"expected a whole number {bounds}, got {shown(value)}")
        if number > MOST:
            raise InvalidValue(f"{shown(value)} is too large: expected at most {min(most, MOST)}")
        if not least <= number <= most:
            raise InvalidValue(f"expected a whole number {bounds}, got {shown(value)}")
        return number

    return reader


def choice(*known: str) -> Reader:
    """One of some words."""
    names = or_list([quoted(word) for word in known])

    @accepts(or_variable({"enum": list(known)}))
    def reader(value: Any, _zone: str = "") -> str:
        if not isinstance(value, str) or value not in known:
            hint = near(value, known) if isinstance(value, str) and not isinstance(value, Substituted) else ""
            raise InvalidValue(f"expected {names}, got {shown(value)}{hint}")
        return str(value)

    return reader


def duration(least_ms: int = 0) -> Reader:
    """A length of time in milliseconds: from seconds, ``"1h30m"``, ``"PT30S"`` or a timedelta."""

    @accepts(said.duration(least_ms))
    def reader(value: Any, _zone: str = "") -> int:
        ms = duration_ms(plain(value))
        if ms < least_ms:
            raise InvalidValue(f"expected a duration of at least {least_ms} ms, got {shown(value)}")
        return ms

    return reader


_BOUND = duration(1_000)


@accepts(either({"enum": ["never"]}, *said.duration(1_000)["anyOf"]))
def duration_or_never(value: Any, _zone: str = "") -> int:
    """A length of time in milliseconds, at least a second; 0 for ``"never"``."""
    if plain(value) == "never":
        return 0
    if isinstance(value, str) and value.strip().isalpha():
        raise InvalidValue(f'expected seconds, a duration such as "10m", or "never", got {shown(value)}')
    return int(_BOUND(value, _zone))


def size(least: int, most: int) -> Reader:
    """A number of bytes: ``65536``, ``"64KiB"``, ``"1MB"``."""

    @accepts(or_variable(either(said.number(least, most, "integer"), matching(_SIZE.pattern))))
    def reader(value: Any, _zone: str = "") -> int:
        written = value if isinstance(value, str) else shown(value)
        found = _SIZE.fullmatch(written) if isinstance(value, str | int) and not isinstance(value, bool) else None
        if found is None:
            raise InvalidValue(f'expected a number of bytes or a size such as "64KiB" or "1MB", got {shown(value)}')
        number = int(found[1]) * _BYTES[(found[2] or "b").lower()]
        if not least <= number <= most:
            raise InvalidValue(f"expected a size from {size_text(least)} to {size_text(most)}, got {shown(value)}")
        return number

    return reader


@accepts(said.duration(1))
def seconds(value: Any, timezone: str = "") -> float:
    """A length of time in seconds, longer than nothing."""
    return float(duration(1)(value, timezone) / 1000)


@accepts(said.MOMENT)
def moment(value: Any, timezone: str) -> datetime:
    """An instant, aware and in UTC. A naive time is one of ``timezone``; a date is its midnight."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value.strip())
        except ValueError:
            raise InvalidValue(
                f'expected a time such as 2026-12-31T23:59:00 or "2026-12-31", got {shown(value)}'
            ) from None
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime.combine(value, time())
    if not isinstance(value, datetime):
        raise InvalidValue(f"expected a time such as 2026-12-31T23:59:00, got {shown(value)}")
    if value.tzinfo is None:
        value = value.replace(tzinfo=zone(timezone).info)
    try:
        instant: datetime = value.astimezone(UTC)
    except OverflowError:
        instant = datetime.min.replace(tzinfo=UTC)
    if not in_range(to_ms(instant)):
        raise InvalidValue(f"{shown(value)} is out of range: expected a time in the years 1970 to 9998 (UTC)")
    return instant


@accepts(either({"enum": ["auto", "never"]}, *said.duration(1)["anyOf"], said.INSTANT))
def expires(value: Any, timezone: str) -> Any:
    """``"auto"``, ``"never"``, a length of time in milliseconds, or an instant."""
    if isinstance(value, str):
        if value in {"auto", "never"}:
            return "auto" if value == "auto" else None
        if _INSTANT.match(value):
            return moment(value, timezone)
        if value.strip().isalpha():
            raise InvalidValue(
                f'expected seconds, a duration such as "2h", a time, "auto" or "never", got {shown(value)}'
            )
    if isinstance(value, date):
        return moment(value, timezone)
    return duration(1)(value, timezone)


@accepts(or_variable(matching(r"^(?!posix/|right/)[A-Za-z][A-Za-z0-9_+-]*(?:/[A-Za-z0-9_+-]+)*$")))
def timezone(value: Any, _zone: str = "") -> str:
    """The IANA name of a time zone; never the host's own."""
    name = text(value)
    if name.casefold() in {"local", "localtime", "posixrules"} or name.startswith(("posix/", "right/", "/")):
        raise InvalidValue(
            f'expected an IANA name such as "Europe/Berlin", got {shown(value)}; the host\'s zone is never used'
        )
    zone(name)
    return name


@accepts(or_variable(matching(_APP_PATTERN)))
def app(value: Any, _zone: str = "") -> str:
    """``MODULE`` or ``MODULE:APP``."""
    name = text(value)
    if not _APP.fullmatch(name):
        raise InvalidValue(f'expected MODULE or MODULE:APP such as "proj.tasks:app", got {shown(value)}')
    return name


def url(*schemes: str, also: str = "") -> Reader:
    """A URL with one of ``schemes`` (any, if none is given). What it says is never shown: it may hold a password."""

    one = "|".join(schemes) or r"[A-Za-z][A-Za-z0-9+.\-]*"
    place = rf"(?:{one})://[\s\S]+"
    if SENTINEL.removesuffix("://") in schemes:
        place = rf"(?!{SENTINEL}[^/]*/*(?:\d*(?:/|\?|$))){place}"

    @accepts(or_variable(matching(rf"^(?:{also}|{place})$" if also else f"^{place}$")))
    def reader(value: Any, _zone: str = "") -> str:
        address = secret(value)
        if also and address == also:
            return address
        scheme = urls.scheme_of(address)
        if not scheme or not address.partition("://")[2]:
            raise InvalidValue("not a URL: expected " + _forms(schemes, also))
        if schemes and scheme not in schemes:
            shown = "" if isinstance(value, Substituted) else f", got {quoted(scheme + '://…')}"
            raise InvalidValue("expected " + _forms(schemes, also) + shown)
        try:
            urls.RedisUrl.parse(address) if schemes else urls.check_broker(address)
        except WrongUrl as error:
            raise InvalidValue(f"{error.shown}: {error.reason}") from None
        return address

    return reader


@accepts(said.TEXT)
def secret(value: Any, _zone: str = "") -> str:
    """Text that is never shown, whatever is wrong with it."""
    if not isinstance(value, str):
        raise InvalidValue(f"expected a string, got a {type(value).__name__}")
    if not value.strip():
        raise InvalidValue("expected a non-empty string")
    if _CONTROL.search(value):
        raise InvalidValue("it contains a control character")
    return str(value)


@accepts(said.TEXT)
def host(value: Any, _zone: str = "") -> str:
    """The name or address of a server."""
    name = text(value)
    if not urls.is_host(name):
        raise InvalidValue(f"expected a host name or an IP address, got {shown(value)}")
    return name


def _forms(schemes: tuple[str, ...], also: str) -> str:
    forms = or_list([f"{scheme}://" for scheme in schemes]) if schemes else "SCHEME://HOST"
    return f"{quoted(also)}, {forms}" if also else forms
