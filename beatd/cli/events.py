"""``beatd events``: the events of workers, beatd's or Celery's, as they arrive."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import click

from beatd.broker.event_receiver import receive
from beatd.cli.inspect_ import app_of
from beatd.cli.output import print_line

_OWN = {"type", "timestamp", "local_received", "hostname", "utcoffset", "pid", "clock", "uuid", "name"}


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--app", "-A", "app_name", envvar="BEATD_APP", metavar="MODULE[:APP]", help="Take the app's broker.")
@click.option("--broker", "-b", envvar="BEATD_BROKER_URL", metavar="URL", help="The workers' broker.")
@click.option("--config", "config_file", metavar="FILE", help="Take the broker of beat.toml.")
@click.option("--dump", "-d", is_flag=True, help="Heartbeats too, with all fields.")
@click.option("--json", "-j", "as_json", is_flag=True, help="One JSON document per line.")
@click.option("--limit", "-n", type=click.IntRange(1), metavar="N", help="End after N events.")
def events(
    *,
    app_name: str | None,
    broker: str | None,
    config_file: str | None,
    dump: bool,
    as_json: bool,
    limit: int | None,
) -> None:
    """Show the events of workers until Ctrl-C. Workers send task events with -E, or after "control enable_events"."""
    app = app_of(broker=broker, app_name=app_name, config_file=config_file)
    url = app.conf.broker_url if isinstance(app.conf.broker_url, str) else ";".join(app.conf.broker_url)
    seen, names = 0, dict[str, str]()
    for event in receive(url, app.conf.event_exchange, app.conf.broker_transport_options or {}):
        if event is None or not (dump or as_json or str(event.get("type")) != "worker-heartbeat"):
            continue
        if as_json:
            click.echo(json.dumps(event, default=repr))
        else:
            print_line(_line(event, names, dump=dump))
        sys.stdout.flush()
        seen += 1
        if seen == limit:
            return


_NAMES_KEPT = 10_000


def _line(event: Mapping[str, Any], names: dict[str, str], *, dump: bool) -> str:
    """One event in a line; the name of a task is in its first event only."""
    task_id = str(event.get("uuid", ""))
    if event.get("name"):
        if len(names) >= _NAMES_KEPT:
            names.clear()
        names[task_id] = str(event["name"])
    stamp = event.get("timestamp")
    moment = datetime.fromtimestamp(stamp, UTC).strftime("%H:%M:%S.%f")[:12] if isinstance(stamp, int | float) else "?"
    what = f" {names.get(task_id, '')}[{task_id}]" if task_id else ""
    shown = sorted(event.keys() - _OWN) if dump else [key for key in ("result", "runtime", "exception") if key in event]
    fields = "".join(f" {name}={event[name]!r}" for name in shown)
    return f"{moment} {event.get('hostname')} {event.get('type')}{what}{fields}"
