"""``beatd reload``: have all daemons read their files again, and see what each says."""

from __future__ import annotations

import threading
from typing import Any

import click

from beatd.cli.errors import add_to_error
from beatd.cli.installation import installation
from beatd.cli.output import Duration, plural, print_json, print_line
from beatd.clock import SystemClock
from beatd.store.daemon_commands import CommandReply, DaemonCommand, DaemonCommands

_LOOK_S = 0.05


@click.command()
@click.option("--timeout", type=Duration(0.1, 55), default="30s", show_default=True, help="Time to wait.")
@click.option("--config", "-c", "config_file", metavar="FILE", help="Default: $BEATD_CONFIG, ./beat.toml.")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of text.")
def reload(timeout: float, config_file: str | None, as_json: bool) -> None:
    """Reload configuration and app on all daemons, and wait for each answer.

    Exit code 1 when no daemon is alive, one does not answer in time, or one finds errors in its files.
    """
    with installation(config_file) as place:
        alive = sorted(place.fleet().alive)
        if not alive:
            raise click.ClickException("no daemon is alive")
        orders = DaemonCommands(place.client, place.keys)
        answers = _answers(orders, orders.send(DaemonCommand(what="reload")), alive, timeout)
        place.audit("reload", alive, after={each: "ok" if one.ok else "errors" for each, one in answers.items()})
    if as_json:
        print_json({daemon: _facts(answers.get(daemon)) for daemon in alive})
    else:
        for daemon in alive:
            _print(daemon, answers.get(daemon), timeout)
        if len({answer.digest for answer in answers.values()}) > 1:
            click.echo("! the daemons have different schedules")
    if len(answers) < len(alive) or not all(answer.ok for answer in answers.values()):
        raise click.exceptions.Exit(1)


def _answers(orders: DaemonCommands, order_id: str, alive: list[str], timeout: float) -> dict[str, CommandReply]:
    """Collect the answers of the daemons, until all have answered or the time is over."""
    clock, never = SystemClock(), threading.Event()
    until = clock.monotonic() + timeout
    while True:
        answers = {daemon: answer for daemon, answer in orders.answers(order_id).items() if daemon in alive}
        add_to_error({daemon: _facts(answers.get(daemon)) for daemon in alive})
        if len(answers) == len(alive) or clock.monotonic() >= until:
            return answers
        clock.wait(never, _LOOK_S)


def _print(daemon: str, answer: CommandReply | None, timeout: float) -> None:
    if answer is None:
        print_line(f"{daemon}: no answer within {timeout:g} s")
    elif answer.ok:
        print_line(f"{daemon}: {plural(answer.entries, 'entry')}, schedule {answer.digest[:8]}")
    else:
        count = len(answer.faults) + answer.more_faults
        print_line(f"{daemon}: {plural(count, 'error')}; it keeps the last valid schedule ({answer.digest[:8]})")
        for fault in answer.faults:
            print_line(f"  {fault}")
        if answer.more_faults:
            print_line(f"  and {answer.more_faults:,} more")


def _facts(answer: CommandReply | None) -> dict[str, Any] | None:
    if answer is None:
        return None
    count = len(answer.faults) + answer.more_faults
    facts = {"ok": answer.ok, "digest": answer.digest, "entries": answer.entries}
    return {**facts, "faults": answer.faults, "faults_in_all": count}
