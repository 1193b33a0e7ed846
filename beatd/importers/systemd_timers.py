"""Timers of systemd: each ``.timer`` with the ``.service`` that it starts becomes a ``beatd.command`` entry."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from beatd.exceptions import ConfigError, Fault
from beatd.importers.calendar_events import schedule_of
from beatd.importers.collected import Collected, command
from beatd.importers.report import Found

_LARGEST = 1 << 20
_MOST_FILES = 5_000
_PREFIXES = "@-:+!|"
_SPAN = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)")
_UNITS = {
    "": 1, "s": 1, "sec": 1, "second": 1, "seconds": 1, "ms": 0.001, "msec": 0.001, "us": 1e-6, "usec": 1e-6,
    "m": 60, "min": 60, "minute": 60, "minutes": 60, "h": 3600, "hr": 3600, "hour": 3600, "hours": 3600,
    "d": 86400, "day": 86400, "days": 86400, "w": 604800, "week": 604800, "weeks": 604800,
}  # fmt: skip
_TIMER = {
    "OnCalendar",
    "Persistent",
    "RandomizedDelaySec",
    "Unit",
    "OnUnitActiveSec",
    "OnUnitInactiveSec",
    "AccuracySec",
}
_TIMER |= {"OnBootSec", "OnStartupSec", "OnActiveSec", "RemainAfterElapse", "FixedRandomDelay"}
_SERVICE = {"Type", "ExecStart", "User", "WorkingDirectory", "Environment", "TimeoutStartSec", "RuntimeMaxSec"}
_SERVICE |= {"Group", "StandardOutput", "StandardError", "SyslogIdentifier"}

Section = dict[str, list[str]]


class _Unit(NamedTuple):
    """The settings of a unit: section, key, values; and the line of its first ``OnCalendar``."""

    sections: dict[str, Section]
    line: int

    def last(self, section: str, key: str) -> str:
        """The value that counts, the last one; empty for none."""
        values = self.sections.get(section, {}).get(key, [])
        return values[-1] if values else ""


def read_systemd(place: Path, *, timezone: str | None = None) -> Found:
    """The timers of a folder, or one ``.timer`` file; services are looked for beside them. Raises ConfigError."""
    paths = sorted(place.glob("*.timer"))[:_MOST_FILES] if place.is_dir() else [place]
    if not paths:
        raise ConfigError([Fault(str(place), None, "", "has no .timer files")])
    collected = Collected(str(place))
    for path in paths:
        with collected.one(str(path)):
            timer = _read(path)
            _take(collected, path, path.name.removesuffix(".timer"), timer, timezone)
    return collected.found(timezone)


def _take(collected: Collected, path: Path, name: str, timer: _Unit, timezone: str | None) -> None:
    unit = timer.last("Timer", "Unit") or f"{name}.service"
    service_path = path.parent / unit
    if "/" in unit or not service_path.is_file():
        raise ValueError(f"its unit {unit[:100]} is not beside it")
    service = _read(service_path)
    try:
        when, zone = _when(timer)
    except ValueError as error:
        raise ValueError(f"line {timer.line}: {error}" if timer.line else str(error)) from None
    fields = {**_program(service), **when}
    if zone:
        fields["timezone"] = zone
    entry = collected.add(name, fields)
    if not zone and timezone is None and "OnCalendar" in timer.sections.get("Timer", {}):
        collected.note(entry, "timezone", "the times are taken as UTC; --timezone names the zone of the machine")
    for about, why in _different(timer, service):
        collected.note(entry, about, why)


def _when(timer: _Unit) -> tuple[dict[str, Any], str | None]:
    section = timer.sections.get("Timer", {})
    calendars = [text for text in section.get("OnCalendar", []) if text]
    fields: dict[str, Any] = {}
    zone = None
    if calendars:
        found = []
        for text in calendars:
            try:
                found.append(schedule_of(text))
            except ValueError as error:
                raise ValueError(f"OnCalendar={text[:60]}: {error}") from None
        zones = {one for _, one in found}
        if len(zones) > 1:
            raise ValueError("OnCalendar: several time zones in one timer: write an entry for each")
        zone = zones.pop()
        schedules = [one for one, _ in found]
        fields["schedule"] = schedules[0] if len(schedules) == 1 else schedules
        fields["catch_up"] = "latest" if timer.last("Timer", "Persistent").lower() in _TRUE else "none"
    elif interval := timer.last("Timer", "OnUnitActiveSec") or timer.last("Timer", "OnUnitInactiveSec"):
        fields["schedule"] = {"every": _span(interval, "OnUnitActiveSec"), "relative": True}
    else:
        raise ValueError("it has no OnCalendar and no OnUnitActiveSec: only times and intervals have a counterpart")
    if delay := timer.last("Timer", "RandomizedDelaySec"):
        fields |= {"jitter": seconds} if (seconds := _span(delay, "RandomizedDelaySec")) else {}
    return fields, zone


_TRUE = ("yes", "true", "on", "1")


def _program(service: _Unit) -> dict[str, Any]:
    section = service.sections.get("Service", {})
    commands = [text for text in section.get("ExecStart", []) if text]
    if not commands:
        raise ValueError("its service has no ExecStart")
    words = [_words(text) for text in commands]
    args = words[0] if len(words) == 1 else ["/bin/sh", "-c", " && ".join(shlex.join(each) for each in words)]
    env: dict[str, str] = {}
    for text in section.get("Environment", []):
        for pair in _split(text):
            key, equals, value = pair.partition("=")
            if equals:
                env[key] = value
    timeout = service.last("Service", "RuntimeMaxSec") or service.last("Service", "TimeoutStartSec")
    limit = _span(timeout, "TimeoutStartSec") if timeout and timeout != "infinity" else None
    cwd = service.last("Service", "WorkingDirectory").lstrip("-")
    user = service.last("Service", "User")
    return command(
        args, env=env, cwd=cwd if cwd.startswith("/") else "", user="" if user == "root" else user, timeout=limit
    )


def _different(timer: _Unit, service: _Unit) -> list[tuple[str, str]]:
    found = []
    commands = service.sections.get("Service", {}).get("ExecStart", [])
    if any(re.search(r"(?<!%)%[A-Za-z]", text.replace("%%", "")) for text in commands):
        found.append(("ExecStart", "its specifiers such as %h are not replaced"))
    if any("$" in text for text in commands):
        found.append(("ExecStart", "variables are not replaced: use a shell"))
    if timer.last("Timer", "OnCalendar") and timer.last("Timer", "OnBootSec"):
        found.append(("OnBootSec", "not carried over: it is not a time"))
    if timer.last("Timer", "RandomizedDelaySec"):
        found.append(("RandomizedDelaySec", "as jitter it is the same for each time, not another in each run"))
    for unit, section, known in ((timer, "Timer", _TIMER), (service, "Service", _SERVICE)):
        if names := sorted(set(unit.sections.get(section, {})) - known):
            found.append((section, f"not carried over: {', '.join(names)[:300]}"))
    return found


def _words(text: str) -> list[str]:
    words = _split(text.lstrip(_PREFIXES))
    if not words:
        raise ValueError("ExecStart is empty")
    return [word.replace("%%", "%") for word in words]


def _split(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise ValueError(f"{text[:60]}: {error}") from None


def _span(text: str, what: str) -> float | int:
    found = _SPAN.findall(text)
    if not found or "".join(number + unit for number, unit in found) != "".join(text.split()):
        raise ValueError(f"{what}={text[:60]}: expected a time span such as 1h 30min")
    if unknown := next((unit for _, unit in found if unit not in _UNITS), None):
        raise ValueError(f"{what}={text[:60]}: the unit {unknown!r} has no counterpart")
    value = sum(float(number) * _UNITS[unit] for number, unit in found)
    return int(value) if value == int(value) else value


def _read(path: Path) -> _Unit:
    """The settings of a unit file. Raises ValueError with the line of what is no setting."""
    try:
        if path.stat().st_size > _LARGEST:
            raise ValueError(f"{path.name} has more than {_LARGEST >> 20} MiB")
        text = path.read_bytes().decode("utf-8", "replace")
    except OSError as error:
        raise ValueError(f"{path.name} cannot be read: {error.strerror}") from None
    return _parsed(text, lambda number, why: ValueError(f"{path.name}:{number}: {why}"))


def _parsed(text: str, fault: Callable[[int, str], ValueError]) -> _Unit:
    sections: dict[str, Section] = {}
    current, line, held = "", 0, ""
    for number, raw in enumerate(text.splitlines(), 1):
        stripped = raw.strip()
        if not held and (not stripped or stripped.startswith(("#", ";"))):
            continue
        if stripped.endswith("\\"):
            held += stripped[:-1] + " "
            continue
        stripped, held = held + stripped, ""
        if stripped.startswith("[") and stripped.endswith("]"):
            current = stripped[1:-1]
            sections.setdefault(current, {})
            continue
        key, equals, value = stripped.partition("=")
        if not equals or not current:
            raise fault(number, f"is no setting of a unit: {stripped[:60]}")
        values = sections[current].setdefault(key.strip(), [])
        if not value.strip():
            values.clear()  # an empty value resets what was before
        else:
            values.append(value.strip())
        if key.strip() == "OnCalendar" and not line:
            line = number
    return _Unit(sections, line)
