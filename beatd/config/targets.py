"""``[notify.NAME]``: the targets of notifications."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from beatd.config import notifications
from beatd.config.errors import ErrorReport, near
from beatd.config.fields import Field, Fields, read_fields, refuse_unknown
from beatd.config.notifications import NAME_PATTERN
from beatd.config.schema_types import TEXT, JsonSchema
from beatd.config.secret_file import FILE, read_secrets
from beatd.config.toml import Substituted
from beatd.config.values import duration, shown, whole
from beatd.model import NotifyTarget
from beatd.schedules.literals import or_list, quoted

NOTIFY = "notify"
SECRETS = ("url", "webhook")
"""Settings that may be kept in a file of their own."""
TARGET: Fields = {
    "url": Field(
        "url", notifications.apprise_url, "Where to, for apprise.", "mailto://${MAIL_LOGIN:-login}@example.com"
    ),
    "urls": Field(
        "urls", notifications.apprise_urls, "The same, several.", ["ntfy://example.com/ops", "json://example.com/hook"]
    ),
    "webhook": Field(
        "webhook",
        notifications.web_url,
        "A URL that gets the message as JSON, which Slack takes.",
        "https://hooks.slack.com/services/${SLACK_KEY:-key}",
    ),
    "headers": Field(
        "headers", notifications.headers, "Headers for webhook.", {"Authorization": "Bearer ${HOOK_TOKEN:-token}"}
    ),
    "command": Field(
        "command", notifications.command, "A program that gets the same JSON on its standard input.", ["mail-it", "ops"]
    ),
    "on": Field("on", notifications.alert_kinds, "The kinds of news that are told.", ["failure", "recovery"]),
    "match": Field("match", notifications.patterns, "Entries: patterns as in a shell.", "billing-*"),
    "tags": Field("tags", notifications.tags, "Entries with one of these tags only.", ["billing"]),
    "after": Field("after", whole(1, 1_000_000), "So many failures in a row before an entry is told as failing.", 2),
    "repeat": Field("repeat_ms", duration(60_000), "Tell again what lasts, so often.", "24h"),
    "interval": Field("interval_ms", duration(), "The shortest time between two messages.", "5m"),
    "timeout": Field("timeout_ms", duration(100), "The time for one attempt.", "5s"),
}
_WAYS = ("url", "urls", "webhook", "command")


def read_targets(raw: Any, folder: Path, report: ErrorReport) -> tuple[NotifyTarget, ...]:
    """The targets of the main file; what is faulty is reported and left out."""
    if not isinstance(raw, Mapping):
        report.add((NOTIFY,), f"expected tables such as [notify.ops], got {shown(raw)}")
        return ()
    read = (_target(name, table, folder, report) for name, table in raw.items())
    return tuple(target for target in read if target is not None)


def _target(name: str, raw: Any, folder: Path, report: ErrorReport) -> NotifyTarget | None:
    path = (NOTIFY, name)
    if not notifications.is_target_name(name):
        report.add(
            path, f"{quoted(name)} cannot be the name of a target: expected letters, digits, - and _, 50 at most"
        )
        return None
    if not isinstance(raw, Mapping):
        report.add(path, f'expected a table such as {{ webhook = "https://…" }}, got {shown(raw)}')
        return None
    before = len(list(report))
    refuse_unknown(raw, {**TARGET, **dict.fromkeys(map(FILE.format, SECRETS))}, report, lambda key: (*path, key))
    secrets = read_secrets(path, SECRETS, raw, folder, report)
    read = read_fields(
        {**raw, **secrets}, TARGET, "UTC", report, lambda key: (*path, FILE.format(key) if key in secrets else key)
    )
    ways = [way for way in _WAYS if way in raw or FILE.format(way) in raw]
    if len(ways) != 1:
        got = f", got {' and '.join(ways)}" if ways else ""
        report.add(path, f"expected one of {or_list(list(_WAYS))}{got}")
    elif ways[0] in ("url", "urls") and find_spec("apprise") is None:
        report.add((*path, ways[0]), "needs apprise: pip install 'beatd[notify]'; or use webhook or command")
    if "headers" in raw and ways != ["webhook"]:
        report.add((*path, "headers"), "allowed only beside webhook")
    if len(list(report)) > before:
        return None
    if "url" in read:
        read["urls"] = (read.pop("url"),)
    return NotifyTarget(name=name, **read)


def unknown_target(named: Iterable[str], names: Iterable[str]) -> str:
    """Return the error of an entry that names a target which does not exist; empty if there is none."""
    known = list(names)
    unknown = next((name for name in named if name not in known), None)
    if unknown is None:
        return ""
    is_secret = isinstance(unknown, Substituted)
    table = "[notify.NAME]" if is_secret else f"[notify.{unknown}]"
    said = or_list([quoted(name) for name in known]) if known else f"a table {table} in the main file"
    hint = "" if is_secret else near(unknown, known)
    return f"there is no target {shown(unknown)}{hint or f': expected {said}'}"


def notify_schema(properties: JsonSchema) -> JsonSchema:
    """The schema of ``[notify]``, from that of the settings of a target."""
    files = {FILE.format(key): {"allOf": [TEXT], "description": f"A file that holds the {key}."} for key in SECRETS}
    ways = [*_WAYS, *files]
    return {
        "type": "object",
        "description": "The targets of notifications, each in a table of its own: [notify.NAME].",
        "examples": [{"ops": {"command": ["mail-it", "ops"]}}],
        "propertyNames": {"pattern": NAME_PATTERN},
        "additionalProperties": {
            "type": "object",
            "additionalProperties": False,
            "properties": {**properties, **files},
            "oneOf": [{"required": [way]} for way in ways],
        },
    }
