"""``beatd step-down``: a leader hands its shards over, and leaves them to others for a while."""

from __future__ import annotations

import threading

import click

from beatd.beat.shard_assignment import eligible_daemons
from beatd.cli.errors import add_to_error
from beatd.cli.installation import Installation, hint, installation
from beatd.cli.output import Duration, print_json, print_line
from beatd.clock import SystemClock
from beatd.schedules import duration_text
from beatd.store.daemon_commands import DaemonCommand, DaemonCommands
from beatd.store.daemon_registry import FleetView
from beatd.timestamps import span_text

_LOOK_S = 0.05


@click.command("step-down")
@click.option("--daemon", metavar="ID", help="The daemon to step down; a prefix of its id is enough.")
@click.option("--shard", type=click.IntRange(0), metavar="N", help="The leader of this shard.")
@click.option("--for", "rest", type=Duration(), default="1m", show_default=True, help="Time without leadership.")
@click.option("--timeout", type=Duration(0.1, 55), default="15s", show_default=True, help="Time to wait.")
@click.option("--config", "-c", "config_file", metavar="FILE", help="Default: $BEATD_CONFIG, ./beat.toml.")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of text.")
def step_down(
    *, daemon: str | None, shard: int | None, rest: float, timeout: float, config_file: str | None, as_json: bool
) -> None:
    """Make a leader hand over its shards to other daemons, and wait until they lead.

    It then leads nothing for the time of --for, unless it is the only daemon alive. No run is lost. Exit code 1 when
    nobody leads, nobody could take over, or the handover does not complete in time.
    """
    rest_ms = int(rest * 1000)
    with installation(config_file) as place:
        fleet = place.fleet()
        leader = _leader(fleet, daemon, shard)
        shards = {number for number, holder in fleet.leases.items() if holder.daemon_id == leader}
        _refuse_if_alone(fleet, leader)
        clock = SystemClock()
        began = clock.monotonic()
        DaemonCommands(place.client, place.keys).send(DaemonCommand(what="step_down", daemon=leader, rest_ms=rest_ms))
        add_to_error({"daemon": leader})
        place.audit("step-down", [leader], after={"shards": sorted(shards), "for": duration_text(rest_ms)})
        heirs = _heirs(place, leader, shards, clock, began + timeout)
        took_ms = int((clock.monotonic() - began) * 1000)
    if len(heirs) < len(shards):
        raise click.ClickException(f"{leader} still leads, or nobody does, after {timeout:g} s; see beatd status")
    if as_json:
        print_json({"daemon": leader, "leaders": {str(number): heirs[number] for number in sorted(heirs)}})
        return
    print_line(f"{leader} stepped down; it leads nothing for {span_text(rest_ms)}")
    for number in sorted(heirs):
        whole = len(heirs) == 1 and number == 0
        print_line(f"{heirs[number]} leads{'' if whole else f' shard {number}'} now, after {span_text(took_ms)}")


def _leader(fleet: FleetView, daemon: str | None, shard: int | None) -> str:
    """Return the leading daemon that is meant."""
    if daemon is not None and shard is not None:
        raise click.UsageError("give --daemon or --shard, not both")
    if not fleet.alive:
        raise click.ClickException("no daemon is alive")
    leaders = sorted({holder.daemon_id for holder in fleet.leases.values()} & fleet.alive.keys())
    if shard is not None:
        if shard not in fleet.leases:
            raise click.ClickException(f"nobody leads shard {shard}")
        return fleet.leases[shard].daemon_id
    if daemon is not None:
        meant = [each for each in fleet.alive if each.startswith(daemon)]
        if len(meant) != 1:
            problem = "several daemons have ids that begin with" if meant else "there is no daemon"
            raise click.UsageError(f'{problem} "{daemon}"{"" if meant else hint(daemon, fleet.alive)}')
        if meant[0] not in leaders:
            raise click.ClickException(f"{meant[0]} leads nothing")
        return meant[0]
    if not leaders:
        raise click.ClickException("nobody leads")
    if leaders[1:]:
        raise click.UsageError(f"several daemons lead: name one with --daemon or --shard: {', '.join(leaders)}")
    return leaders[0]


def _refuse_if_alone(fleet: FleetView, leader: str) -> None:
    others = [each for each in fleet.alive.values() if each.id != leader]
    if not others:
        raise click.ClickException(f"{leader} is the only daemon that is alive: nobody could take over")
    fit = eligible_daemons([*others, fleet.alive[leader]]) if leader in fleet.alive else others
    if all(each.id == leader for each in fit):
        raise click.ClickException(f"no other daemon is fit to lead; see beatd status: {leader} goes on")


def _heirs(place: Installation, leader: str, shards: set[int], clock: SystemClock, until: float) -> dict[int, str]:
    """Return the new leader of each shard, as soon as all have one, or when the time is over."""
    never = threading.Event()
    while True:
        leases = place.fleet().leases
        heirs = {number: leases[number].daemon_id for number in shards & leases.keys()}
        heirs = {number: heir for number, heir in heirs.items() if heir != leader}
        if len(heirs) == len(shards) or clock.monotonic() >= until:
            return heirs
        clock.wait(never, _LOOK_S)
