"""``beatd call``, ``result``, ``purge``, ``report``, ``events``, ``shell``: Celery's commands of a client of an app.

They act through the app's broker and result backend. The app may be beatd's or Celery's; without one the broker is that
of ``-b`` or of ``beat.toml``.
"""

from __future__ import annotations

import code
import itertools
import platform
import sys
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from datetime import datetime
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

import beatd
from beatd import config
from beatd.app.app import App
from beatd.app.conf_urls import first_url
from beatd.app.find_app import find_app
from beatd.app.routing import Queues
from beatd.broker import read_events
from beatd.cli.celery_options import EVENTS_IDLE, Level, idle_options
from beatd.cli.celery_options import detach as in_background
from beatd.cli.multi_processes import LogFile, held
from beatd.cli.output import (
    Duration,
    confirm,
    plural,
    print_json,
    print_json_line,
    print_line,
    print_lines,
    print_text,
    read_json,
)
from beatd.config.loader import load_settings
from beatd.exceptions import ConfigError, TimeoutError  # noqa: A004 - beatd's
from beatd.redaction import redacted
from beatd.sources.app_file import app_settings
from beatd.state_store import running_store
from beatd.timestamps import utc_text
from beatd.urls import check_broker, shown

_SETTINGS = {"help_option_names": ["-h", "--help"]}


def client_app(
    app_name: str | None, broker: str | None, config_file: str | None, result_backend: str | None = None
) -> App:
    """Return an app that acts as a client of the workers: the app itself, or one with the same broker and results."""
    if broker:
        check_broker(broker)
    if app_name:
        app = _named(app_name)
    elif broker:
        app = App("beatd", broker=broker, set_as_current=False)
    else:
        app = _of_file(config_file)
    if broker:
        app.conf.broker_url = broker
    if result_backend:
        app.conf.result_backend = result_backend
    return app


def _named(name: str) -> App:
    try:
        return find_app(name)
    except ConfigError:
        conf = app_settings(name)  # an app of Celery's has no client of beatd's
    backend = first_url(conf["result_backend"]) or None
    app = App("beatd", broker=first_url(conf["broker_url"]), backend=backend, set_as_current=False)
    app.conf.task_default_queue = conf["default_queue"]
    return app


def _of_file(config_file: str | None) -> App:
    try:
        found = config.find(config_file)
    except ConfigError as error:
        raise click.UsageError(f"{error}, or the broker with -b URL, or an app with -A MODULE") from None
    settings = load_settings(found).settings
    store = running_store(settings)
    app = App("beatd", broker=settings.broker.url or store, backend=store, set_as_current=False)
    app.conf.task_default_queue = settings.broker.default_queue
    return app


def place_options(function: Callable[..., None]) -> Callable[..., None]:
    """The options that say which app, broker and result backend."""
    for option in (
        click.option("--result-backend", metavar="URL", help="Result backend."),
        click.option("--broker", "-b", metavar="URL", help="Broker."),
        click.option("--config", "config_file", metavar="FILE", help="Take broker and results of beat.toml."),
        click.option("--app", "-A", "app_name", metavar="MODULE[:APP]", help="Take broker and results of this app."),
    ):
        function = option(function)
    return function


@click.command(context_settings=_SETTINGS)
@click.argument("name", metavar="TASK")
@place_options
@click.option("--args", "-a", "args_text", metavar="JSON", default="[]", help="Positional arguments, a JSON list.")
@click.option("--kwargs", "-k", "kwargs_text", metavar="JSON", default="{}", help="Keyword arguments, a JSON object.")
@click.option("--eta", metavar="TIME", help="Not before this time, ISO 8601.")
@click.option("--countdown", type=Duration(), help="Not before this time has passed.")
@click.option("--expires", metavar="TIME", help="Not after this time: ISO 8601, or seconds.")
@click.option("--serializer", default="json", show_default=True, help="Encoding of the arguments.")
@click.option("--queue", "-Q", help="Queue.")
@click.option("--exchange", help="Exchange.")
@click.option("--routing-key", help="Routing key.")
def call(
    *,
    name: str,
    app_name: str | None,
    config_file: str | None,
    broker: str | None,
    result_backend: str | None,
    args_text: str,
    kwargs_text: str,
    eta: str | None,
    countdown: float | None,
    expires: str | None,
    **options: str | None,
) -> None:
    """Send a task by name and print its id. The task need not be registered here."""
    args, kwargs = read_json(args_text, "--args", list), read_json(kwargs_text, "--kwargs", dict)
    times = {"eta": _moment(eta, "--eta"), "countdown": countdown, "expires": _expiry(expires)}
    given = {key: value for key, value in {**times, **options}.items() if value is not None}
    app = client_app(app_name, broker, config_file, result_backend)
    app.import_tasks()  # options that are not given are the task's
    print_line(app.send_task(name, args, kwargs, **given).id)


def _moment(text: str | None, option: str) -> datetime | None:
    try:
        found = None if text is None else datetime.fromisoformat(text)
        return found if found is None or found.tzinfo else found.astimezone()
    except (ValueError, OverflowError):
        raise click.BadParameter("expected a time such as 2026-12-31T23:59:00+00:00", param_hint=option) from None


def _expiry(text: str | None) -> float | datetime | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return _moment(text, "--expires")


class Wait(Duration):
    """A duration; a task's name, which Celery has after ``-t``, is the default one."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return seconds."""
        is_task = isinstance(value, str) and not value[:1].isdigit() and "." in value
        return super().convert("10s" if is_task else value, param, ctx)


@click.command(context_settings=_SETTINGS)
@click.argument("task_id", metavar="ID")
@place_options
@click.option("--traceback", is_flag=True, help="Show the traceback of a failure.")
@click.option("--timeout", "-t", type=Wait(), default="10s", show_default=True, help="Time to wait for the end.")
@click.option("--task", metavar="NAME", hidden=True, help="Accepted for Celery's sake.")
@click.option("--json", "-j", "as_json", is_flag=True, help="JSON: id, state, result, traceback.")
def result(
    *,
    task_id: str,
    app_name: str | None,
    config_file: str | None,
    broker: str | None,
    result_backend: str | None,
    traceback: bool,
    timeout: float,
    task: str | None,  # noqa: ARG001 - Celery's tool has it
    as_json: bool,
) -> None:
    """Show the result of a task. Exit code 1 when it failed, or has not ended in time."""
    found = client_app(app_name, broker, config_file, result_backend).AsyncResult(task_id)
    try:
        found.get(timeout=timeout, propagate=False)
    except TimeoutError:
        raise click.ClickException(
            f"{task_id} has not ended within {timeout:g} s; its state is {found.state}"
        ) from None
    if as_json:
        value = found.result if found.successful() else str(found.result)
        print_json({"id": task_id, "state": found.state, "result": value, "traceback": found.traceback})
    elif traceback and found.traceback:
        print_text(found.traceback)
    else:
        print_text(found.result if isinstance(found.result, str) else repr(found.result))
    if not found.successful():
        raise click.exceptions.Exit(1)


@click.command(context_settings=_SETTINGS)
@place_options
@click.option("--queues", "-Q", metavar="A,B", help="Queues to purge; default: those of the app.")
@click.option("--exclude-queues", "-X", metavar="A,B", default="", help="Queues to leave alone.")
@click.option("--yes", "--force", "-y", "-f", "yes", is_flag=True, help="Do not ask.")
def purge(
    *,
    app_name: str | None,
    config_file: str | None,
    broker: str | None,
    result_backend: str | None,
    queues: str | None,
    exclude_queues: str,
    yes: bool,
) -> None:
    """Delete all messages that wait in queues. They cannot be restored."""
    app = client_app(app_name, broker, config_file, result_backend)
    named = listed(queues) or list(Queues(app.conf).names) or [str(app.conf.task_default_queue)]
    chosen = [name for name in named if name not in listed(exclude_queues)]
    if not chosen:
        raise click.UsageError("no queue is left to purge")
    confirm(f"Delete all messages in {', '.join(chosen)}? They cannot be restored.", yes=yes)
    count = app.control.purge(queues=chosen)
    print_line(f"Purged {plural(count, 'message')} from {plural(len(chosen), 'queue')}")


def listed(text: str | None) -> list[str]:
    """Names in a list that is written with commas."""
    return [name for part in (text or "").split(",") if (name := part.strip())]


@click.command(context_settings=_SETTINGS)
@place_options
def report(*, app_name: str | None, config_file: str | None, broker: str | None, result_backend: str | None) -> None:
    """Show versions and settings, for a bug report. Passwords are hidden."""
    app = client_app(app_name, broker, config_file, result_backend)
    print_lines(bug_report(app))


def bug_report(app: App) -> str:
    """Return versions of software and the settings of an app as text, without secrets."""
    backend = first_url(app.conf.result_backend)
    lines = [
        f"software -> beatd:{beatd.__version__} py:{platform.python_version()} ({sys.executable})",
        f"platform -> {platform.platform()}",
        f"broker -> {shown(first_url(app.conf.broker_url))}",
        f"results -> {shown(backend) if backend and '://' in backend else 'disabled'}",
        "",
        app.conf.humanize(censored=True),
    ]
    return "\n".join(lines)


@click.command(context_settings=_SETTINGS)
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
    with held(Path(pidfile).expanduser()) if pidfile else nullcontext():
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
    at = _at(event.get("timestamp"))
    hidden = {"type", "hostname", "timestamp", "utcoffset", "pid", "clock", "uuid", "name", "local_received"}
    told = " ".join(f"{key}={value}" for key, value in redacted(dict(event)).items() if key not in hidden)
    about = f" {event.get('name') or ''}({event['uuid']})" if "uuid" in event else ""
    print_line(f"{event.get('hostname', '-')} [{at}] {event['type'].replace('-', ' ')}{about} {told}".rstrip())


def _at(stamp: Any) -> str:
    """The moment of an event; a worker may have written anything, also no number or NaN."""
    try:
        return utc_text(int(stamp * 1000))
    except (TypeError, ValueError, OverflowError):
        return "-"


@click.command(context_settings=_SETTINGS)
@place_options
@click.option("--ipython", "-I", "interpreter", flag_value="ipython", help="Use IPython.")
@click.option("--bpython", "-B", "interpreter", flag_value="bpython", help="Use bpython.")
@click.option(
    "--python", "-P", "interpreter", flag_value="python", help="Use Python's own. Default: IPython, if it is there."
)
@click.option("--without-tasks", "-T", is_flag=True, help="Do not give the shell the tasks by name.")
@click.option("--eventlet", "--gevent", "patched", is_flag=True, help="No effect: nothing is monkey-patched.")
def shell(
    *,
    app_name: str | None,
    config_file: str | None,
    broker: str | None,
    result_backend: str | None,
    interpreter: str | None,
    without_tasks: bool,
    patched: bool,
) -> None:
    """Start a Python shell with app, its tasks by name, and Task, signature, group, chain, chord, AsyncResult, …"""
    from beatd import Task, canvas  # noqa: PLC0415

    if patched:
        print_line("--eventlet and --gevent have no effect: nothing is monkey-patched.", err=True)
    app = client_app(app_name, broker, config_file, result_backend)
    app.import_tasks()
    names: dict[str, Any] = {"app": app, "celery": app, "Task": Task, "subtask": canvas.signature}
    names |= {name: getattr(canvas, name) for name in _OF_CANVAS}
    names |= {name: getattr(app, name) for name in ("AsyncResult", "GroupResult", "ResultSet")}
    if not without_tasks:
        own = (name for name in app.tasks if not name.startswith("celery."))
        names |= {name.rpartition(".")[2]: app.tasks[name] for name in own}
    kind = interpreter or ("ipython" if find_spec("IPython") else "python")
    if kind != "python" and not find_spec(_PACKAGES[kind]):
        raise click.ClickException(f"there is no {kind} here: pip install {kind}")
    if kind == "ipython":
        import_module("IPython").start_ipython(argv=[], user_ns=names)
    elif kind == "bpython":
        import_module("bpython").embed(names)
    else:
        code.interact(banner=f"beatd {beatd.__version__}: app is {app.main!r}", local=names, exitmsg="")


_OF_CANVAS = ("signature", "group", "chain", "chord", "chunks", "xmap", "xstarmap")
_PACKAGES = {"ipython": "IPython", "bpython": "bpython"}
