"""``beatd result``: the result of a task."""

from __future__ import annotations

from typing import Any

import click

from beatd.cli.app_client import SETTINGS, client_app, place_options
from beatd.cli.output import Duration, print_json, print_text
from beatd.exceptions import TimeoutError  # noqa: A004 - beatd's


class Wait(Duration):
    """A duration; a task's name, which Celery has after ``-t``, is the default one."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return seconds."""
        is_task = isinstance(value, str) and not value[:1].isdigit() and "." in value
        return super().convert("10s" if is_task else value, param, ctx)


@click.command(context_settings=SETTINGS)
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
