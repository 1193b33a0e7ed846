"""``beatd status``: daemons, leaders, workers and problems, for people and as JSON."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

import click

from beatd import sources
from beatd.beat.problems import shards_text
from beatd.beat.shard_assignment import why_aside
from beatd.cli.errors import add_to_error
from beatd.cli.outage import with_since, without_store
from beatd.cli.output import Duration, plural, print_folded, print_json, print_line, print_problem, print_table
from beatd.cli.problems import problems
from beatd.cli.status_document import ENTRIES_TOLD, facts
from beatd.cli.status_workers import WorkerLook, print_workers, workers_document
from beatd.client.moments import local_text
from beatd.client.outcomes import OutcomeReader
from beatd.config.loader import load_settings
from beatd.exceptions import StoreError, StoreRefused
from beatd.model import Settings
from beatd.planning.problems import Problem
from beatd.state_store import running_store
from beatd.store import server_check
from beatd.store.client import connect, is_cluster, place_of
from beatd.store.daemon_registry import FleetView, Member, Registry, Status
from beatd.store.held_back import HeldBack, HeldBackEntry
from beatd.store.keys import Keys
from beatd.store.outcomes import Outcomes
from beatd.store.pipeline import joint_reads
from beatd.store.rights import state_of
from beatd.store.run_record import RunRecord
from beatd.store.runtime_entries import Pause, Runtime
from beatd.store.undelivered import Undelivered, Unreached
from beatd.timestamps import span_text

if TYPE_CHECKING:
    import redis

_ERRORS_TOLD = 100
"""Entries that fail of which the last error is read."""
_OF_APP = {"app_name": "APP", "broker": "BROKER_URL"}
"""Options of beatd inspect, and the variables in which -A and -b put them for other commands."""
_PAUSES_SHOWN, _PAUSES_TOLD = 10, 1_000
"""Paused entries that are shown one by one, and in the JSON document."""


class Changes(NamedTuple):
    """Changes in the state store over the files: entries, and pauses; ``paused`` has the first of these, by name."""

    revision: int
    entries: int
    pauses: int
    paused: dict[str, Pause]


class Failing(NamedTuple):
    """An entry whose last run failed: since when (ms), how often in a row, and the last attempt."""

    since_ms: int | None
    failures: int
    error: RunRecord | None


class Overview(NamedTuple):
    """The state of an installation at one moment."""

    place: str
    server: str
    prefix: str
    fleet: FleetView
    outboxes: list[int]
    """Messages in the outbox of each shard."""
    dead_letters: int
    lease_keys: list[str]
    runtime: Changes
    held: dict[str, HeldBackEntry]
    """Held-back entries, the first thousand."""
    held_count: int
    failing: dict[str, Failing]
    """Entries whose last run failed, those that fail longest first; the first hundred have errors."""
    overdue: dict[str, int]
    """Entries of which a run is overdue, and since when (ms)."""
    too_long: dict[str, int]
    """Entries of which a run takes too long, and since when (ms)."""
    undelivered: dict[str, Unreached]
    """Targets and hosts that get no notifications."""
    foreign_keys: list[str]
    """Keys of another type than beatd's, in words."""
    refuses: list[str]
    """Why the state store takes no writes."""
    warnings: list[str]
    """What will soon be wrong with the state store."""

    @property
    def alive(self) -> list[Member]:
        """The daemons that are alive, the oldest first."""
        present = (one for one in self.fleet.daemons.values() if one.alive)
        return sorted(present, key=lambda one: (one.status.started_ms, one.status.id))

    def is_eligible(self, one: Status) -> bool:
        """True if a daemon may lead."""
        return not why_aside(one, [other.status for other in self.alive])

    def led_by(self, daemon_id: str) -> dict[int, int]:
        """The shards that a daemon leads, each with its term."""
        return {shard: one.token for shard, one in sorted(self.fleet.leases.items()) if one.daemon_id == daemon_id}


@click.command()
@click.option("--config", "-c", "config_file", metavar="FILE", help="Default: $BEATD_CONFIG, ./beat.toml.")
@click.option("--check", is_flag=True, help="Exit with 1 for any problem, not only for one that blocks runs.")
@click.option("--json", "-j", "as_json", is_flag=True, help="JSON instead of tables.")
@click.option("--destination", "-d", metavar="A,B", help="Ask these workers alone, as celery status does.")
@click.option("--timeout", "-t", type=Duration(), help="Ask workers alone, for so long, as celery status does.")
@click.pass_context
def status(
    ctx: click.Context,
    *,
    config_file: str | None,
    check: bool,
    as_json: bool,
    destination: str | None,
    timeout: float | None,
) -> None:
    """Show daemons, leaders, workers and problems.

    Exit code 1 when runs are blocked: no daemon is alive, nobody leads a shard, runs are late, the broker or the state
    store refuses them, or the state store cannot be reached.
    """
    if destination or timeout:
        from beatd.cli.inspect_ import inspect  # noqa: PLC0415 - loads the worker's commands

        env = {name: os.environ.get(f"BEATD_{variable}") for name, variable in _OF_APP.items()}
        of_ping = {"command": "ping", "arguments": (), "as_list": False, "config_file": config_file}
        ctx.invoke(inspect, destination=destination, timeout=timeout or 1.0, as_json=as_json, **of_ping, **env)
        return
    file = sources.find(config_file).path
    head = load_settings(file)
    settings = head.settings
    asked = WorkerLook(head, file)
    try:
        seen = look(settings)
    except StoreError as error:
        told = with_since(error, settings)
        add_to_error(without_store(told, settings))
        raise told from None
    workers = asked.seen()
    if as_json:
        print_json(facts(seen) | workers_document(workers))
    else:
        _print(seen, settings)
        print_workers(workers)
        for sign in workers.signs:
            print_problem(sign)
    found = list(problems(seen))
    if any(problem.blocks for problem in found) or (check and (workers.unattended or found)):
        raise click.exceptions.Exit(1)


def look(settings: Settings) -> Overview:
    """Query the state store; raises a :class:`~beatd.exceptions.StoreError`."""
    with connect(running_store(settings), timeout_ms=settings.redis.timeout_ms, name="beatd-status") as client:
        return look_with(client, settings, server_check.foreign_by_entry)


def look_with(client: redis.Redis, settings: Settings, by_entry: server_check.KeyCheck) -> Overview:
    """Query the state store by a client that is kept, as :func:`look` does. ``by_entry`` checks entries' keys."""
    keys = server_check.readable_keys(client, settings.redis.prefix)
    shards = settings.leader.shards
    seen = _overview(client, keys, settings, shards, by_entry)
    running = max([each.shards for each in seen.fleet.alive.values()], default=shards)
    # the daemons may have another file
    return seen if running == shards else _overview(client, keys, settings, running, by_entry)


def _overview(
    client: redis.Redis, keys: Keys, settings: Settings, shards: int, by_entry: server_check.KeyCheck
) -> Overview:
    registry, outcomes = Registry(client, keys), Outcomes(client, keys)
    with joint_reads() as read:
        fleet = read(registry.look, shards=shards)
        sizes = read(registry.sizes, shards=shards)
        facts = read(server_check.facts, client)
        changes = read(_changes, Runtime(client, keys))
        held = read(_held_back, HeldBack(client, keys, shards=shards))
        failing = read(_failing, OutcomeReader(client, keys))
        overdue, too_long = read(outcomes.overdue), read(outcomes.too_long)
        undelivered = read(_undelivered, Undelivered(client, keys))
        foreign_keys = read(server_check.foreign_keys, client, keys, shards=shards, by_entry=by_entry)
    now_ms, known = fleet.result().now_ms, {target.name for target in settings.notify}
    held_count, held_entries = held.result()
    refuses, warnings = state_of(facts.result(), in_cluster=is_cluster(client))
    return Overview(
        place=place_of(client),
        server=server_check.described(facts.result()),
        prefix=settings.redis.prefix,
        fleet=fleet.result(),
        outboxes=sizes.result().outboxes,
        dead_letters=sizes.result().dead_letters,
        lease_keys=[keys.shard(shard).lease for shard in range(shards)],
        runtime=changes.result(),
        held=held_entries,
        held_count=held_count,
        failing=failing.result(),
        overdue=overdue.result(),
        too_long=too_long.result(),
        undelivered={
            name: one
            for name, one in undelivered.result().items()
            if one.is_problem(now_ms) and (":" in name or name in known)  # a target may have left the file
        },
        foreign_keys=foreign_keys.result(),
        refuses=refuses,
        warnings=warnings,
    )


def _held_back(held_back: HeldBack) -> tuple[int, dict[str, HeldBackEntry]]:
    count = held_back.count()
    return count, held_back.all(ENTRIES_TOLD) if count else {}


def _failing(outcomes: OutcomeReader) -> dict[str, Failing]:
    failing = outcomes.failing()
    errors = outcomes.errors(list(islice(failing, _ERRORS_TOLD)))
    return {name: Failing(one.failing_since_ms, one.failures, errors.get(name)) for name, one in failing.items()}


def _undelivered(undelivered: Undelivered) -> dict[str, Unreached]:
    """None of a key of another type, which is among the foreign ones."""
    with suppress(StoreRefused):
        return undelivered.read()
    return {}


def _changes(runtime: Runtime) -> Changes:
    with joint_reads() as read:
        counts, paused = read(runtime.counts), read(list, islice(runtime.pauses(), _PAUSES_TOLD))
    return Changes(*counts.result(), dict(sorted(paused.result())))


def _print(seen: Overview, settings: Settings) -> None:
    found, timezone = list(problems(seen)), settings.timezone
    for problem in found:
        print_problem(local_text(problem.text, timezone), blocks=problem.blocks)
    if found:
        click.echo()
        print_line(f"Health       {_health(found)}")
    print_line(f"State store  {seen.place}, {seen.server}, prefix {seen.prefix}")
    print_line(f"Outbox       {plural(sum(seen.outboxes), 'message')}")
    if len(seen.outboxes) == 1:
        print_line(f"Leader       {_leader(seen)}")
    if len(seen.alive) == 1 and settings.redis.url != "embedded":
        print_line("Standby      none: if this daemon ends, no run is sent until another one starts")
    if seen.dead_letters:
        print_line(f"Dead letters {seen.dead_letters:,}; see beatd dead-letters list")
    if seen.runtime.revision or seen.runtime.entries or seen.runtime.pauses:
        print_line(f"Runtime      {plural(seen.runtime.entries, 'entry')}, revision {seen.runtime.revision:,}")
    for number, line in enumerate(_paused(seen.runtime)):
        print_folded(local_text(f"{'Paused' if number == 0 else '':<12} {line}", timezone), 13)
    if seen.alive:
        click.echo()
        print_table(["daemon", "up", "seen", "entries", "schedule", "role"], (_row(one, seen) for one in seen.alive))
    if len(seen.outboxes) > 1 and (seen.alive or seen.fleet.leases):
        click.echo()
        print_table(["shard", "leader", "term", "outbox"], _shard_rows(seen))


def _health(found: Sequence[Problem]) -> str:
    """Summary of the problems, which may have left the screen."""
    blocking = sum(problem.blocks for problem in found)
    if not blocking:
        return f"runs are sent; {plural(len(found), 'problem')} above"
    first = "the first" if blocking == 1 else f"the first {blocking}"
    return f"runs are blocked by {first} of {plural(len(found), 'problem')} above"


def _paused(runtime: Changes) -> Iterator[str]:
    """The paused entries, each with time, user and reason."""
    for name, pause in islice(runtime.paused.items(), _PAUSES_SHOWN):
        yield f"{name}{pause.note.removeprefix('paused')}"
    if runtime.pauses > _PAUSES_SHOWN:
        yield f"and {plural(runtime.pauses - _PAUSES_SHOWN, 'entry')} more"


def _leader(seen: Overview) -> str:
    holder = seen.fleet.leases.get(0)
    if holder is None:
        return "nobody"
    return (
        "nobody: the key of its lease is not beatd's"
        if holder.is_foreign
        else f"{holder.daemon_id}, term {holder.token}"
    )


def _row(one: Member, seen: Overview) -> list[str]:
    each = one.status
    up = span_text(max(seen.fleet.now_ms - each.started_ms, 0))
    heard = f"{span_text(one.age_ms)} ago"
    led = seen.led_by(each.id)
    if led:
        role = f"leads {shards_text(list(led))}" if len(seen.outboxes) > 1 else f"leads, term {led[0]}"
    else:
        role = "standby" if seen.is_eligible(each) else "not eligible"
    return [each.id, up, heard, f"{each.entries + each.runtime:,}", each.digest[:8], role]


def _shard_rows(seen: Overview) -> Iterator[list[str]]:
    for shard, waiting in enumerate(seen.outboxes):
        holder = seen.fleet.leases.get(shard)
        leader = [holder.daemon_id, str(holder.token)] if holder and not holder.is_foreign else ["nobody", ""]
        if shard in seen.fleet.away:
            leader = ["unknown: its node is away", ""]
        yield [str(shard), *leader, f"{waiting:,}"]
