"""Jobs of dkron: the JSON of its API (``GET /v1/jobs``), or of one job. Executors ``shell`` and ``http``."""

from __future__ import annotations

import json
import re
import shlex
from typing import Any

from beatd.exceptions import ConfigError, Fault
from beatd.importers.collected import OVERLAPS, Collected, command, instant, leftovers, robfig_times, without_zone
from beatd.importers.report import FoundSchedule
from beatd.importers.yaml_file import Table, tables_of

_KNOWN = {
    "id", "name", "displayname", "schedule", "timezone", "disabled", "executor", "executor_config", "concurrency",
    "expires_at", "starts_at", "status", "next", "success_count", "error_count", "last_success", "last_error",
    "version", "retries", "parent_job", "ephemeral",
}  # fmt: skip
_SPREAD = re.compile(r"(?<![\w~])~(?![\w~])")
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)?")
_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, None: 1}


def read_dkron(data: bytes, *, shown: str, timezone: str | None = None) -> FoundSchedule:
    """The jobs of a JSON file: a list, one job, or a table with a list under ``jobs``. Raises ConfigError."""
    try:
        document = tables_of(json.loads(data))
    except json.JSONDecodeError as error:
        raise ConfigError([Fault(shown, error.lineno, "", f"is no JSON: {error.msg}", error.colno)]) from None
    except (ValueError, RecursionError) as error:
        raise ConfigError([Fault(shown, None, "", f"is no JSON: {error}")]) from None
    if isinstance(document, Table):
        document = document.get("jobs") if isinstance(document.get("jobs"), list) else [document]
    if not isinstance(document, list):
        raise ConfigError([Fault(shown, None, "", "expected a list of jobs, or one job")])
    collected = Collected(shown)
    for number, job in enumerate(document, 1):
        name = job.text("name") if isinstance(job, Table) else ""
        with collected.reading(name or f"{shown}, job {number}"):
            if not isinstance(job, Table) or not name:
                raise ValueError("is no job of dkron: it has no name")
            _take(collected, job, timezone)
    collected.note_gaps("dkron", timezone)
    return collected.found(timezone)


_CONFIG = {
    "shell": {"command", "shell", "env", "cwd", "timeout"},
    "http": {"url", "method", "body", "headers", "expectCode", "timeout"},
}


def _take(collected: Collected, job: Table, timezone: str | None) -> None:
    name = collected.add(job.text("name"), {**_program(job), **_when(job)})
    fields = collected.entries[name]
    has_times = isinstance(fields["schedule"], str) and not fields["schedule"].startswith("@every")
    if has_times and "timezone" not in fields and timezone is None:
        collected.note(name, "timezone", "is not set: the times are taken as UTC; --timezone names that of the agents")
    if job.text("retries", "0") != "0":
        collected.note(name, "retries", "a failed run is not repeated")
    leftovers(job, _KNOWN, lambda why: collected.note(name, "job", why))
    config, known = job.table("executor_config"), _CONFIG[job.text("executor")]
    leftovers(config, known, lambda why: collected.note(name, "executor_config", why))
    if "authorization" in config.text("headers").lower():
        collected.note(name, "headers", "Authorization is in the file now: write ${NAME} and set that variable")
    ran = [moment for key in ("last_success", "last_error") if (moment := _ran(job.get(key))) is not None]
    collected.ran(name, max(ran, default=None))


def _program(job: Table) -> dict[str, Any]:
    match job.text("executor"):
        case "shell":
            return _shell(job.table("executor_config"))
        case "http":
            return _http(job.table("executor_config"))
        case other:
            raise ValueError(f"the executor {other or '(none)'} has no counterpart")


def _when(job: Table) -> dict[str, Any]:
    fields: dict[str, Any] = {"schedule": _schedule(job)}
    if zone := job.text("timezone") or without_zone(job.text("schedule").strip())[1]:
        fields["timezone"] = zone
    if job.text("disabled") == "true":
        fields["enabled"] = False
    if (overlap := OVERLAPS.get(job.text("concurrency", "allow"), "allow")) != "allow":
        fields["overlap"] = overlap
    for key, ours in (("starts_at", "start"), ("expires_at", "end")):
        if (moment := instant(job.get(key))) is not None and moment.year > 1:
            fields[ours] = moment
    if job.text("ephemeral") == "true":
        fields["max_runs"] = 1
    return fields


def _ran(value: Any) -> Any:
    """The moment of a run: a text, or a table with ``Time`` as newer versions have it."""
    moment = instant(value.get("Time") or value.get("time")) if isinstance(value, Table) else instant(value)
    return moment if moment is not None and moment.tzinfo is not None and moment.year > 1 else None


def _schedule(job: Table) -> Any:
    schedule, _ = without_zone(job.text("schedule").strip())
    if job.text("parent_job"):
        raise ValueError(f"it runs after {job.text('parent_job')}: make them one entry whose task is a chain")
    if schedule.startswith("@at "):
        moment = instant(schedule.removeprefix("@at ").strip())
        if moment is None:
            raise ValueError(f"schedule: {schedule[:60]!r}: expected a moment such as 2027-01-01T12:00:00Z")
        return {"at": moment}
    if schedule in ("@manually", "@reboot", ""):
        raise ValueError(f"schedule: {schedule or 'none'}: it has no time; beatd trigger runs entries by hand")
    if schedule.startswith("@after"):
        raise ValueError("schedule: @after has no counterpart; write it as { at = … }")
    return "* * * * *" if schedule == "@minutely" else _SPREAD.sub("H", robfig_times(schedule))


def _shell(config: Table) -> dict[str, Any]:
    text = config.text("command")
    if not text:
        raise ValueError("executor_config.command is missing")
    if config.text("shell") == "true":
        args = ["/bin/sh", "-c", text]
    else:
        try:
            args = shlex.split(text)
        except ValueError as error:
            raise ValueError(f"executor_config.command: {error}") from None
    env = dict(pair.split("=", 1) for pair in config.text("env").split(",") if "=" in pair)
    return command(args, env=env, cwd=config.text("cwd"), timeout=_duration(config.text("timeout"), "timeout"))


def _http(config: Table) -> dict[str, Any]:
    if not config.text("url"):
        raise ValueError("executor_config.url is missing")
    kwargs: dict[str, Any] = {}
    if body := config.text("body"):
        kwargs["body"] = body
    if headers := config.text("headers"):
        try:
            pairs = json.loads(headers)
        except ValueError:
            raise ValueError("executor_config.headers: expected a JSON list of texts") from None
        texts = [each for each in pairs if isinstance(each, str)] if isinstance(pairs, list) else []
        kwargs["headers"] = {name.strip(): value.strip() for name, _, value in (each.partition(":") for each in texts)}
    if codes := [int(code) for code in config.text("expectCode").split(",") if code.strip().isdigit()]:
        kwargs["expect"] = codes
    if (timeout := _duration(config.text("timeout"), "timeout")) is not None:
        kwargs["timeout"] = timeout
    args = [config.text("url"), config.text("method", "GET")]
    return {"task": "beatd.http", "args": args, **({"kwargs": kwargs} if kwargs else {})}


def _duration(text: str, what: str) -> float | int | None:
    """Seconds; None for no limit, which 0 means too."""
    if not text:
        return None
    found = _DURATION.fullmatch(text.strip())
    if found is None or len(text) > 20:
        raise ValueError(f"executor_config.{what}: expected a duration such as 30s, not {text[:40]!r}")
    value = float(found[1]) * _UNITS[found[2]]
    return (int(value) if value == int(value) else value) or None
