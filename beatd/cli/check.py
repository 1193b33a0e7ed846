"""``beatd check``: is the file right, and does it say what was meant?"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any

import click

from beatd import config
from beatd.cli.output import plural, print_json
from beatd.cli.preview import Upcoming, upcoming
from beatd.clock import SystemClock, iso_ms
from beatd.config.review import review
from beatd.exceptions import ConfigError, Fault
from beatd.model import Entry

LONGEST_SEARCH = 10_000
"""Runs in a row that may be blacked out before the search for one that is sent ends."""


@click.command()
@click.argument("file", required=False)
@click.option("--config", "-c", "config_file", metavar="FILE", help="The same as FILE.")
@click.option("--strict", is_flag=True, help="Exit with 1 if there are warnings.")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of text.")
def check(file: str | None, config_file: str | None, strict: bool, as_json: bool) -> None:
    """Check FILE (default: $BEATD_CONFIG, ./beat.toml, /etc/beatd/beat.toml) and all that it includes.

    Every fault is one line, "file:line: path: what is wrong", on standard error, and the exit code is 2. Warnings are
    about what can be run and is probably not meant.
    """
    if file and config_file:
        raise click.UsageError("give the file once: as FILE or with --config")
    try:
        path = config.find(file or config_file)
        loaded = config.load(path)
    except ConfigError as error:
        if not as_json:
            raise
        print_json({"ok": False, "faults": _as_json(error.faults)})
        raise click.exceptions.Exit(2) from None
    now_ms = SystemClock().now_ms()
    warnings = review(loaded, now_ms)
    if as_json:
        print_json({"ok": True, **_facts(loaded, now_ms), "faults": [], "warnings": _as_json(warnings)})
    else:
        _print(str(path), _facts(loaded, now_ms), warnings)
    if warnings and strict:
        raise click.exceptions.Exit(1)


def _as_json(faults: Sequence[Fault]) -> list[dict[str, Any]]:
    return [fault._asdict() for fault in faults]


def _facts(loaded: config.Config, now_ms: int) -> dict[str, Any]:
    firsts = (_first_sent(entry, now_ms) for entry in loaded.entries)
    first = min((run for run in firsts if run), key=lambda run: (run.fire_ms, run.entry.name), default=None)
    return {
        "files": list(loaded.files),
        "entries": len(loaded.entries),
        "enabled": sum(entry.policies.enabled for entry in loaded.entries),
        "digest": loaded.digest,
        "next": {"entry": first.entry.name, "due_at": iso_ms(first.due_ms)} if first else None,
    }


def _first_sent(entry: Entry, now_ms: int) -> Upcoming | None:
    runs = islice(upcoming(entry, now_ms), LONGEST_SEARCH)
    return next((run for run in runs if run.skip is None), None)


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
