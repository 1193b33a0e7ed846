"""``beatd check``: is the file right, and does it say what was meant?"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

import click

from beatd import config, sources
from beatd.cli.output import plural, print_json
from beatd.cli.preview import Upcoming, upcoming
from beatd.clock import SystemClock
from beatd.config.review import review
from beatd.epoch import iso_ms
from beatd.exceptions import ConfigError, Fault
from beatd.model import Entry, Settings
from beatd.timeline import timeline

if TYPE_CHECKING:
    from beatd.cli.connections import Attempt

LONGEST_SEARCH = 10_000
"""Runs in a row that may be blacked out before the search for one that is sent ends."""


@click.command()
@click.argument("file", required=False)
@click.option("--config", "-c", "config_file", metavar="FILE", help="The same as FILE.")
@click.option("--app", "-A", metavar="MODULE[:APP]", help="Check what this app registers, too.")
@click.option("--connect", is_flag=True, help="Try the state store and the broker.")
@click.option("--strict", is_flag=True, help="Exit with 1 if there are warnings.")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of text.")
def check(
    *, file: str | None, config_file: str | None, app: str | None, connect: bool, strict: bool, as_json: bool
) -> None:
    """Check FILE (default: $BEATD_CONFIG, ./beat.toml, /etc/beatd/beat.toml) and all that it includes.

    The registrations of the app that FILE names are part of it. Every fault is one line, "file:line: path: what is
    wrong", on standard error, and the exit code is 2. Warnings are about what can be run and is probably not meant.
    With --connect, a server that cannot be used makes the exit code 1.
    """
    if file and config_file:
        raise click.UsageError("give the file once: as FILE or with --config")
    try:
        path = config.find(file or config_file)
        loaded = _without_refused(sources.load(path, app=app))
    except ConfigError as error:
        if not as_json:
            raise
        print_json({"ok": False, "faults": _as_json(error.faults)})
        raise click.exceptions.Exit(2) from None
    now_ms = SystemClock().now_ms()
    warnings = review(loaded, now_ms)
    attempts = _try_servers(loaded.settings, loaded.entries) if connect else []
    ok = all(attempt.ok for attempt in attempts)
    if as_json:
        more = {"connections": [attempt._asdict() for attempt in attempts]} if connect else {}
        print_json({"ok": ok, **_facts(loaded, now_ms), "faults": [], "warnings": _as_json(warnings), **more})
    else:
        _print(str(path), _facts(loaded, now_ms), warnings)
        for attempt in attempts:
            click.echo(str(attempt), err=not attempt.ok)
    if (warnings and strict) or not ok:
        raise click.exceptions.Exit(1)


def _without_refused(loaded: config.Config) -> config.Config:
    """Raises ConfigError if a registration of the app cannot be read."""
    if loaded.refused:
        raise ConfigError(loaded.refused)
    return loaded


def _try_servers(settings: Settings, entries: Sequence[Entry]) -> list[Attempt]:
    from beatd.cli.connections import try_servers  # noqa: PLC0415 - loads what talks to servers

    return try_servers(settings, entries)


def _as_json(faults: Sequence[Fault]) -> list[dict[str, Any]]:
    return [fault._asdict() for fault in faults]


def _facts(loaded: config.Config, now_ms: int) -> dict[str, Any]:
    first = first_sent(loaded.entries, now_ms)
    return {
        "files": list(loaded.files),
        "entries": len(loaded.entries),
        "enabled": sum(entry.policies.enabled for entry in loaded.entries),
        "digest": loaded.digest,
        "next": {"entry": first.entry.name, "due_at": iso_ms(first.due_ms)} if first else None,
    }


def first_sent(entries: Iterable[Entry], now_ms: int) -> Upcoming | None:
    """The run that leaves first of all that are sent."""
    firsts: dict[tuple[object, ...], int | None] = {}
    waiting: list[tuple[int, str, Entry]] = []
    for entry in entries:
        schedule, policies = entry.schedule, entry.policies
        if not policies.enabled:
            continue
        key = (id(schedule), policies.start, policies.end)
        if key not in firsts:
            firsts[key] = timeline(entry, now_ms).next_after_ms(now_ms)
        if (due_ms := firsts[key]) is not None:
            waiting.append((due_ms, entry.name, entry))
    best: Upcoming | None = None
    for due_ms, _, entry in sorted(waiting, key=lambda one: one[:2]):
        if best is not None and due_ms >= best.fire_ms:
            break  # no run leaves before it is due
        runs = islice(upcoming(entry, now_ms), LONGEST_SEARCH)
        run = next((run for run in runs if run.skip is None), None)
        if run is not None and (best is None or run.fire_ms < best.fire_ms):
            best = run
    return best


def _print(file: str, facts: dict[str, Any], warnings: Sequence[Fault]) -> None:
    for warning in warnings:
        click.echo(f"warning: {warning}")
    disabled = facts["entries"] - facts["enabled"]
    shown = [plural(facts["entries"], "entry") + (f" ({disabled:,} not enabled)" if disabled else "")]
    shown += [plural(len(facts["files"]), "file"), "no faults"] + [plural(len(warnings), "warning")] * bool(warnings)
    click.echo(f"{file}: {', '.join(shown)}")
    if first := facts["next"]:
        click.echo(f"next: {first['entry']}, due at {first['due_at']}")
    else:
        click.echo("next: nothing; no entry has a run left")
