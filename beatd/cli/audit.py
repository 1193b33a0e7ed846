"""``beatd audit``: who changed what, and when."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from beatd.cli.completion import entry_names
from beatd.cli.installation import installation, is_glob
from beatd.cli.output import print_json, print_line, print_table, read_moment
from beatd.client.audit import audit_facts, change_text
from beatd.client.moments import local_text, moment_text
from beatd.clock import SystemClock
from beatd.store.audit import RECORDS_MAX, Audit, AuditRecord


@click.command()
@click.argument("subject", metavar="[ENTRY|GLOB]", required=False, default="*", shell_complete=entry_names)
@click.option(
    "-n", "count", type=click.IntRange(1, RECORDS_MAX), default=20, show_default=True, help="Number of changes."
)
@click.option("--action", metavar="GLOB", default="*", help="Only these: pause, resume, trigger, add, schedule, ...")
@click.option("--since", metavar="TIME", help="Only changes since then: a time, or a distance such as -2h.")
@click.option("--config", "-c", "config_file", metavar="FILE", help="Default: $BEATD_CONFIG, ./beat.toml.")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of a table.")
def audit(*, subject: str, count: int, action: str, since: str | None, config_file: str | None, as_json: bool) -> None:
    """Show changes, newest first: who made them, when, and what was before and after.

    Changes by commands, the status page, Python programs (beatd.Schedules) and files. Times are in the time zone of the
    file.
    """
    now_ms = SystemClock().now_ms()
    with installation(config_file) as place:
        zone, since_ms = place.head.settings.timezone, 0
        if since is not None:
            since_ms = read_moment(since, option="--since", timezone=zone, base_ms=now_ms, now_ms=now_ms)
        records = Audit(place.client, place.keys).read(count, since_ms=since_ms, subject=subject, action=action)
    if as_json:
        print_json({"changes": [audit_facts(record) for record in records]})
    elif records:
        print_table(["what", "when", "by", "via", "change"], [list(_cells(record, zone)) for record in records])
    else:
        print_line("No changes." if is_glob(subject) else f"No changes of {subject}.")


def _cells(record: AuditRecord, zone: str) -> Iterator[Any]:
    yield f"{record.action} {_subjects(record)}".rstrip()
    yield moment_text(record.at_ms, zone)
    yield record.by or "not said"
    yield record.via
    yield local_text(change_text(record), zone)


def _subjects(record: AuditRecord) -> str:
    shown = ", ".join(record.subjects[:3])
    more = record.count - len(record.subjects[:3])
    return f"{shown} and {more:,} more" if more > 0 and shown else shown or f"{record.count:,}"
