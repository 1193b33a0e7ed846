"""Timers of systemd: each ``.timer`` with the ``.service`` that it starts becomes a ``beatd.command`` entry.

systemd does not start a unit that still runs: entries have ``overlap = "skip"``.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from beatd.exceptions import ConfigError, Fault
from beatd.importers.calendar_events import schedule_of
from beatd.importers.collected import ANY_AGE, OTHER_USER, Collected, command
from beatd.importers.report import FoundSchedule

_LARGEST = 1 << 20
_MOST_FILES = 5_000
_PREFIXES = "@-:+!|"
_SPAN = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)")
_UNITS = {
    "": 1, "s": 1, "sec": 1, "second": 1, "seconds": 1, "ms": 0.001, "msec": 0.001, "us": 1e-6, "usec": 1e-6,
    "m": 60, "min": 60, "minute": 60, "minutes": 60, "h": 3600, "hr": 3600, "hour": 3600, "hours": 3600,
    "d": 86400, "day": 86400, "days": 86400, "w": 604800, "week": 604800, "weeks": 604800,
}  # fmt: skip
_TRIGGERS = ("OnCalendar", "OnUnitActiveSec", "OnUnitInactiveSec", "OnBootSec", "OnStartupSec", "OnActiveSec")
"""What starts a timer: all of them do. The first of the first three is carried over."""
_TIMER = {*_TRIGGERS, "Persistent", "RandomizedDelaySec", "Unit", "AccuracySec"}
_TIMER |= {"RemainAfterElapse", "FixedRandomDelay"}
_SERVICE = {"Type", "ExecStart", "User", "WorkingDirectory", "Environment", "TimeoutStartSec", "RuntimeMaxSec"}
_SERVICE |= {"StandardOutput", "StandardError", "SyslogIdentifier", "TimeoutSec"}
_OF_UNIT = ("Condition", "Assert", "OnFailure", "OnSuccess")
"""Beginnings of settings under ``[Unit]`` that decide about runs."""
_WORD = re.compile(r"""(?:'[^']*'|"(?:\\.|[^"\\])*"|\\.|[^\s'"\\])+""")
_SPECIFIER = re.compile(r"%[A-Za-z]")

Section = dict[str, list[str]]


class _Unit(NamedTuple):
    """The settings of a unit: section, key, values; and the place of its first ``OnCalendar``."""

    sections: dict[str, Section]
    place: str

    def all(self, section: str, key: str) -> list[str]:
        """The values of a setting."""
        return self.sections.get(section, {}).get(key, [])

    def last(self, section: str, key: str) -> str:
        """The value that counts, the last one; empty for none."""
        values = self.all(section, key)
        return values[-1] if values else ""


class _Command(NamedTuple):
    """One command of a service. ``may_fail``: its exit code does not count."""

    words: list[str]
    may_fail: bool


def read_systemd(place: Path, *, timezone: str | None = None) -> FoundSchedule:
    """The timers of a folder, or one ``.timer`` file; services are looked for beside them. Raises ConfigError."""
    paths = sorted(place.glob("*.timer"))[:_MOST_FILES] if place.is_dir() else [place]
    if not paths:
        raise ConfigError([Fault(str(place), None, "", "has no .timer files")])
    collected = Collected(str(place))
    for path in paths:
        with collected.reading(str(path)):
            timer = _read(path)
            _take(collected, path, path.name.removesuffix(".timer"), timer, timezone)
    collected.note_gaps("systemd", timezone)
    return collected.found(timezone)


def _take(collected: Collected, path: Path, name: str, timer: _Unit, timezone: str | None) -> None:
    if name.endswith("@"):
        raise ValueError("is a template: write an entry for each of its instances")
    unit = timer.last("Timer", "Unit") or f"{name}.service"
    service_path = path.parent / unit
    if "/" in unit or not service_path.is_file():
        raise ValueError(f"its unit {unit[:100]} is not beside it")
    service = _read(service_path)
    try:
        when, zone = _when(timer)
    except ValueError as error:
        raise ValueError(f"{timer.place}: {error}" if timer.place else str(error)) from None
    fields = {**_program(service), **when}
    if zone:
        fields["timezone"] = zone
    entry = collected.add(name, fields)
    if not zone and timezone is None and timer.last("Timer", "OnCalendar"):
        collected.note(entry, "timezone", "the times are taken as UTC; --timezone names the zone of the machine")
    for about, why in (*_timer_notes(timer), *_service_notes(service)):
        collected.note(entry, about, why)
    for unit_file in (timer, service):
        for key in sorted(unit_file.sections.get("Unit", {})):
            if key.startswith(_OF_UNIT):
                collected.note(entry, f"Unit.{key}", "not carried over")


def _when(timer: _Unit) -> tuple[dict[str, Any], str | None]:
    fields: dict[str, Any] = {}
    zone = None
    trigger = _trigger(timer)
    if trigger == "OnCalendar":
        found = []
        for text in timer.all("Timer", "OnCalendar"):
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
        is_persistent = timer.last("Timer", "Persistent").lower() in _TRUE
        fields |= {"catch_up": "latest", "catch_up_window": ANY_AGE} if is_persistent else {"catch_up": "none"}
    elif trigger:
        fields["schedule"] = _span(timer.last("Timer", trigger), trigger)
    else:
        raise ValueError("it has no OnCalendar and no OnUnitActiveSec: only times and intervals have a counterpart")
    if delay := timer.last("Timer", "RandomizedDelaySec"):
        fields |= {"jitter": seconds} if (seconds := _span(delay, "RandomizedDelaySec")) else {}
    return {**fields, "overlap": "skip"}, zone


_TRUE = ("yes", "true", "on", "1", "y", "t")


def _trigger(timer: _Unit) -> str:
    """The setting that is carried over as the schedule; empty for none."""
    return next((key for key in _TRIGGERS[:3] if timer.last("Timer", key)), "")


def _program(service: _Unit) -> dict[str, Any]:
    commands = [one for text in service.all("Service", "ExecStart") for one in _commands(text)]
    if not commands:
        raise ValueError("its service has no ExecStart")
    first = commands[0]
    args = first.words if len(commands) == 1 else ["/bin/sh", "-c", " && ".join(map(_in_shell, commands))]
    env: dict[str, str] = {}
    for text in service.all("Service", "Environment"):
        for pair in _split(text):
            key, equals, value = pair.partition("=")
            if equals:
                env[key] = value.replace("%%", "%")
    user = service.last("Service", "User")
    return command(
        args,
        env=env,
        cwd=_folder(service),
        user="" if user == "root" else user,
        timeout=_limit(service),
        check=False if len(commands) == 1 and first.may_fail else None,
    )


def _commands(text: str) -> Iterator[_Command]:
    """The commands of one ``ExecStart``: a semicolon that stands alone divides them."""
    start = 0
    for found in _WORD.finditer(text):
        if found[0] == ";":
            yield _command_of(text[start : found.start()].strip())
            start = found.end()
    if text[start:].strip() or not start:
        yield _command_of(text[start:].strip())


def _command_of(text: str) -> _Command:
    bare = text.lstrip(_PREFIXES)
    prefix = text[: len(text) - len(bare)]
    words = _split(bare)
    if not words:
        raise ValueError("ExecStart is empty")
    if "@" in prefix:
        del words[1:2]  # the name under which the program sees itself
    words = [word.replace("%%", "%") for word in words]
    return _Command(words if ":" in prefix else [word.replace("$$", "$") for word in words], "-" in prefix)


def _in_shell(one: _Command) -> str:
    text = shlex.join(one.words)
    return f"{{ {text} || :; }}" if one.may_fail else text


def _folder(service: _Unit) -> str:
    """The working directory, if it is a path."""
    cwd = service.last("Service", "WorkingDirectory").removeprefix("-")
    return cwd.replace("%%", "%") if cwd.startswith("/") and not _has_specifier(cwd) else ""


def _limit(service: _Unit) -> float | int | None:
    """Seconds after which systemd ends a run: ``TimeoutStartSec`` is about those of ``Type=oneshot`` only."""
    keys = ("TimeoutStartSec", "TimeoutSec") if service.last("Service", "Type") == "oneshot" else ("RuntimeMaxSec",)
    text = next(filter(None, (service.last("Service", key) for key in keys)), "infinity")
    return None if text == "infinity" else _span(text, keys[0]) or None


def _timer_notes(timer: _Unit) -> Iterator[tuple[str, str]]:
    used = _trigger(timer)
    if used == "OnUnitInactiveSec":
        yield used, "counts from the end of a run; here from its beginning"
    for key in _TRIGGERS:
        if key != used and timer.last("Timer", key):
            yield key, f"not carried over: {used} is the schedule"
    if used != "OnCalendar" and len(timer.all("Timer", used)) > 1:
        yield used, "is there several times: only the last is carried over"
    if timer.last("Timer", "RandomizedDelaySec"):
        yield "RandomizedDelaySec", "as jitter it is the same for each time, not another in each run"
    yield from _unknown(timer, "Timer", _TIMER)


def _service_notes(service: _Unit) -> Iterator[tuple[str, str]]:
    commands = service.all("Service", "ExecStart")
    for key in ("ExecStart", "Environment", "WorkingDirectory"):
        if any(map(_has_specifier, service.all("Service", key))):
            yield key, "its specifiers such as %h are not replaced"
    if any("$" in text.replace("$$", "") for text in commands):
        yield "ExecStart", "variables are not replaced: use a shell"
    if any({"+", "!"} & set(text[: len(text) - len(text.lstrip(_PREFIXES))]) for text in commands):
        yield "ExecStart", "its privileges (+ or !) are not carried over"
    if (cwd := service.last("Service", "WorkingDirectory")) and not _folder(service):
        yield "WorkingDirectory", f"{cwd[:60]} is not carried over: name the folder by its path"
    if service.last("Service", "User") in ("", "root"):
        yield "User", "a unit of the system ran as root; it runs as the worker's user"
    else:
        yield "User", OTHER_USER
    for key in ("StandardOutput", "StandardError"):
        if (place := service.last("Service", key)).startswith(("file:", "append:", "truncate:")):
            yield key, f"{place[:100]} is not written: output is in the worker's log and in the result"
    yield from _unknown(service, "Service", _SERVICE)


def _unknown(unit: _Unit, section: str, known: set[str]) -> Iterator[tuple[str, str]]:
    if names := sorted(set(unit.sections.get(section, {})) - known):
        yield section, f"not carried over: {', '.join(names)[:300]}"


def _has_specifier(text: str) -> bool:
    return _SPECIFIER.search(text.replace("%%", "")) is not None


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
    """The settings of a unit file, and of the drop-ins beside it. Raises ValueError with the line that is none."""
    sections: dict[str, Section] = {}
    place = ""
    for part in (path, *sorted(path.with_name(f"{path.name}.d").glob("*.conf"))):
        line = _parse(part, sections)
        if line and not place:
            place = f"line {line}" if part == path else f"{part.name}:{line}"
    return _Unit(sections, place)


def _parse(path: Path, sections: dict[str, Section]) -> int:
    """Add the settings of one file to the sections; returns the line of its first ``OnCalendar``, else 0."""
    try:
        if path.stat().st_size > _LARGEST:
            raise ValueError(f"{path.name} has more than {_LARGEST >> 20} MiB")
        text = path.read_bytes().decode("utf-8", "replace")
    except OSError as error:
        raise ValueError(f"{path.name} cannot be read: {error.strerror}") from None
    current, line, held = "", 0, ""
    for number, raw in enumerate([*text.splitlines(), ""], 1):
        stripped = raw.strip()
        if stripped.startswith(("#", ";")) or not (held or stripped):
            continue  # also between the lines of one value
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
            raise ValueError(f"{path.name}:{number}: is no setting of a unit: {stripped[:60]}")
        values = sections[current].setdefault(key.strip(), [])
        if not value.strip():
            values.clear()  # an empty value resets what was before
        else:
            values.append(value.strip())
        if key.strip() == "OnCalendar" and not line:
            line = number
    return line
