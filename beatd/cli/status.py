"""``beatd status``: which daemons are alive, who leads what, and what is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any, NamedTuple

import click

from beatd import config
from beatd.beat.fleet import SKEW_MS, why_aside
from beatd.cli.output import plural, print_json, print_table
from beatd.config.head import head
from beatd.epoch import from_ms, iso_ms
from beatd.model import Settings
from beatd.schedules import duration_text
from beatd.store import server
from beatd.store.client import connect, place_of
from beatd.store.keys import Keys
from beatd.store.registry import Present, Registry, Roll, Status
from beatd.store.runtime import Pause, Runtime
from beatd.wiring import running_store

STUCK_MS = 20_000
"""A loop that has not turned for so long is worth a word."""
DEAF_MS = 15_000
"""So is it that runtime entries have not been read for so long."""
_PAUSES_SHOWN, _PAUSES_TOLD = 10, 1_000
"""Paused entries that are shown one by one, to people and to programs."""


class Changes(NamedTuple):
    """What the state store adds to the files: entries, and pauses; ``paused`` has the first of these, by name."""

    revision: int
    entries: int
    pauses: int
    paused: dict[str, Pause]


class Overview(NamedTuple):
    """Everything that there is to say."""

    place: str
    server: str
    prefix: str
    roll: Roll
    outboxes: list[int]
    """Messages in the outbox of each shard."""
    runtime: Changes

    @property
    def alive(self) -> list[Present]:
        """The daemons that are there, the oldest first."""
        present = (one for one in self.roll.daemons.values() if one.alive)
        return sorted(present, key=lambda one: (one.status.started_ms, one.status.id))

    def led_by(self, daemon_id: str) -> dict[int, int]:
        """The shards that a daemon leads, each with its term."""
        return {shard: one.token for shard, one in sorted(self.roll.leases.items()) if one.daemon_id == daemon_id}


@click.command()
@click.option("--config", "-c", "config_file", metavar="FILE", help="Default: $BEATD_CONFIG, ./beat.toml.")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of tables.")
def status(config_file: str | None, as_json: bool) -> None:
    """Show the daemons that use the state store of FILE: who is alive, who leads, and what is wrong.

    Exit code 1 when no daemon is alive, or the state store cannot be reached.
    """
    seen = look(head(config.find(config_file)).settings)
    if as_json:
        print_json(facts(seen))
    else:
        _print(seen)
    if not seen.alive:
        raise click.exceptions.Exit(1)


def look(settings: Settings) -> Overview:
    """Ask the state store; raises a :class:`~beatd.exceptions.StoreError`."""
    with connect(running_store(settings), timeout_ms=settings.redis.timeout_ms, name="beatd-status") as client:
        keys = Keys(settings.redis.prefix)
        registry = Registry(client, keys)
        roll = registry.look(shards=settings.leader.shards)
        shards = max([each.shards for each in roll.alive.values()], default=settings.leader.shards)
        if shards != settings.leader.shards:
            roll = registry.look(shards=shards)  # this file is not the one that the daemons have
        outboxes = registry.outboxes(shards=shards)
        changes = _changes(Runtime(client, keys))
        return Overview(place_of(client), server.described(client), settings.redis.prefix, roll, outboxes, changes)


def _changes(runtime: Runtime) -> Changes:
    revision, entries, pauses = runtime.counts()
    paused = dict(islice(runtime.pauses(), _PAUSES_TOLD)) if pauses else {}
    return Changes(revision, entries, pauses, dict(sorted(paused.items())))


def _problems(seen: Overview) -> Iterator[str]:
    """What is wrong, in words."""
    alive = [one.status for one in seen.alive]
    if not alive:
        yield "no daemon is alive"
    digests = {each.digest for each in alive}
    if len(digests) > 1:
        yield f"the daemons have {len(digests)} different schedules"
    free = [shard for shard in range(len(seen.outboxes)) if shard not in seen.roll.leases]
    if alive and free:
        yield "nobody leads" if len(free) == len(seen.outboxes) else f"nobody leads {_shards(free)}"
    for one in seen.roll.daemons.values():
        if not one.alive:
            yield f"{one.status.id} was heard of {duration_text(_rounded(one.age_ms))} ago and not since"
    for each in alive:
        if why := why_aside(each, alive):
            yield f"{each.id} stands aside: {why}"
        yield from _ailments(each)


def _ailments(each: Status) -> Iterator[str]:
    """What is wrong with one daemon."""
    if each.config == "broken":
        yield f"{each.id}: its files have faults; the last good schedule is in force"
    if each.clock_offset_ms is not None and abs(each.clock_offset_ms) > SKEW_MS:
        ahead = "ahead of" if each.clock_offset_ms > 0 else "behind"
        yield f"{each.id}: its clock is {abs(each.clock_offset_ms) / 1000:.1f} s {ahead} the state store's"
    if each.read_ms_ago is not None and each.read_ms_ago > DEAF_MS:
        yield f"{each.id}: it has not read runtime entries for {duration_text(_rounded(each.read_ms_ago))}"
    if each.turned_ms_ago is not None and each.turned_ms_ago > STUCK_MS:
        yield f"{each.id}: its loop has not turned for {duration_text(_rounded(each.turned_ms_ago))}"


def _print(seen: Overview) -> None:
    click.echo(f"State store  {seen.place}, {seen.server}, prefix {seen.prefix}")
    click.echo(f"Outbox       {plural(sum(seen.outboxes), 'message')}")
    if len(seen.outboxes) == 1:
        click.echo(f"Leader       {_leader(seen)}")
    if seen.runtime.revision or seen.runtime.entries or seen.runtime.pauses:
        click.echo(f"Runtime      {plural(seen.runtime.entries, 'entry')}, revision {seen.runtime.revision:,}")
    for number, line in enumerate(_paused(seen.runtime)):
        click.echo(f"{'Paused' if number == 0 else '':<12} {line}")
    if seen.alive:
        click.echo()
        print_table(["daemon", "up", "seen", "entries", "schedule", "leads"], (_row(one, seen) for one in seen.alive))
    if len(seen.outboxes) > 1 and (seen.alive or seen.roll.leases):
        click.echo()
        print_table(["shard", "leader", "term", "outbox"], _shard_rows(seen))
    for number, problem in enumerate(_problems(seen)):
        if number == 0:
            click.echo()
        click.echo(f"! {problem}")


def _paused(runtime: Changes) -> Iterator[str]:
    """The paused entries, and who said so."""
    for name, pause in islice(runtime.paused.items(), _PAUSES_SHOWN):
        since = f" since {from_ms(pause.since_ms):%Y-%m-%d %H:%M:%S} UTC" if pause.since_ms else ""
        yield f"{name}{since}" + (f" by {pause.by}" if pause.by else "") + (f": {pause.reason}" if pause.reason else "")
    if runtime.pauses > _PAUSES_SHOWN:
        yield f"and {plural(runtime.pauses - _PAUSES_SHOWN, 'entry')} more"


def _leader(seen: Overview) -> str:
    holder = seen.roll.leases.get(0)
    return f"{holder.daemon_id}, term {holder.token}" if holder else "nobody"


def _row(one: Present, seen: Overview) -> list[str]:
    each = one.status
    up = duration_text(_rounded(max(seen.roll.now_ms - each.started_ms, 0)))
    heard = f"{one.age_ms / 1000:.1f} s ago"
    led = seen.led_by(each.id)
    leads = "standing by" if not led else _shards(list(led)) if len(seen.outboxes) > 1 else f"term {led[0]}"
    return [each.id, up, heard, f"{each.entries + each.runtime:,}", each.digest[:8], leads]


def _shard_rows(seen: Overview) -> Iterator[list[str]]:
    for shard, waiting in enumerate(seen.outboxes):
        holder = seen.roll.leases.get(shard)
        leader = [holder.daemon_id, str(holder.token)] if holder else ["nobody", ""]
        yield [str(shard), *leader, f"{waiting:,}"]


def _shards(numbers: list[int]) -> str:
    return f"shard{'s' if numbers[1:] else ''} {', '.join(map(str, numbers))}"


def _rounded(ms: int) -> int:
    """To what people say: seconds up to an hour, then minutes."""
    unit = 1_000 if ms < 3_600_000 else 60_000
    return ms // unit * unit


def facts(seen: Overview) -> dict[str, Any]:
    """All of it for programs: the document of ``--json``."""
    return {
        "state_store": {"place": seen.place, "server": seen.server, "prefix": seen.prefix},
        "daemons": [_daemon(one, seen) for one in seen.roll.daemons.values()],
        "shards": [_shard(shard, waiting, seen) for shard, waiting in enumerate(seen.outboxes)],
        "outbox": sum(seen.outboxes),
        "runtime": _runtime(seen.runtime),
        "same_schedule": len({one.status.digest for one in seen.alive}) <= 1,
        "problems": list(_problems(seen)),
    }


def _daemon(one: Present, seen: Overview) -> dict[str, Any]:
    each = one.status
    return {
        "id": each.id,
        "host": each.host,
        "pid": each.pid,
        "version": each.version,
        "alive": one.alive,
        "seen_ms_ago": one.age_ms,
        "started_at": iso_ms(each.started_ms),
        "entries": each.entries,
        "digest": each.digest,
        "runtime_entries": each.runtime,
        "paused": each.paused,
        "revision": each.revision,
        "resting_ms": each.resting_ms,
        "config": each.config,
        "clock_offset_ms": each.clock_offset_ms,
        "turned_ms_ago": each.turned_ms_ago,
        "shards": [{"shard": shard, "term": term} for shard, term in seen.led_by(each.id).items()],
    }


def _runtime(changes: Changes) -> dict[str, Any]:
    noted = {
        name: {"since": iso_ms(one.since_ms), "by": one.by, "reason": one.reason}
        for name, one in changes.paused.items()
    }
    return {"revision": changes.revision, "entries": changes.entries, "pauses": changes.pauses, "paused": noted}


def _shard(shard: int, waiting: int, seen: Overview) -> dict[str, Any]:
    holder = seen.roll.leases.get(shard)
    return {
        "shard": shard,
        "leader": holder.daemon_id if holder else None,
        "term": holder.token if holder else None,
        "lease_ms": holder.left_ms if holder else None,
        "outbox": waiting,
    }
