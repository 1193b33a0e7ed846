"""``beatd diff``: the changes that a file would make to the schedule in force, or to that of another file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from beatd import sources
from beatd.cli.commit import checkout
from beatd.cli.installation import installation
from beatd.cli.output import plural, print_colored, print_json, print_line
from beatd.clock import SystemClock
from beatd.config import Config
from beatd.config.references import references
from beatd.exceptions import ConfigError, StoreError
from beatd.model import Entry
from beatd.planning.comparison import Change, Difference, Runs, compare, total
from beatd.redaction import redacted
from beatd.store.pipeline import joint_reads
from beatd.timestamps import from_ms, iso_ms

_DAY_MS = 86_400_000


@click.command("diff")
@click.argument("file", required=False)
@click.option("--against", metavar="FILE", help="The file to compare with; default: the file of --config.")
@click.option("--git", "commit", metavar="COMMIT", help="Compare with the same file at this commit of git.")
@click.option("--config", "-c", "config_file", metavar="FILE", help="The file in force: $BEATD_CONFIG, ./beat.toml.")
@click.option("--app", "-A", metavar="MODULE[:APP]", help="Add the entries that this app registers, to both.")
@click.option("--days", type=click.IntRange(1, 366), default=7, show_default=True, help="Days whose runs are compared.")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of text.")
def diff(
    *,
    file: str | None,
    against: str | None,
    commit: str | None,
    config_file: str | None,
    app: str | None,
    days: int,
    as_json: bool,
) -> None:
    """Show what FILE would change: entries added, removed and changed, and the runs of the coming days.

    Without --against and --git it is compared with the file of --config and the entries in the state store; without
    FILE, the file of --config is compared with the schedules of the daemons. Exit code 0: no difference, 1: a
    difference, 2: a file is wrong.
    """
    if against is not None and commit is not None:
        raise click.UsageError("give --against or --git, not both")
    if file is None and against is None and commit is None:
        _compare_with_fleet(config_file, app, as_json=as_json)
        return
    new = sources.load(sources.find(file or config_file, app).path, app=app)
    if commit is not None:
        olds, written = _at_commit(Path(new.settings.file), commit, app)
        news: Sequence[Entry] = new.entries
    else:
        old = sources.load(sources.find(against or config_file, app).path, app=app)
        olds, news = (old.entries, new.entries) if against else _with_runtime(old, new, config_file, app)
        written = references(old, olds)
    now_ms = SystemClock().now_ms()
    until_ms = now_ms + days * _DAY_MS
    found = compare(olds, news, now_ms, until_ms)
    differences = _without_secrets(found, written, references(new, news))
    if as_json:
        print_json(_facts(differences, days))
    else:
        for line in _lines(differences, days, until_ms):
            print_colored(line, _COLORS.get(line.strip()[:1]))
    if differences:
        raise click.exceptions.Exit(1)


Written = Mapping[str, Mapping[str, Any]]
"""Fields with variables as the files have them, by entry."""


def _without_secrets(differences: Sequence[Difference], old: Written, new: Written) -> list[Difference]:
    """The differences with variables for their values, and without what sounds like a secret."""

    def shown(name: str, key: str, value: Any, written: Written) -> Any:
        return redacted({key: written.get(name, {}).get(key, value)})[key]

    return [
        each._replace(
            changes=tuple(
                Change(key, shown(each.name, key, before, old), shown(each.name, key, after, new))
                for key, before, after in each.changes
            )
        )
        for each in differences
    ]


def _at_commit(path: Path, commit: str, app: str | None) -> tuple[Sequence[Entry], Written]:
    """The entries of the file at a commit, and their fields with variables; none if it is not there."""
    with checkout(path, commit) as old:
        if not old.exists():
            print_line(f"note: {path.name} is not in {commit}: all entries are new", err=True)
            return (), {}
        try:
            loaded = sources.load(old, app=app)
            return loaded.entries, references(loaded, loaded.entries)
        except ConfigError as error:
            folder = str(old.parent)
            faults = [
                fault._replace(file=f"{commit}:{fault.file.removeprefix(folder).lstrip('/')}") for fault in error.faults
            ]
            raise ConfigError(faults) from None


def _with_runtime(
    old: Config, new: Config, config_file: str | None, app: str | None
) -> tuple[Sequence[Entry], Sequence[Entry]]:
    """The entries of both files, each with those that the state store adds."""
    try:
        with installation(config_file, app) as place, joint_reads() as read:
            merged = [read(place.schedule, config, as_if_resumed=True) for config in (old, new)]
        return merged[0].result().entries, merged[1].result().entries
    except StoreError as error:
        print_line(f"note: the state store was not asked, this is from the files alone: {error}", err=True)
        return old.entries, new.entries


def _compare_with_fleet(config_file: str | None, app: str | None, *, as_json: bool) -> None:
    """Compare the digest of the file with those of the daemons that are alive."""
    with installation(config_file, app) as place:
        loaded = sources.load(place.path, app=app)
        daemons = {daemon.id: daemon.digest for daemon in place.fleet().alive.values()}
    if not daemons:
        raise click.ClickException("no daemon is alive; compare with a file: --against FILE")
    others = sorted(daemon for daemon, digest in daemons.items() if digest != loaded.digest)
    if as_json:
        print_json({"same": not others, "digest": loaded.digest, "daemons": daemons})
    elif others:
        print_line(f"{', '.join(others)}: another schedule is in force than that of {place.path}; run beatd reload,")
        print_line("or beatd diff NEW --against OLD for its entries")
    else:
        print_line(f"{plural(len(daemons), 'daemon')}: the schedule of {place.path} is in force")
    if others:
        raise click.exceptions.Exit(1)


_COLORS = {"+": "green", "-": "red", "~": "yellow"}
_SIGNS = {"added": "+", "removed": "-", "changed": "~"}


def _lines(differences: Sequence[Difference], days: int, until_ms: int) -> Iterator[str]:
    if not differences:
        yield "No difference."
        return
    for difference in differences:
        kind = "" if difference.what == "changed" else f" ({difference.what})"
        yield f"{_SIGNS[difference.what]} {difference.name}{kind}"
        for change in difference.changes:
            yield f"    {change.key}: {_shown(change.old)} → {_shown(change.new)}"
        yield from _run_lines(difference.runs)
        if (end_ms := difference.runs.end_ms) < until_ms:
            yield f"    compared up to {from_ms(end_ms):%Y-%m-%d %H:%M:%S} UTC: it has very many runs"
    counts = {what: sum(difference.what == what for difference in differences) for what in _SIGNS}
    entries = ", ".join(f"{count:,} {what}" for what, count in counts.items() if count)
    appear, vanish, moved = total(differences)
    yield ""
    yield f"Entries: {entries}. Runs in {plural(days, 'day')}: {appear:,} more, {vanish:,} fewer, {moved:,} moved."


def _run_lines(runs: Runs) -> Iterator[str]:
    for word, count, first in (("+", runs.appear, runs.first_appearing), ("-", runs.vanish, runs.first_vanishing)):
        if count:
            times = ", ".join(f"{from_ms(ms):%Y-%m-%d %H:%M:%S}" for ms in first)
            yield f"    {word} {plural(count, 'run')}: {times}{', …' if count > len(first) else ''} UTC"


def _shown(value: Any) -> str:
    return "not set" if value is None else json.dumps(value, ensure_ascii=False, default=str)


def _facts(differences: Sequence[Difference], days: int) -> dict[str, Any]:
    appear, vanish, moved = total(differences)
    return {
        "same": not differences,
        "days": days,
        "runs": {"appear": appear, "vanish": vanish, "moved": moved},
        "entries": [
            {
                "name": difference.name,
                "change": difference.what,
                "keys": {
                    change.key: {"old": _plain(change.old), "new": _plain(change.new)} for change in difference.changes
                },
                "runs": _run_facts(difference.runs),
            }
            for difference in differences
        ],
    }


def _run_facts(runs: Runs) -> dict[str, Any]:
    first = {"first_appearing": runs.first_appearing, "first_vanishing": runs.first_vanishing}
    times = {name: list(map(iso_ms, dues)) for name, dues in first.items()}
    counts = {"appear": runs.appear, "vanish": runs.vanish, "moved": runs.moved}
    return {**counts, **times, "compared_until": iso_ms(runs.end_ms)}


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value, default=str))
