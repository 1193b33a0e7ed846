"""Readers of values about notifications: targets, tags, web addresses, monitors. An error never shows an address."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from beatd.config import connection_values as connection
from beatd.config import values
from beatd.config.errors import near
from beatd.config.schema_types import TEXT, JsonSchema, accepts, either, list_of, matching, or_variable, table
from beatd.config.toml import Substituted, plain
from beatd.config.values import InvalidValue, shown
from beatd.model import ALERT_KINDS, SentryMonitor
from beatd.schedules.literals import or_list, quoted

NAME_PATTERN = r"^[A-Za-z0-9_-]{1,50}$"
TAG_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._:/-]{0,49}$"
_TAG = re.compile(TAG_PATTERN)
_NAME, _SLUG = re.compile(NAME_PATTERN), re.compile(r"^[a-z0-9][a-z0-9_-]{0,49}$")
_WEB = r"^[hH][tT][tT][pP][sS]?://[\s\S]+$"
_ANY = r"^[A-Za-z][A-Za-z0-9+.\-]*://[\s\S]+$"
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")
_MANY = 100
"""Items of a list."""


@accepts(or_variable(matching(_WEB)))
def web_url(value: Any, _zone: str = "") -> str:
    """An http or https URL."""
    url = connection.secret(value)
    try:
        parts = urlsplit(url)
        is_web = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_web = False
    if not is_web or " " in url:
        raise InvalidValue("expected a URL such as https://HOST/PATH (not shown: it may be secret)")
    return url


@accepts(or_variable(matching(_ANY)))
def apprise_url(value: Any, _zone: str = "") -> str:
    """A URL of apprise, such as ``slack://…``. Which ones there are, apprise knows."""
    url = connection.secret(value)
    if not re.fullmatch(_ANY, url):
        raise InvalidValue("expected a URL of apprise such as mailto://… or slack://… (not shown: it may be secret)")
    return url


@accepts(list_of(or_variable(matching(_ANY)), 1))
def apprise_urls(value: Any, _zone: str = "") -> tuple[str, ...]:
    """URLs of apprise."""
    return tuple(apprise_url(url) for url in _list(value, 'expected a list of URLs such as ["mailto://…"]'))


@accepts(list_of(TEXT, 1))
def command(value: Any, _zone: str = "") -> tuple[str, ...]:
    """A program and its arguments."""
    return tuple(values.text(word) for word in _list(value, 'expected a list of words such as ["mail-it", "ops"]'))


@accepts({"type": "object", "additionalProperties": TEXT})
def headers(value: Any, _zone: str = "") -> dict[str, str]:
    """Headers of a request."""
    if not isinstance(value, Mapping):
        raise InvalidValue(f'expected a table such as {{ Authorization = "Bearer …" }}, got {shown(value)}')
    for name in value:
        if not _HEADER.fullmatch(name):
            raise InvalidValue(f"{quoted(name)} cannot be the name of a header")
    return {name: connection.secret(text) for name, text in value.items()}


@accepts(list_of(or_variable({"enum": list(ALERT_KINDS)}), 1))
def alert_kinds(value: Any, _zone: str = "") -> tuple[str, ...]:
    """Kinds of alerts."""
    kinds = _list(value, f"expected a list of {or_list([quoted(kind) for kind in ALERT_KINDS])}")
    for kind in kinds:
        if kind not in ALERT_KINDS:
            hint = near(kind, ALERT_KINDS) if isinstance(kind, str) and not isinstance(kind, Substituted) else ""
            known = or_list([quoted(one) for one in ALERT_KINDS])
            raise InvalidValue(f"expected {known}, got {shown(kind)}{hint}")
    return tuple(dict.fromkeys(map(str, kinds)))


@accepts(either(TEXT, list_of(TEXT, 1)))
def patterns(value: Any, _zone: str = "") -> tuple[str, ...]:
    """Patterns of names of entries, or one."""
    many = [value] if isinstance(value, str) else _list(value, 'expected a pattern such as "billing-*", or a list')
    return tuple(values.text(pattern) for pattern in many)


@accepts(list_of(or_variable(matching(NAME_PATTERN))))
def target_names(value: Any, _zone: str = "") -> tuple[str, ...]:
    """Names of notification targets."""
    if not isinstance(value, list | tuple) or len(value) > _MANY:
        raise InvalidValue(f'expected a list of names of targets such as ["ops"], got {shown(value)}')
    return tuple(dict.fromkeys(values.text(name) for name in value))


@accepts(list_of(or_variable(matching(TAG_PATTERN))))
def tags(value: Any, _zone: str = "") -> tuple[str, ...]:
    """Tags of entries."""
    if not isinstance(value, list | tuple) or len(value) > _MANY:
        raise InvalidValue(f'expected a list of tags such as ["billing"], got {shown(value)}')
    for tag in value:
        if not isinstance(tag, str) or not _TAG.fullmatch(tag):
            raise InvalidValue(f"expected a tag of letters, digits and . _ : / -, 50 at most, got {shown(tag)}")
    return tuple(dict.fromkeys(map(str, value)))


def is_target_name(name: str) -> bool:
    """True if a target may be called so."""
    return _NAME.fullmatch(name) is not None


_ABOUT_MONITOR = {
    "dsn": ("The DSN of the project.", "https://${SENTRY_KEY:-key}@o1.ingest.sentry.io/1"),
    "monitor": ("The slug of the monitor; by default made of the entry's name.", "invoices"),
    "environment": ("The environment; production by default.", "staging"),
}


def _described(name: str, said: JsonSchema) -> JsonSchema:
    about, example = _ABOUT_MONITOR[name]
    return {"allOf": [said], "description": about, "examples": [example]}


@accepts(
    table(
        ("dsn",),
        dsn=_described("dsn", or_variable(matching(_WEB))),
        monitor=_described("monitor", TEXT),
        environment=_described("environment", TEXT),
    )
)
def sentry_monitor(value: Any, _zone: str = "") -> SentryMonitor:
    """A cron monitor of Sentry."""
    if not isinstance(value, Mapping) or "dsn" not in value:
        raise InvalidValue('expected a table such as { dsn = "https://KEY@HOST/PROJECT", monitor = "my-job" }')
    if unknown := [key for key in value if key not in ("dsn", "monitor", "environment")]:
        raise InvalidValue(f"unknown setting {quoted(str(unknown[0]))}; expected dsn, environment or monitor")
    dsn = web_url(value["dsn"])
    parts = urlsplit(dsn)
    if not parts.username or not parts.path.rpartition("/")[2].isdigit():
        raise InvalidValue("dsn: expected https://KEY@HOST/PROJECT as Sentry shows it (not shown: it is secret)")
    monitor = plain(value.get("monitor"))
    if monitor is not None and not (isinstance(monitor, str) and _SLUG.fullmatch(monitor)):
        raise InvalidValue(
            f"monitor: expected a slug of a-z, 0-9, - and _, 50 characters at most, got {shown(value['monitor'])}"
        )
    environment = value.get("environment")
    return SentryMonitor(
        dsn=dsn, monitor=monitor, environment=None if environment is None else values.text(environment)
    )


def _list(value: Any, expected: str) -> list[Any]:
    if not isinstance(value, list | tuple) or not 0 < len(value) <= _MANY:
        raise InvalidValue(
            f"{expected}, got {shown(value) if isinstance(value, list) and not value else 'another value'}"
        )
    return list(value)
