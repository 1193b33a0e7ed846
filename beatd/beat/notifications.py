"""Notifications of a daemon: the notifier with its parts, on a connection of its own."""

from __future__ import annotations

from collections.abc import Sequence

from beatd.beat.conditions import Conditions
from beatd.beat.elector import Elector
from beatd.beat.loop import ShardLoop
from beatd.beat.notifier import FleetSight, Notifier
from beatd.beat.pings import PingPlanner
from beatd.clock import Clock
from beatd.metrics.counters import DaemonCounters
from beatd.model import Entry, Settings
from beatd.notify.sender import Sender
from beatd.store.client import connect
from beatd.store.daemon_registry import FleetView
from beatd.store.held_back import HeldBack
from beatd.store.history_reader import Histories
from beatd.store.keys import Keys, shard_of
from beatd.store.notices import Notices
from beatd.store.outcomes import Outcomes
from beatd.store.recoveries import Recoveries
from beatd.store.server_check import NodeCheck
from beatd.store.undelivered import Undelivered


def notifier(
    settings: Settings,
    store_url: str,
    keys: Keys,
    shards: Sequence[ShardLoop],
    *,
    elector: Elector,
    counters: DaemonCounters,
    clock: Clock,
) -> Notifier:
    """Return the notifier of a daemon."""
    client = connect(store_url, timeout_ms=settings.redis.timeout_ms, name="beatd-notify")
    keys = keys.without({})  # its own: the parts of a cluster that it looks at change
    outcomes, notices, number = Outcomes(client, keys), Notices(client, keys), settings.leader.shards

    def fleet() -> FleetView | None:
        return elector.fleet

    def entry(name: str) -> Entry | None:
        return shards[shard_of(name, number)].schedule.entry(name)

    return Notifier(
        FleetSight(elector.daemon_id, elector.leaderships[0], fleet, number, settings.leader.ttl_ms / 1000),
        Conditions(
            outcomes, Recoveries(client, keys), HeldBack(client, keys, shards=number), notices, clock=clock, fleet=fleet
        ),
        PingPlanner(Histories(client, keys), outcomes, notices, keys, clock),
        notices,
        lambda directory: Sender(notices, Undelivered(client, keys), clock, counters, directory),
        entry=entry,
        place=settings.redis.prefix,
        clock=clock,
        check_nodes=NodeCheck(client, keys),
    )
