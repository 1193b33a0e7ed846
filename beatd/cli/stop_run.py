"""``beatd stop-run``: end a run that runs, or keep one that waits from running."""

from __future__ import annotations

import click

from beatd.cli.app_client import client_app
from beatd.cli.errors import add_to_error
from beatd.cli.installation import installation
from beatd.cli.output import Duration, plural, print_json, print_line
from beatd.cli.run_info import find_run
from beatd.client.outcomes import RunDetail

_OPEN = frozenset({"queued", "running", "retry", "lost"})
"""Outcomes of runs that may still run; the worker of a lost one may only be cut off."""


@click.command("stop-run")
@click.argument("run_id", metavar="ID")
@click.option("--signal", default="SIGTERM", show_default=True, help="Sent to the process of a prefork worker.")
@click.option(
    "--timeout", "-t", type=Duration(0.1), default="2s", show_default=True, help="Time for workers to answer."
)
@click.option("--config", "-c", "config_file", metavar="FILE", help="Default: $BEATD_CONFIG, ./beat.toml.")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of text.")
def stop_run(*, run_id: str, signal: str, timeout: float, config_file: str | None, as_json: bool) -> None:
    """End the run ID: revoke it, and terminate it where it runs.

    ID is the run id, or its beginning as "beatd history" shows it. A run that waits is skipped by the worker that takes
    it. Exit code 1 when there is no such run, it has ended, or no worker answers.
    """
    with installation(config_file) as place:
        run = find_run(place, run_id)
        if run.word not in _OPEN:
            raise click.ClickException(f"run {run.record.run_id} of {run.record.entry} has ended: {run.word}")
        add_to_error({"run_id": run.record.run_id, "entry": run.record.entry, "was": run.word})
        replies = client_app(None, None, config_file).control.terminate(
            str(run.record.run_id), signal=signal, reply=True, timeout=timeout
        )
        place.audit("stop-run", [str(run.record.run_id)], before=run.word, detail=f"entry {run.record.entry}")
    workers = sorted(name for reply in replies or () for name in reply)
    if as_json:
        print_json({"run_id": run.record.run_id, "entry": run.record.entry, "was": run.word, "workers": workers})
    else:
        print_line(_run_text(run, workers))
    if not workers:
        raise click.exceptions.Exit(1)


def _run_text(run: RunDetail, workers: list[str]) -> str:
    told = f"run {run.record.run_id} of {run.record.entry}"
    if not workers:
        return f"No worker has answered; workers of beatd skip {told} when they take it."
    at_work = f"; it ran on {run.started.worker}" if run.started else "; it had not started"
    return f"Revoked {told}{at_work}; {plural(len(workers), 'worker')} told"
