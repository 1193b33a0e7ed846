"""``beatd events``: the events of workers, live or line by line."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import click

from beatd.app.app import App
from beatd.app.conf_urls import first_url
from beatd.broker import read_events
from beatd.cli.app_client import SETTINGS, client_app, place_options
from beatd.cli.celery_options import EVENTS_IDLE, Level, idle_options
from beatd.cli.celery_options import detach as in_background
from beatd.cli.logfile import LogFile
from beatd.cli.output import print_json_line, print_line
from beatd.cli.pidfile import locked
from beatd.redaction import redacted
from beatd.timestamps import utc_text


@click.command(context_settings=SETTINGS)
@place_options
@click.option("--dump", "-d", is_flag=True, help="Print events in a terminal, too, instead of the live view.")
@click.option("--limit", "-n", type=click.IntRange(1), help="End after so many events.")
@click.option("--json", "-j", "as_json", is_flag=True, help="One JSON object a line.")
@click.option("--camera", "-c", metavar="CLASS", help="Take snapshots: a subclass of Celery's Polaroid.")
@click.option(
    "--frequency", "--freq", "-F", type=click.FloatRange(0.01), default=1.0, help="Seconds between snapshots."
)
@click.option("--maxrate", "-r", metavar="RATE", help="Snapshots at most, such as 10/m.")
@click.option("--loglevel", "-l", type=Level(), metavar="LEVEL", help="No effect: nothing is logged but errors.")
@click.option("--logfile", "-f", metavar="FILE", help="Log file; default: standard error.")
@click.option("--pidfile", metavar="FILE", help="Pid file, locked while it runs.")
@click.option("--detach", is_flag=True, help="Run in the background.")
@idle_options(EVENTS_IDLE)
def events(
    *,
    app_name: str | None,
    config_file: str | None,
    broker: str | None,
    result_backend: str | None,
    dump: bool,
    limit: int | None,
    as_json: bool,
    camera: str | None,
    frequency: float,
    maxrate: str | None,
    loglevel: str | None,  # noqa: ARG001 - Celery's tool has it
    logfile: str | None,
    pidfile: str | None,
    detach: bool,
) -> None:
    """Watch the events of workers, until q or Ctrl-C: tasks and workers, live. Workers send events with -E.

    Without a terminal, and with --dump, --json or --limit, events are printed as they come, one a line.
    """
    if detach:
        in_background("events", pidfile, logfile)
        return
    app = client_app(app_name, broker, config_file, result_backend)
    if logfile:
        LogFile(logfile, "beatd events").open()
    with locked(Path(pidfile).expanduser()) if pidfile else nullcontext():
        if camera:
            from beatd.cli.events_snapshot import take_snapshots  # noqa: PLC0415 - needs Celery

            take_snapshots(app, camera, every=frequency, most=maxrate)
        else:
            _show_events(app, dump=dump, limit=limit, as_json=as_json)


def _show_events(app: App, *, dump: bool, limit: int | None, as_json: bool) -> None:
    stream = read_events(first_url(app.conf.broker_url), app.conf.event_exchange)
    if sys.stdin.isatty() and sys.stdout.isatty() and not (dump or as_json or limit):
        from beatd.cli.events_view import watch  # noqa: PLC0415 - for terminals alone

        watch(stream)
        return
    seen = (event for event in stream if event is not None)
    try:
        for event in itertools.islice(seen, limit):
            print_event(event, as_json=as_json)
    except KeyboardInterrupt:
        return


def print_event(event: Mapping[str, Any], *, as_json: bool) -> None:
    """Print one event in one line."""
    if as_json:
        print_json_line(redacted(dict(event)))
        return
    at = _moment(event.get("timestamp"))
    hidden = {"type", "hostname", "timestamp", "utcoffset", "pid", "clock", "uuid", "name", "local_received"}
    details = " ".join(f"{key}={value}" for key, value in redacted(dict(event)).items() if key not in hidden)
    about = f" {event.get('name') or ''}({event['uuid']})" if "uuid" in event else ""
    print_line(f"{event.get('hostname', '-')} [{at}] {event['type'].replace('-', ' ')}{about} {details}".rstrip())


def _moment(stamp: Any) -> str:
    """The moment of an event; a worker may have written anything, also no number or NaN."""
    try:
        return utc_text(int(stamp * 1000))
    except (TypeError, ValueError, OverflowError):
        return "-"
