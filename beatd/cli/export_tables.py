"""``beatd export --to django-celery-beat``: the way home to celery beat."""

from __future__ import annotations

import click

from beatd.cli.installation import installation
from beatd.cli.output import plural, print_line
from beatd.clock import SystemClock
from beatd.config import Config
from beatd.importers.django_rows import rows_of
from beatd.importers.django_tables import write_django_tables
from beatd.importers.report import printable

_NAMED = 10


def export_tables(
    settings: str, loaded: Config, config_file: str | None, app: str | None, *, offline: bool, dry_run: bool
) -> None:
    """Write the entries into the tables of a Django project, and say what was left behind."""
    now_ms = SystemClock().now_ms()
    entries, last_dues, runs, paused = list(loaded.entries), dict[str, int](), dict[str, int](), list[str]()
    if not offline:
        with installation(config_file, app) as there:
            schedule = there.schedule(loaded, as_if_resumed=True)
            entries, paused = list(schedule.entries), list(schedule.pauses)
            seen = zip(entries, there.states(entries, now_ms), strict=True)
            states = {entry.name: state for entry, state in seen if state is not None}
            last_dues = {name: state.last_due_ms for name, state in states.items()}
            runs = {name: state.runs for name, state in states.items()}
    rows = rows_of(entries, last_dues, paused, now_ms, runs)
    done = write_django_tables(settings, rows.rows, dry_run=dry_run)
    for note in (*rows.notes, *done.notes):
        print_line(f"! {printable(str(note))}", err=True)
    if done.others:
        more = f" and {len(done.others) - _NAMED} more" if done.others[_NAMED:] else ""
        names = ", ".join(done.others[:_NAMED])
        print_line(f"! enabled tasks that no entry has, left as they are: {printable(names)}{more}", err=True)
    words = "would be" if dry_run else "were"
    lost = rows.lost + done.lost
    left = f", {plural(lost, 'entry')} left behind" if lost else ""
    print_line(f"{plural(len(done.added), 'task')} {words} added, {len(done.changed):,} changed{left}")
    if lost:
        raise click.exceptions.Exit(1)
