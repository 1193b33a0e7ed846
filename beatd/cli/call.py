"""``beatd call``, ``result``, ``purge`` and ``report``: commands of Celery's for the tasks and queues of an app."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from typing import Any

import click

from beatd.app.app import App
from beatd.cli.inspect_ import app_of
from beatd.cli.output import Duration, confirm, plural, print_json, print_line, read_json
from beatd.exceptions import TimeoutError as WaitTimeout
from beatd.states import EXCEPTION_STATES

_SETTINGS = {"help_option_names": ["-h", "--help"]}
_APP = click.option("--app", "-A", "app_name", envvar="BEATD_APP", metavar="MODULE[:APP]", help="App of the tasks.")
_BROKER = click.option("--broker", "-b", envvar="BEATD_BROKER_URL", metavar="URL", help="Broker.")
_RESULTS = click.option("--result-backend", envvar="BEATD_RESULT_BACKEND", metavar="URL", help="Result backend.")


def _place(function: Callable[..., None]) -> Callable[..., None]:
    """Options that name the app or its servers."""
    file = click.option("--config", "config_file", metavar="FILE", help="Take the broker of beat.toml.")
    return _APP(_BROKER(file(function)))


def _app(app_name: str | None, broker: str | None, config_file: str | None, results: str | None = None) -> App:
    app = app_of(broker=broker, app_name=app_name, config_file=config_file)
    if results:
        app.conf.result_backend = results
    return app


@click.command(context_settings=_SETTINGS)
@click.argument("task")
@click.option("--args", "-a", "args_text", default="[]", metavar="JSON", help="Arguments, a list.")
@click.option("--kwargs", "-k", "kwargs_text", default="{}", metavar="JSON", help="Keyword arguments, an object.")
@click.option("--eta", metavar="TIME", help="Run at TIME: ISO 8601.")
@click.option("--countdown", type=float, metavar="SECONDS", help="Run after SECONDS.")
@click.option("--expires", metavar="SECONDS|TIME", help="Do not run after that.")
@click.option("--serializer", default="json", show_default=True, metavar="NAME", help="Serializer of the message.")
@click.option("--exchange", metavar="NAME", help="Exchange of the message.")
@click.option("--routing-key", metavar="KEY", help="Routing key of the message.")
@click.option("--queue", "-Q", metavar="NAME", help="Queue of the message.")
@_place
def call(
    *,
    task: str,
    args_text: str,
    kwargs_text: str,
    app_name: str | None,
    broker: str | None,
    config_file: str | None,
    expires: str | None,
    **options: Any,
) -> None:
    """Send TASK by name and print its id. The task need not be known here."""
    args = read_json(args_text, "--args", list)
    kwargs = read_json(kwargs_text, "--kwargs", dict)
    given = {name: value for name, value in options.items() if value is not None}
    if expires is not None:
        given["expires"] = _seconds_or_text(expires)
    app = _app(app_name, broker, config_file)
    try:
        sent = app.send_task(task, args, kwargs, **given)
    except (TypeError, ValueError) as error:
        raise click.UsageError(str(error)) from None
    finally:
        app.close()
    print_line(sent.id)


def _seconds_or_text(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


@click.command(context_settings=_SETTINGS)
@click.argument("task_id")
@click.option("--task", "-t", metavar="NAME", help="No effect: the id says it all.")
@click.option("--traceback", is_flag=True, help="Print the traceback in place of the result.")
@click.option("--timeout", type=Duration(), default="0s", show_default=True, help="Wait so long for the end.")
@click.option("--json", "-j", "as_json", is_flag=True, help="State, result and traceback as JSON.")
@_RESULTS
@_place
def result(
    *,
    task_id: str,
    task: str | None,  # noqa: ARG001 - Celery's
    traceback: bool,
    timeout: float,
    as_json: bool,
    app_name: str | None,
    broker: str | None,
    config_file: str | None,
    result_backend: str | None,
) -> None:
    """Print the result of the task TASK_ID. Exit code 1 when it has failed, or has no result yet."""
    app = _app(app_name, broker, config_file, result_backend)
    handle = app.AsyncResult(task_id)
    if timeout:
        with contextlib.suppress(WaitTimeout):  # the state says it
            handle.get(timeout=timeout, propagate=False)
    state, value, text = handle.state, handle.result, handle.traceback
    app.close()
    if as_json:
        shown = repr(value) if isinstance(value, BaseException) else value
        print_json({"id": task_id, "state": state, "result": shown, "traceback": text})
    elif traceback:
        click.echo((text or "no traceback").rstrip())
    elif state == "SUCCESS":
        click.echo(value if isinstance(value, str) else _text(value))
    else:
        detail = "" if value is None else f": {value!r}"
        unknown = " (not started, or the id is unknown)" if state == "PENDING" else ""
        print_line(f"{state}{detail}{unknown}", err=True)
    if state != "SUCCESS" and not (traceback and state in EXCEPTION_STATES):
        raise click.exceptions.Exit(1)


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=repr)


@click.command(context_settings=_SETTINGS)
@click.option("--force", "-f", "--yes", "-y", is_flag=True, help="Do not ask.")
@click.option("--queues", "-Q", metavar="A,B", help="Only these queues; default: those of the app.")
@click.option("--exclude-queues", "-X", metavar="A,B", help="All queues of the app but these.")
@_place
def purge(
    *,
    force: bool,
    queues: str | None,
    exclude_queues: str | None,
    app_name: str | None,
    broker: str | None,
    config_file: str | None,
) -> None:
    """Delete all messages that wait in the queues. They cannot be restored."""
    app = _app(app_name, broker, config_file)
    names = app.control.queue_names()
    names = tuple(_names(queues)) if queues else names
    names = tuple(name for name in names if name not in _names(exclude_queues))
    if not names:
        raise click.UsageError("no queue is left to purge")
    confirm(f"Delete all messages in {', '.join(names)}? They cannot be restored.", yes=force)
    print_line(f"Deleted {plural(app.control.purge(queues=names), 'message')} in {', '.join(names)}.")


def _names(text: str | None) -> list[str]:
    return [name for part in (text or "").split(",") if (name := part.strip())]


@click.command(context_settings=_SETTINGS)
@_place
def report(*, app_name: str | None, broker: str | None, config_file: str | None) -> None:
    """Print versions, platform and settings of an app for a bug report; passwords are hidden."""
    for line in _app(app_name, broker, config_file).bugreport().rstrip().split("\n"):
        print_line(line)


@click.command(context_settings=_SETTINGS)
@_place
def shell(*, app_name: str | None, broker: str | None, config_file: str | None) -> None:
    """Open a Python shell with the app, its tasks and canvas: app, add, chain, group, chord …"""
    import code  # noqa: PLC0415 - one command needs them

    from beatd import canvas  # noqa: PLC0415
    from beatd.result import AsyncResult  # noqa: PLC0415

    app = _app(app_name, broker, config_file)
    app.finalize()
    names: dict[str, Any] = {name: getattr(canvas, name) for name in canvas.__all__}
    names |= {"AsyncResult": AsyncResult, "app": app, "celery": app}
    names |= {name.rpartition(".")[2]: task for name, task in app.tasks.items() if not name.startswith("celery.")}
    code.interact(banner=f"beatd shell: {', '.join(sorted(names))}", local=names, exitmsg="")
