"""The command line: one file per command, each imported only when it is used.

The promise: people get tables that fit 80 columns and do without colour, programs get ``--json`` on standard output,
and the exit code says what happened: 0 done, 1 failed, 2 wrong use or a wrong file. A user's mistake is answered in
words, never with a traceback, and with ``--json`` also with a document that has ``error``.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from importlib import import_module
from importlib.util import find_spec
from typing import Any, NamedTuple, cast

import click

import beatd
from beatd.cli.errors import WORDS, report_error
from beatd.cli.global_options import GlobalOptions


class CommandSpec(NamedTuple):
    """Place of a command, and its line in ``beatd --help``, which so imports none of them."""

    module: str
    attribute: str
    summary: str


COMMANDS: Mapping[str, CommandSpec] = {
    "run": CommandSpec("beatd.cli.run", "run", "Run the daemon."),
    "worker": CommandSpec("beatd.cli.worker", "worker", "Run the bundled worker."),
    "dev": CommandSpec("beatd.cli.dev", "dev", "Run store, daemon, worker and status page in one terminal."),
    "check": CommandSpec("beatd.cli.check", "check", "Check the file; report all errors with their lines."),
    "next": CommandSpec("beatd.cli.next", "next_runs", "Show when entries run next."),
    "why": CommandSpec("beatd.cli.why", "why", "Explain why an entry runs, or not, at a time."),
    "diff": CommandSpec("beatd.cli.diff", "diff", "Show what a file would change."),
    "compare": CommandSpec("beatd.cli.compare", "compare", "Compare with what celery beat does, before the move."),
    "explain": CommandSpec("beatd.cli.explain", "explain", "Explain a schedule: words, next runs, warnings."),
    "simulate": CommandSpec("beatd.cli.simulate", "simulate_runs", "Simulate a future time window."),
    "list": CommandSpec("beatd.cli.list_entries", "list_entries", "List the entries in force, with last and next run."),
    "status": CommandSpec("beatd.cli.status", "status", "Show daemons, leaders, workers and problems."),
    "top": CommandSpec("beatd.cli.top", "top", "Watch entries, runs, workers and queues, and act by keys."),
    "doctor": CommandSpec("beatd.cli.doctor", "doctor", "Look at everything that beatd needs; say what to fix."),
    "healthcheck": CommandSpec("beatd.cli.healthcheck", "healthcheck", "Ask one process for its health."),
    "history": CommandSpec("beatd.cli.history", "history", "Show past runs with lateness, outcome and duration."),
    "run-info": CommandSpec("beatd.cli.run_info", "run_info", "Show one run with attempts, error and output."),
    "describe": CommandSpec("beatd.cli.describe", "describe", "Show all that is known of one entry."),
    "trigger": CommandSpec("beatd.cli.trigger", "trigger", "Send a run of an entry now."),
    "backfill": CommandSpec("beatd.cli.backfill", "backfill", "Send the runs of a past time window."),
    "pause": CommandSpec("beatd.cli.pause", "pause", "Pause entries, for some time or until resumed."),
    "resume": CommandSpec("beatd.cli.pause", "resume", "Resume paused entries."),
    "add": CommandSpec("beatd.cli.add", "add", "Add or replace an entry in the state store."),
    "remove": CommandSpec("beatd.cli.add", "remove", "Remove an entry from the state store."),
    "reload": CommandSpec("beatd.cli.reload", "reload", "Reload configuration on all daemons."),
    "step-down": CommandSpec("beatd.cli.step_down", "step_down", "Make a leader hand over its shards."),
    "stop-run": CommandSpec("beatd.cli.stop_run", "stop_run", "End a run, or keep it from running."),
    "advise": CommandSpec("beatd.cli.advise", "advise_spread", "Show how to spread runs that leave together."),
    "audit": CommandSpec("beatd.cli.audit", "audit", "Show who changed what, and when."),
    "notify": CommandSpec("beatd.cli.notify", "notify", "Try a notification target."),
    "tutorial": CommandSpec("beatd.cli.tutorial", "tutorial", "Do the tutorial in this terminal, step by step."),
    "init": CommandSpec("beatd.cli.init", "init", "Write a working example file."),
    "import": CommandSpec("beatd.cli.import_", "import_", "Convert another scheduler's schedule to TOML."),
    "export": CommandSpec("beatd.cli.export", "export", "Write the schedule in force as TOML."),
    "schema": CommandSpec("beatd.cli.schema", "schema", "Print the JSON Schema of the file."),
    "inspect": CommandSpec("beatd.cli.inspect_", "inspect", "Query workers."),
    "control": CommandSpec("beatd.cli.inspect_", "control", "Control workers."),
    "call": CommandSpec("beatd.cli.call", "call", "Send a task by name."),
    "result": CommandSpec("beatd.cli.result", "result", "Show the result of a task."),
    "purge": CommandSpec("beatd.cli.purge", "purge", "Delete all messages that wait in queues."),
    "graph": CommandSpec("beatd.cli.graph", "graph", "Draw workers, the schedule, or the worker's parts."),
    "events": CommandSpec("beatd.cli.events", "events", "Watch the events of workers, live or line by line."),
    "report": CommandSpec("beatd.cli.report", "report", "Show versions and settings, for a bug report."),
    "shell": CommandSpec("beatd.cli.shell", "shell", "Start a Python shell with the app and its tasks."),
    "migrate": CommandSpec("beatd.cli.migrate", "migrate", "Move from Celery, or to another broker."),
    "multi": CommandSpec("beatd.cli.multi", "multi", "Manage several workers in the background."),
    "dead-letters": CommandSpec("beatd.cli.dead_letters", "dead_letters", "Show, requeue and purge dead letters."),
    "web": CommandSpec("beatd.cli.web", "web", "Serve the status page, JSON, metrics and health."),
    "completion": CommandSpec("beatd.cli.completion", "completion", "Print the completion script of a shell."),
    "service": CommandSpec("beatd.cli.service", "service", "Install, remove and inspect the systemd units."),
}


GROUPS: Mapping[str, tuple[str, ...]] = {
    "Run": ("run", "dev", "web", "service"),
    "Look": (
        "status",
        "top",
        "list",
        "describe",
        "history",
        "run-info",
        "next",
        "why",
        "audit",
        "explain",
        "simulate",
        "advise",
        "doctor",
        "healthcheck",
    ),
    "Change": ("trigger", "stop-run", "backfill", "pause", "resume", "add", "remove", "reload", "step-down", "notify"),
    "Workers": ("worker", "inspect", "control", "events", "graph", "multi", "dead-letters", "purge"),
    "App": ("call", "result", "report", "shell"),
    "Files": ("tutorial", "init", "check", "diff", "compare", "import", "migrate", "export", "schema", "completion"),
}
"""Groups of the help; a command that is in none is under "Other"."""

ALIASES = {"beat": "run"}
"""Celery's names of commands."""


UNSUPPORTED = {
    "amqp": "the tools of the broker do it (rabbitmqadmin, redis-cli); see also beatd purge, beatd list bindings",
    "flower": "start it as a command of Celery: celery --broker URL flower; or use beatd web, which shows workers, too",
    "help": "beatd --help lists the commands, and each of them has --help",
    "logtool": "--log-format json gives each line an event and fields for programs",
    "upgrade": "beatd migrate celery names what has to be changed; old names of settings are read",
}
"""Commands of Celery that beatd has not, each with what to do instead."""


class Commands(click.Group):
    """The group of all commands. ``beatd --config F`` is ``beatd run --config F``."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return [name for name, place in COMMANDS.items() if find_spec(place.module) is not None]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.list_commands(ctx):
            return None
        place = COMMANDS[cmd_name]
        with _no_collections():
            module = import_module(place.module)
        return cast(click.Command, getattr(module, place.attribute))

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        names = self.list_commands(ctx)
        grouped = {name for group in GROUPS.values() for name in group}
        others = tuple(name for name in names if name not in grouped)
        for group, members in {**GROUPS, "Other": others}.items():
            if shown := [(name, COMMANDS[name].summary) for name in members if name in names]:
                with formatter.section(group):
                    formatter.write_dl(shown, col_max=14)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        known = self.list_commands(ctx)
        if args[0] in UNSUPPORTED:
            ctx.fail(f'no command "{args[0]}": {UNSUPPORTED[args[0]]}')
        if args[0] not in known:
            near = get_close_matches(args[0], known, n=1)
            ctx.fail(f'no command "{args[0]}"' + (f'; did you mean "{near[0]}"?' if near else ""))
        return super().resolve_command(ctx, args)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta[WORDS] = list(args)
        try:
            args = GlobalOptions(ctx, lambda name: self.get_command(ctx, name), ALIASES).applied(args, "run")
            own = {option for parameter in self.get_params(ctx) for option in parameter.opts}
            if args and args[0].startswith("-") and args[0].partition("=")[0] not in own:
                args = ["run", *args]
            return super().parse_args(ctx, args)
        except click.ClickException as error:
            raise report_error(error, ctx) from None

    def main(self, *args: Any, **extra: Any) -> Any:
        _open_standard_streams()
        return super().main(*args, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            done = super().invoke(ctx)
            sys.stdout.flush()
        except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - a user is never shown a traceback
            raise report_error(error, ctx) from None
        return done


@contextmanager
def _no_collections() -> Iterator[None]:
    """Keep the collector away from modules: it would walk over them while they are imported, and find no garbage."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def _open_standard_streams() -> None:
    """Open the null device where a standard stream is closed: no file or child process may get 0, 1 or 2."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # it gets the lowest number that is free
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115


def _version(context: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    if wanted:
        click.echo(f"beatd {beatd.__version__}")
        context.exit()


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Show the version.")
def main() -> None:
    """A highly available cron for task queues.

    "beatd --config FILE" is the same as "beatd run --config FILE". --config, --app, --json and --no-color may be given
    before or after the command, and so may these:

    \b
      -b, --broker URL; --result-backend URL   in place of those of an app
      --workdir FOLDER                         change to FOLDER first
      -C, --no-color; -q, --quiet              no colors; no banner and counts
    """
