"""The settings by name: which attribute each fills and how it is read. What is not listed here is not a setting."""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Mapping
from ipaddress import ip_network
from typing import Any, NamedTuple

from msgspec import UNSET

from beatd.config import connection_values as connection
from beatd.config import notifications, schema_types, values
from beatd.config.errors import ErrorReport, near
from beatd.config.schema_types import TEXT, accepts, definition, either, list_of, matching, or_variable
from beatd.config.toml import plain, substituted
from beatd.config.toml_lines import KeyPath
from beatd.config.values import InvalidValue, Reader, choice, duration, seconds, shown, whole
from beatd.exceptions import ScheduleError
from beatd.listen_address import PATTERN as LISTEN_PATTERN
from beatd.listen_address import ListenAddress
from beatd.schedules import Blackout, parse_blackout
from beatd.schedules.literals import or_list, quoted


class Field(NamedTuple):
    """One setting: the attribute of the struct that it fills, its reader, what it means, and one that might be set."""

    into: str
    read: Reader
    about: str
    example: Any


Fields = Mapping[str, Field]

STORE_URLS = ("redis", "rediss", "unix", "sentinel", "redis+cluster", "rediss+cluster")
"""Schemes of a state store."""


@accepts(definition("blackout"))
def _blackout(value: Any, timezone: str) -> Blackout:
    return parse_blackout(plain(value), timezone=timezone)


@accepts(schema_types.ONLY_ON)
def _only_on(value: Any, timezone: str) -> Blackout:
    """The days on which it does not run, from those on which it does."""
    return parse_blackout({"only_on": plain(value)}, timezone=timezone)


@accepts(or_variable(matching(LISTEN_PATTERN)))
def _listen(value: Any, _zone: str = "") -> str:
    """An address to listen on, ``HOST:PORT``."""
    text = values.text(value)
    try:
        return str(ListenAddress.parse(text))
    except ValueError as error:
        raise InvalidValue(f"{error}, got {shown(value)}") from None


@accepts(or_variable(matching("^(?:all|none|top:[1-9][0-9]{0,5})$")))
def _metric_entries(value: Any, _zone: str = "") -> str:
    """The entries that have metrics of their own."""
    if not isinstance(value, str) or not re.fullmatch(r"all|none|top:[1-9][0-9]{0,5}", value):
        raise InvalidValue(f'expected "all", "none" or "top:N" such as "top:1000", got {shown(value)}')
    return str(value)


@accepts(list_of(TEXT))
def _networks(value: Any, _zone: str = "") -> tuple[str, ...]:
    """Addresses and networks."""
    if not isinstance(value, list):
        raise InvalidValue(f'expected a list of addresses such as ["10.0.0.5", "10.1.0.0/16"], got {shown(value)}')
    for each in value:
        try:
            ip_network(values.text(each), strict=False)
        except ValueError:
            raise InvalidValue(f"{shown(each)} is neither an address nor a network such as 10.1.0.0/16") from None
    return tuple(map(str, value))


_BOUND = duration(1_000)


@accepts(either({"enum": ["never"]}, *schema_types.duration(1_000)["anyOf"]))
def duration_or_never(value: Any, _zone: str = "") -> int:
    """A length of time in milliseconds, at least a second; 0 for ``"never"``."""
    if plain(value) == "never":
        return 0
    if isinstance(value, str) and value.strip().isalpha():
        raise InvalidValue(f'expected seconds, a duration such as "10m", or "never", got {shown(value)}')
    return int(_BOUND(value, _zone))


OPTIONS: Fields = {
    "queue": Field("queue", values.text, "The queue. Without one: default_queue of [broker].", "reports"),
    "exchange": Field("exchange", values.text, "An exchange; goes together with routing_key.", "events"),
    "routing_key": Field("routing_key", values.text, "Says something only beside an exchange.", "report.daily"),
    "priority": Field("priority", whole(0, 255), "On Redis 0 goes first, in RabbitMQ the highest.", 3),
    "expires": Field(
        "expires",
        values.expires,
        "When the message is not worth running any more: a duration after it left, a moment, auto (when the next run "
        "is due), or never.",
        "2h",
    ),
    "countdown": Field("countdown_ms", duration(), "The worker waits so long before it runs the task.", "10s"),
    "headers": Field(
        "headers", values.headers, "Headers of your own, beside Celery's and beatd's.", {"tenant": "example"}
    ),
    "time_limit": Field("time_limit", seconds, "After so long the worker kills the task.", 300),
    "soft_time_limit": Field("soft_time_limit", seconds, "The task gets SoftTimeLimitExceeded then.", "4m"),
    "ignore_result": Field("ignore_result", values.flag, "No result is stored.", True),
    "keep_result": Field(
        "keep_result", values.flag, "The result is stored as a document as well, for AsyncResult and others.", True
    ),
    "shadow": Field("shadow", values.text, "The name that monitors show instead of the task's.", "reports.weekly[de]"),
    "link": Field(
        "link", values.signatures, "What runs after success, with the result as first argument.", "mail.send"
    ),
    "link_error": Field("link_error", values.signatures, "What runs after a failure.", "ops.alarm"),
    "serializer": Field("serializer", choice("json"), "Without effect: messages are always JSON.", "json"),
}
"""The keywords of ``apply_async``: directly in the entry, or in its ``options`` table as Celery has it."""

POLICIES: Fields = {
    "enabled": Field("enabled", values.flag, "false: it does not run.", False),
    "start": Field("start", values.moment, "No run before this moment.", "2027-01-01T08:00:00"),
    "end": Field("end", values.moment, "No run after this moment.", "2027-06-30"),
    "max_runs": Field("max_runs", whole(1), "So many runs are sent, then no more.", 10),
    "jitter": Field("jitter_ms", duration(), "Each run leaves up to so much later than it is due.", "30s"),
    "blackout": Field(
        "blackout",
        _blackout,
        "When it does not run: times of day, dates, cron windows, holidays, events of an iCalendar file, or names of "
        "shared blackouts.",
        ["22:00-06:00", "2026-12-24/2026-12-26", {"holidays": "DE-BY"}],
    ),
    "only_on": Field(
        "only_on",
        _only_on,
        "It runs on business days only: Monday to Friday, or those of a country.",
        {"business-days": "DE-BY"},
    ),
    "catch_up": Field(
        "catch_up", choice("latest", "all", "none"), "Which of the runs that were missed are made.", "none"
    ),
    "catch_up_window": Field("catch_up_window_ms", duration(), "How far back a missed run may lie.", "12h"),
    "catch_up_max": Field("catch_up_max", whole(1), "With catch_up = all: at most so many, the latest ones.", 10),
    "overlap": Field(
        "overlap",
        choice("allow", "skip", "queue_one"),
        "When the last run is not over: send the next one all the same, leave it out, or hold one back.",
        "skip",
    ),
    "max_runtime": Field("max_runtime_ms", duration(1), "After so long a run counts as over, for overlap.", "20m"),
    "overdue_after": Field(
        "overdue_after_ms",
        duration_or_never,
        "A run that has not started so long after it was due is overdue. Without it: learned from past runs.",
        "10m",
    ),
    "expect_within": Field(
        "expect_within_ms",
        duration_or_never,
        "A run that has not finished so long after it was due takes too long. Without it: learned from past runs.",
        "2h",
    ),
    "max_queue_depth": Field("max_queue_depth", whole(1), "A run is left out while so many messages wait.", 1000),
    "tags": Field("tags", notifications.tags, "Words by which entries are found and told.", ["billing"]),
    "notify": Field("notify", notifications.target_names, "Targets [notify.NAME] that are told; [] for none.", ["ops"]),
    "ping": Field(
        "ping",
        notifications.web_url,
        "A URL that is called when a run starts (/start), succeeds, and fails (/fail).",
        "https://hc-ping.com/${PING_KEY:-key}/invoices",
    ),
    "sentry": Field(
        "sentry",
        notifications.sentry_monitor,
        "A cron monitor of Sentry: dsn; monitor, its slug; environment.",
        {"dsn": "https://${SENTRY_KEY:-key}@o1.ingest.sentry.io/1", "monitor": "invoices"},
    ),
}

CAN_BE_OFF = frozenset({"timezone", "dst"}).union(
    name for name, field in {**OPTIONS, **POLICIES}.items() if field.read is not values.flag
)
"""Settings of an entry for which ``false`` says that they are not set, whatever ``[defaults]`` say."""

_PASSWORD = Field(
    "password", connection.secret, "The password as it is: nothing in it is encoded.", "${PASSWORD:-secret}"
)

SECTIONS: Mapping[str, Fields] = {
    "redis": {
        "url": Field(
            "url",
            connection.url(*STORE_URLS, also="embedded"),
            "Where the state store is: a URL, or embedded for a private server on this host.",
            "redis://:${REDIS_PASSWORD}@redis.example.com:6379/0",
        ),
        "host": Field("host", connection.host, "The host, where url names none.", "redis.example.com"),
        "port": Field("port", whole(1, 65_535), "The port, where url names none.", 6379),
        "username": Field("username", connection.secret, "The user, where url names none.", "beatd"),
        "password": _PASSWORD,
        "password_command": Field(
            "password_command",
            notifications.command,
            "A program that prints the password, and its arguments; it runs for new connections.",
            ["/usr/local/bin/redis-token"],
        ),
        "prefix": Field("prefix", values.text, "All keys begin with it and a colon.", "billing"),
        "timeout": Field("timeout_ms", duration(10), "For connecting and for each answer; at least 10 ms.", "2s"),
        "wait_replicas": Field("wait_replicas", whole(0, 100), "How many replicas confirm each batch of claims.", 1),
        "wait_timeout": Field("wait_timeout_ms", duration(1), "How long they are waited for.", "200ms"),
    },
    "broker": {
        "url": Field(
            "url",
            connection.url(),
            "Where messages go: any URL that kombu takes. Without one: the state store itself.",
            "amqp://guest:${RABBITMQ_PASSWORD:-guest}@localhost//",
        ),
        "host": Field("host", connection.host, "The host, where url names none.", "rabbitmq.example.com"),
        "port": Field("port", whole(1, 65_535), "The port, where url names none.", 5672),
        "username": Field("username", connection.secret, "The user, where url names none.", "beatd"),
        "password": _PASSWORD,
        "default_queue": Field("default_queue", values.text, "The queue of entries that name none.", "cron"),
        "max_message_size": Field(
            "max_message_bytes",
            values.size(4 << 10, 512 << 20),
            "An entry whose messages would be larger is an error.",
            "256KiB",
        ),
    },
    "leader": {
        "ttl": Field("ttl_ms", duration(1), "How long a lease lasts that is not renewed.", "6s"),
        "renew": Field("renew_ms", duration(1), "How often it is renewed; at most a third of ttl.", "2s"),
        "shards": Field("shards", whole(1, 1024), "Into how many parts the schedule is divided.", 4),
    },
    "log": {
        "level": Field("level", choice("debug", "info", "warning", "error"), "What is logged.", "warning"),
        "format": Field("format", choice("text", "json"), "text for people, json for programs.", "json"),
    },
    "results": {
        "url": Field(
            "url",
            connection.url("redis", "rediss", "unix", "sentinel"),
            "Where Celery's workers store results. Without it: the broker, if that is a Redis, and the state store.",
            "redis://redis.example.com:6379/1",
        ),
    },
    "worker": {
        "output": Field(
            "output",
            values.flag,
            "false: the output of scheduled tasks (stdout, stderr, log records) is not kept.",
            False,
        ),
    },
    "history": {
        "keep": Field("keep", whole(0, 1000), "How many of its last runs are kept for each entry; 0: none.", 100),
    },
    "web": {
        "tokens_file": Field(
            "tokens_file", values.text, "Who may act on the page: a line NAME ROLE TOKEN for each.", "web-tokens"
        ),
        "anonymous": Field(
            "anonymous",
            choice("read", "none"),
            "What is allowed without a token. Default: read on the loopback address or without tokens, else none.",
            "none",
        ),
        "user_header": Field(
            "user_header", values.text, "The header in which a trusted proxy names the user.", "X-Remote-User"
        ),
        "trusted_proxies": Field(
            "trusted_proxies", _networks, "Addresses or networks of such proxies.", ["10.0.0.5", "10.1.0.0/16"]
        ),
        "proxy_role": Field(
            "proxy_role", choice("read", "operate"), "The role of users whom a proxy names.", "operate"
        ),
        "tls_cert": Field("tls_cert", values.text, "The certificate, with those that lead to a root: PEM.", "web.crt"),
        "tls_key": Field("tls_key", values.text, "The key of the certificate: PEM.", "web.key"),
    },
    "metrics": {
        "listen": Field(
            "listen", _listen, "HOST:PORT of /metrics, /healthz and /readyz of each process.", "127.0.0.1:9464"
        ),
        "entries": Field(
            "entries",
            _metric_entries,
            "Of how many entries the runs are shown one by one: all, none, or top:N.",
            "top:200",
        ),
    },
}
"""The tables of the file beside ``[defaults]`` and the schedule."""

ABOUT_SECTIONS: Mapping[str, str] = {
    "redis": "The state store: what each entry ran last, and who leads.",
    "broker": "Where messages go. Without it, to queues on the state store.",
    "leader": "How daemons that stand in for each other agree.",
    "log": "What the daemon logs.",
    "results": "The results of Celery's workers, for the outcomes of runs.",
    "worker": "The bundled worker that is started with this file.",
    "history": "What is remembered of past runs.",
    "web": "The status page: who may act, and TLS.",
    "metrics": "Metrics and health of each process.",
}


def is_off(key: str, value: Any) -> bool:
    """True if this value says that the setting is not set, whatever the defaults say."""
    return value is False and key in CAN_BE_OFF


def over_defaults(defaults: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """The own fields over the defaults, without what is off: an own queue replaces their exchange, an own exchange
    their queue."""
    has_queue, has_exchange = (key in own and not is_off(key, own[key]) for key in ("queue", "exchange"))
    replaced = ("queue",) if has_exchange else ("exchange", "routing_key") if has_queue else ()
    merged = {**{key: value for key, value in defaults.items() if key not in replaced}, **own}
    return {key: value for key, value in merged.items() if not is_off(key, value)}


Where = Callable[[str], KeyPath]
"""The path of a key, for messages."""


def read_fields(
    raw: Mapping[str, Any],
    fields: Fields,
    timezone: str,
    report: ErrorReport,
    where: Where,
    *,
    defaults: Container[str] = (),
) -> dict[str, Any]:
    """The attributes that ``raw`` sets, among ``fields``; what cannot be read is reported and left out. An error says
    how one of the ``defaults`` is turned off."""
    read: dict[str, Any] = {}
    for name, value in raw.items():
        if field := fields.get(name):
            hint = _HOW_OFF if name in defaults and name in CAN_BE_OFF else ""
            result = read_value(field.read, value, timezone, report, where(name), hint=hint)
            if result is not UNSET:
                read[field.into] = result
    return read


_HOW_OFF = "; false turns off that of [defaults]"


def read_value(read: Reader, value: Any, timezone: str, report: ErrorReport, path: KeyPath, *, hint: str = "") -> Any:
    """Read ``value``; report an error at ``path``, with the ``hint``, and return UNSET if it cannot be read."""
    try:
        return read(value, timezone)
    except RecursionError:
        report.add(path, "nested too deeply, or contains itself")
    except InvalidValue as error:
        made = substituted(value)
        if made is None or not made.missing:  # what is missing has been reported already
            report.add((*path, *error.inside), str(error) + ("" if error.inside else hint))
    except ScheduleError as error:
        made = substituted(value)
        if made is None:
            report.add(path, str(error) + hint)
        elif made is value and not made.missing:
            report.add(path, f"the value of {quoted(made.written)} is invalid here (not shown: it may be secret)")
        elif not made.missing:
            why = f"why is not shown: it may name the value of {quoted(made.written)}, which may be secret"
            report.add(path, f"invalid; {why}")
    return UNSET


def as_written(raw: Mapping[str, Any], key: str, text: str) -> str:
    """The ``text`` of a setting for an error; of one with a variable what the file has."""
    made = substituted(raw.get(key))
    return text if made is None else quoted(made.written)


def refuse_unknown(raw: Mapping[str, Any], known: Mapping[str, Any], report: ErrorReport, where: Where) -> list[str]:
    """Report each key of ``raw`` that is none of ``known``, and return them."""
    unknown = [name for name in raw if name not in known]
    for name in unknown:
        text = str(name)  # Python's tables may have other keys
        hint = near(text, known) or f"; expected {or_list(sorted(known))}"
        report.add(where(text), f"unknown setting {quoted(text)}{hint}")
    return unknown
