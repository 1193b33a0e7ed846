"""Jobs of cronstable, and of yacron, whose format it extends: YAML with ``jobs``, and ``defaults`` below them."""

from __future__ import annotations

from typing import Any

from beatd.importers.collected import OTHER_USER, OVERLAPS, Collected, command, leftovers
from beatd.importers.report import FoundSchedule
from beatd.importers.yaml_file import Table, read_yaml, scalar

_JOB = {
    "name", "command", "schedule", "shell", "environment", "timezone", "utc", "enabled", "concurrencyPolicy", "user",
    "workingDirectory", "executionTimeout", "killTimeout", "onMissed", "startingDeadlineSeconds", "jitter",
    "captureStderr", "captureStdout", "saveLimit", "streamPrefix", "maxLineLength", "clusterPolicy",
}  # fmt: skip
_FILE = {"jobs", "defaults", "web", "logging", "cluster", "state", "mcp", "push", "notify"}
_CATCH_UP = {"skip": "none", "run-once": "latest", "run-all": "all"}
_FIELDS = {"minute": "*", "hour": "*", "dayOfMonth": "*", "month": "*", "dayOfWeek": "*"}


def read_cronstable(data: bytes, *, shown: str, timezone: str | None = None) -> FoundSchedule:
    """The jobs of a file. Other files that it includes are named, and are imported one by one."""
    collected = Collected(shown)
    for document in read_yaml(data, shown):
        if not isinstance(document, Table):
            collected.note(shown, "", "expected a mapping with jobs")
            continue
        for other in document.texts("include") if isinstance(document.get("include"), list) else ():
            collected.note(shown, "include", f"{other[:100]} is not read: import it, too")
        leftovers(document, {*_FILE, "include"}, lambda why: collected.note(shown, "file", why))
        defaults = document.table("defaults")
        jobs = document.get("jobs")
        if not isinstance(jobs, list) and not document.get("include"):
            collected.note(shown, "", "has no jobs: expected a list under jobs")
        for number, job in enumerate(jobs if isinstance(jobs, list) else (), 1):
            place = collected.place(job.line) if isinstance(job, Table) else f"{shown}, job {number}"
            with collected.reading(place):
                if not isinstance(job, Table):
                    raise ValueError("is no job: expected a mapping")  # noqa: TRY004 - it is what the file has
                whole = _merged(defaults, job)
                _take(collected, whole, timezone)
    if not collected.entries and not collected.notes:
        collected.note(shown, "", "has no jobs")
    collected.note_gaps("yacron", timezone)  # cronstable makes the run later, too
    return collected.found(timezone)


def _merged(defaults: Table, job: Table) -> Table:
    """A job with the defaults: lists are joined, and mappings merged, as these programs do it."""
    whole = Table({**defaults, **job})
    for key in defaults.keys() & job.keys():
        given, own = defaults[key], job[key]
        if isinstance(given, list) and isinstance(own, list):
            whole[key] = [*given, *own]
        elif isinstance(given, Table) and isinstance(own, Table):
            whole[key] = _merged(given, own)
    return whole


def _take(collected: Collected, job: Table, timezone: str | None) -> None:
    if not job.text("name"):
        raise ValueError("it has no name")
    is_utc = job.flag("utc", default=True)
    fields = {**_program(job), "schedule": _schedule(job), **_policies(job)}
    if zone := job.text("timezone"):
        fields["timezone"] = zone
    elif is_utc and timezone not in (None, "UTC"):
        fields["timezone"] = "UTC"
    name = collected.add(job.text("name"), fields)
    if not is_utc and not job.text("timezone") and timezone is None:
        collected.note(name, "utc", "is false: the times are taken as UTC; --timezone names the zone of the machine")
    if job.text("concurrencyPolicy") == "Replace":
        collected.note(name, "concurrencyPolicy", "Replace ends the run before; here the new run is skipped")
    if job.text("user"):
        collected.note(name, "user", OTHER_USER)
    leftovers(job, _JOB, lambda why: collected.note(name, "job", why))


def _policies(job: Table) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    if not job.flag("enabled", default=True):
        fields["enabled"] = False
    if (overlap := OVERLAPS.get(job.text("concurrencyPolicy", "Allow").lower(), "allow")) != "allow":
        fields["overlap"] = overlap
    if catch_up := _CATCH_UP.get(job.text("onMissed")):
        fields["catch_up"] = catch_up
    if window := job.text("startingDeadlineSeconds"):
        fields["catch_up_window"] = _number(window, "startingDeadlineSeconds")
    if jitter := job.text("jitter"):
        fields["jitter"] = _number(jitter, "jitter")
    return fields


def _program(job: Table) -> dict[str, Any]:
    written = job.get("command")
    if isinstance(written, list) and written:
        args = [scalar(each) for each in written]
    elif isinstance(written, str) and written.strip():
        shell = job.get("shell")
        args = [*([scalar(each) for each in shell] if isinstance(shell, list) else [job.text("shell") or "/bin/sh"])]
        args += ["-c", written.strip("\n")]
    else:
        raise ValueError("command: expected a text or a list")
    env = {each.text("key"): each.text("value") for each in job.tables("environment") if each.text("key")}
    return command(
        args,
        env=env,
        cwd=job.text("workingDirectory"),
        user=job.text("user"),
        timeout=_number(job.text("executionTimeout"), "executionTimeout"),
        kill_after=_number(job.text("killTimeout"), "killTimeout"),
    )


def _schedule(job: Table) -> str:
    written = job.get("schedule")
    if isinstance(written, Table):
        parts = [scalar(written.get(key, default)) for key, default in _FIELDS.items()]
        second, year = scalar(written.get("second", "0")), scalar(written.get("year", "*"))
        parts = [second, *parts, year] if "second" in written else [*parts, year]
    elif isinstance(written, str) and written.strip():
        if written.strip() == "@reboot":
            raise ValueError("schedule: @reboot is not supported: it is not a time")
        parts = written.split()
    else:
        raise ValueError("schedule: expected a cron string, or a mapping of its fields")
    if len(parts) in (6, 7):
        if parts[-1] != "*":
            raise ValueError(f'schedule: the year "{parts[-1]}" has no field: use start and end')
        parts = parts[:-1]
    return " ".join(parts)


def _number(text: str, what: str) -> float | int | None:
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"{what}: expected seconds, not {text[:40]!r}") from None
    return int(value) if value == int(value) else value
