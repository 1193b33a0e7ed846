"""Everything in ``beat.toml`` but the schedule: sections, paths, and what must fit together."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path as FilePath
from typing import Any

import msgspec
from msgspec import UNSET

from beatd.config import connection_values as connection
from beatd.config import values
from beatd.config.errors import ErrorReport
from beatd.config.fields import SECTIONS, Field, Fields, as_written, read_fields, read_value, refuse_unknown
from beatd.config.schema_types import TEXT, accepts, list_of
from beatd.config.secret_file import FILE, named_files, read_secrets
from beatd.config.shared_blackouts import SECTION
from beatd.config.targets import NOTIFY, read_targets
from beatd.config.targets import SECRETS as TARGET_SECRETS
from beatd.config.values import InvalidValue, shown
from beatd.exceptions import WrongUrl
from beatd.model import (
    BrokerSettings,
    HistorySettings,
    LeaderSettings,
    LogSettings,
    MetricsSettings,
    RedisSettings,
    ResultSettings,
    Settings,
    WebSettings,
    WorkerOptions,
)
from beatd.schedules import duration_text
from beatd.url_keyprefix import global_keyprefix
from beatd.urls import CLUSTER_BROKER, RedisUrl, check_broker, is_cluster, with_login

STRUCTS: Mapping[str, type[Any]] = {
    "redis": RedisSettings,
    "broker": BrokerSettings,
    "leader": LeaderSettings,
    "log": LogSettings,
    "history": HistorySettings,
    "results": ResultSettings,
    "worker": WorkerOptions,
    "metrics": MetricsSettings,
    "web": WebSettings,
}
TABLES = (*SECTIONS, NOTIFY, SECTION, "defaults", "beat_schedule")
"""What is a table of its own in the file."""

_INCLUDED = dict.fromkeys(("timezone", "defaults", "beat_schedule"))
STATE_DIR = ".beatd"
"""Where the daemon may write when nobody says anything."""

SECRETS = ("url", "password")
"""Settings that may be kept in a file of their own, named by ``<setting>_file``."""

_RENEWALS = 3
"""How often a lease is renewed in its time: with fewer, one lost renewal could end the leadership."""


def read_settings(raw: Mapping[str, Any], file: FilePath, env: Mapping[str, str], report: ErrorReport) -> Settings:
    """The settings of the main file; what is faulty is reported and has its default."""
    refuse_unknown(raw, _TOP, report, lambda key: (key,))
    sections = {name: _section(name, raw.get(name, {}), file.parent, report) for name in SECTIONS}
    app = read_value(connection.app, raw["app"], "", report, ("app",)) if "app" in raw else UNSET
    timezone, include = read_timezone(raw, "UTC", report), _include(raw.get("include", []), report)
    allow_empty, state_dir = _allow_empty(raw, report), _state_dir(raw, file.parent, env, report)
    _check_store(sections["redis"], sections["broker"], raw.get("redis", {}), report)
    _check_replica_wait(sections["redis"], raw.get("redis", {}), report)
    return Settings(
        file=str(file),
        timezone=timezone,
        app=None if app is UNSET else app,
        include=include,
        allow_empty=allow_empty,
        state_dir=state_dir,
        **{
            **sections,
            "leader": _with_renewals(sections["leader"], raw.get("leader", {}), report),
            "web": _with_paths(sections["web"], file.parent, report),
        },
        notify=read_targets(raw.get(NOTIFY, {}), file.parent, report),
    )


def refuse_settings(raw: Mapping[str, Any], main: str, report: ErrorReport) -> None:
    """An included file has entries, and what holds for them; the daemon's settings are those of the main file."""
    for key in raw:
        if key == "include":
            report.add((key,), f"an included file cannot include others; list them all in {main}")
        elif key in _TOP and key not in _INCLUDED:
            report.add(
                (key,), f"allowed only in {main}; an included file may have beat_schedule, defaults and timezone"
            )
    refuse_unknown(raw, _TOP, report, lambda key: (key,))


def read_timezone(raw: Mapping[str, Any], default: str, report: ErrorReport) -> str:
    """The time zone of a file."""
    if "timezone" not in raw:
        return default
    read = read_value(values.timezone, raw["timezone"], "", report, ("timezone",))
    return default if read is UNSET else str(read)


def _section(name: str, raw: Any, folder: FilePath, report: ErrorReport) -> Any:
    fields = SECTIONS[name]
    if not isinstance(raw, Mapping):
        report.add((name,), f"expected a table, [{name}], got {shown(raw)}")
        return STRUCTS[name]()
    in_files = [key for key in SECRETS if key in fields]
    refuse_unknown(raw, {**fields, **dict.fromkeys(map(FILE.format, in_files))}, report, lambda key: (name, key))
    secrets = read_secrets((name,), in_files, raw, folder, report)
    read = read_fields(
        {**raw, **secrets}, fields, "UTC", report, lambda key: (name, FILE.format(key) if key in secrets else key)
    )
    return STRUCTS[name](**_whole_url(name, read, raw, report))


def _whole_url(section: str, read: dict[str, Any], raw: Mapping[str, Any], report: ErrorReport) -> dict[str, Any]:
    """The settings, with what stands beside the URL put into it."""
    beside = {key: read.pop(key) for key in BESIDE_URL if key in read}
    if not beside:
        return read
    path = (section, next(key for key in raw if key.removesuffix("_file") in beside))
    if any(key in raw for key in ("url", FILE.format("url"))) and "url" not in read:
        return read  # it is faulty, and that was reported
    url = read.get("url", "redis://" if section == "redis" else None)
    if url in (None, "embedded"):
        report.add(
            path,
            "url is missing: expected it beside this setting" if url is None else 'not allowed with url = "embedded"',
        )
        return read
    try:
        whole = with_login(url, **beside)
        (RedisUrl.parse if section == "redis" else check_broker)(whole)
    except WrongUrl as error:
        report.add(path, error.reason)
        return read
    return {**read, "url": whole}


BESIDE_URL = ("host", "port", "username", "password", "password_command")
"""Settings that say a part of the URL."""


def secret_files(raw: Mapping[str, Any], folder: FilePath) -> tuple[str, ...]:
    """The files, with absolute paths, that hold settings which are secrets; of any configuration."""
    targets = raw.get(NOTIFY)
    named = named_files((raw.get(section) for section in SECTIONS), SECRETS)
    of_targets = named_files(targets.values() if isinstance(targets, Mapping) else (), TARGET_SECRETS)
    return tuple(str(folder / path) for path in (*named, *of_targets))


def _with_renewals(leader: LeaderSettings, raw: Any, report: ErrorReport) -> LeaderSettings:
    """Return the settings with a time between renewals, by default a third of the ttl; report one that is too long."""
    if not isinstance(raw, Mapping) or "renew" not in raw:
        return msgspec.structs.replace(leader, renew_ms=max(1, leader.ttl_ms // _RENEWALS))
    if leader.ttl_ms < _RENEWALS * leader.renew_ms:
        renew, least = as_written(raw, "renew", "renew"), duration_text(_RENEWALS * leader.renew_ms)
        wanted = f"{least} ({_RENEWALS} times renew)" if renew == "renew" else f"{_RENEWALS} times {renew}"
        ttl = as_written(raw, "ttl", duration_text(leader.ttl_ms))
        message = f"expected a ttl of at least {wanted}, got {ttl}"
        report.add(("leader", "ttl") if "ttl" in raw else ("leader", "renew"), message)
    return leader


def _check_store(redis: RedisSettings, broker: BrokerSettings, raw: Any, report: ErrorReport) -> None:
    """Report a cluster without another broker, and a key prefix in the URL of the state store."""
    if global_keyprefix(redis.url):
        key = next((key for key in ("url", FILE.format("url")) if key in raw), "url")
        report.add(("redis", key), _PREFIX_ELSEWHERE)
    if is_cluster(redis.url) and broker.url is None and not report:
        key = next((key for key in ("url", FILE.format("url")) if key in raw), "url")
        report.add(("redis", key), f"{CLUSTER_BROKER}: write [broker] url")


_PREFIX_ELSEWHERE = (
    "global_keyprefix is not for the state store, whose keys begin with `prefix`: write it into [broker] url, "
    "which may be the same server"
)


def _check_replica_wait(redis: RedisSettings, raw: Any, report: ErrorReport) -> None:
    """Report a wait for replicas that is longer than the time-out of an answer."""
    if redis.wait_replicas and redis.wait_timeout_ms >= redis.timeout_ms:
        wait = as_written(raw, "wait_timeout", duration_text(redis.wait_timeout_ms))
        timeout = as_written(raw, "timeout", duration_text(redis.timeout_ms))
        key = next((key for key in ("wait_timeout", "timeout") if key in raw), "wait_replicas")
        report.add(("redis", key), f"expected a wait_timeout shorter than timeout ({timeout}), got {wait}")


def _with_paths(web: WebSettings, folder: FilePath, report: ErrorReport) -> WebSettings:
    """Return the settings with absolute paths; report a setting that needs another one beside it."""
    if bool(web.tls_cert) != bool(web.tls_key):
        report.add(("web", "tls_cert" if web.tls_cert else "tls_key"), "tls_cert and tls_key go together")
    if bool(web.user_header) != bool(web.trusted_proxies):
        key = "user_header" if web.user_header else "trusted_proxies"
        report.add(("web", key), "user_header and trusted_proxies go together")
    names = ("tokens_file", "tls_cert", "tls_key")
    paths = {name: str(folder / path) for name in names if (path := getattr(web, name))}
    return msgspec.structs.replace(web, **paths)


def _include(raw: Any, report: ErrorReport) -> tuple[str, ...]:
    patterns = read_value(_patterns, raw, "", report, ("include",))
    if patterns is UNSET:
        return ()
    read = (read_value(values.text, each, "", report, ("include", place)) for place, each in enumerate(patterns))
    return tuple(pattern for pattern in read if pattern is not UNSET)


@accepts(list_of(TEXT))
def _patterns(raw: Any, _zone: str) -> list[Any]:
    if not isinstance(raw, list):
        raise InvalidValue(f'expected a list of paths such as ["beat.d/*.toml"], got {shown(raw)}')
    return raw


def _allow_empty(raw: Mapping[str, Any], report: ErrorReport) -> bool:
    read = read_value(values.flag, raw.get("allow_empty", False), "", report, ("allow_empty",))
    return read is True


def _state_dir(raw: Mapping[str, Any], folder: FilePath, env: Mapping[str, str], report: ErrorReport) -> str:
    """The state directory as an absolute path; systemd passes it in ``STATE_DIRECTORY``."""
    given = read_value(_path, raw["state_dir"], "", report, ("state_dir",)) if "state_dir" in raw else UNSET
    if given is UNSET:
        given = env.get("STATE_DIRECTORY", "").partition(":")[0] or STATE_DIR
    return os.path.realpath(folder / given)  # Path.resolve raises where links lead in a circle


@accepts(TEXT)
def _path(raw: Any, _zone: str) -> str:
    path = values.text(raw)
    if not path.startswith("~"):
        return path
    try:
        return str(FilePath(path).expanduser())
    except RuntimeError:
        raise InvalidValue(f"{shown(raw)}: there is no such home directory") from None


TOP: Fields = {
    "timezone": Field(
        "timezone", values.timezone, "The time zone of entries that have none of their own.", "Europe/Berlin"
    ),
    "app": Field(
        "app", connection.app, "MODULE or MODULE:APP: where the tasks and periodic tasks are.", "proj.tasks:app"
    ),
    "include": Field("include", _patterns, "More files with entries; * and ** match as in a shell.", ["beat.d/*.toml"]),
    "allow_empty": Field(
        "allow_empty", values.flag, "A reload may remove the last entries; without it they stay in force.", True
    ),
    "state_dir": Field("state_dir", _path, "Where the daemon may write.", "/var/lib/beatd"),
}
"""The settings that are in no table."""

_TOP = {**TOP, **dict.fromkeys(TABLES)}
