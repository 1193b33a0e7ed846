"""Presence of daemons: a daemon whose connection to the store has ended is known to be gone before its leases end.

Each daemon listens on a channel of its own while it runs. When its process dies, the operating system closes that
connection, and the server no longer counts a listener. The other daemons ask for these counts several times a second; a
daemon without a listener for the grace is gone, and its shards are free to be taken. That is safe at any time, also
when the daemon only lost that connection: the new term fences the old one off.

A daemon that was taken for gone and is not gets twice the grace from then on, up to the time to live of a lease. So a
flapping network cannot move leadership to and fro without end. What cannot be seen this way (a host that lost power, a
network that drops packets, a frozen process) is left to the lease.

Pure: no store, no clock.
"""

from __future__ import annotations

import logging
from collections.abc import Collection

from beatd.store.daemon_registry import FleetView

log = logging.getLogger("beatd.beat.fleet")

LOOK_EVERY = 0.2
"""Seconds between two looks."""

GRACE = 0.4
"""Seconds without a listener after which a daemon is gone."""

TRIPS = 8
"""Round trips to the store that the grace lasts at least: a daemon that connects again needs some."""

SETTLE = 3.0
"""Seconds after an interruption of this daemon's own connection in which no daemon counts as gone: the server may have
been restarted, and the others connect again, too."""

FORGIVEN_AFTER = 600.0
"""Seconds after which a false alarm is forgotten."""


class PresenceWatch:
    """Presence of the other daemons, as one of them knows it. ``ttl`` is the time to live of a lease (s)."""

    def __init__(self, me: str, ttl: float) -> None:
        self._me = me
        self._ttl = ttl
        self._grace = min(GRACE, ttl / 4)
        self._absent_since: dict[str, float] = {}
        self._false_alarms: dict[str, tuple[int, float]] = {}
        """How often a daemon was wrongly taken for gone, and the time of the last."""
        self._not_before = 0.0
        self.gone: frozenset[str] = frozenset()
        """Daemons that are gone although their heartbeats are recent."""

    def watched(self, fleet: FleetView) -> list[str]:
        """The other daemons that have a listener while they live, of those that are alive or hold a lease."""
        holders = {owner.daemon_id for owner in fleet.leases.values()}
        return [
            name
            for name, one in fleet.daemons.items()
            if one.status.present and name != self._me and (one.alive or name in holders)
        ]

    def saw(self, absent: Collection[str], watched: Collection[str], now: float, trip: float = 0.0) -> bool:
        """Note which of the ``watched`` have no listener; tells whether more daemons are gone than before.

        ``now`` is the monotonic time, ``trip`` how long the answer took (s).
        """
        for name in self.gone.intersection(watched).difference(absent):
            self._came_back(name, now)
        self._absent_since = {name: self._absent_since.get(name, now) for name in absent}
        grace = max(self._grace, TRIPS * trip)
        gone = {name for name, since in self._absent_since.items() if now - since >= self._grace_of(name, grace, now)}
        if now < self._not_before:
            gone &= self.gone
        new = gone - self.gone
        for name in sorted(new):
            extra = {"event": "daemon_gone", "daemon": name, "absent_ms": int((now - self._absent_since[name]) * 1000)}
            log.warning("%s is gone: its connection to the state store has ended", name, extra=extra)
        self.gone = frozenset(gone)
        return bool(new)

    def interrupted(self, now: float) -> None:
        """This daemon's own connection failed: what was seen before says nothing."""
        self._absent_since.clear()
        self._not_before = now + SETTLE

    def without_gone(self, fleet: FleetView) -> FleetView:
        """Return the fleet as it is without the daemons that are gone: their shards are free."""
        if not self.gone:
            return fleet
        daemons = {name: one for name, one in fleet.daemons.items() if name not in self.gone}
        leases = {shard: one for shard, one in fleet.leases.items() if one.daemon_id not in self.gone}
        return fleet._replace(daemons=daemons, leases=leases)

    def _grace_of(self, name: str, grace: float, now: float) -> float:
        count, last = self._false_alarms.get(name, (0, now))
        if now - last > FORGIVEN_AFTER:
            del self._false_alarms[name]
            count = 0
        return min(grace * (1 << min(count, 10)), self._ttl)

    def _came_back(self, name: str, now: float) -> None:
        recent = {each: seen for each, seen in self._false_alarms.items() if now - seen[1] <= FORGIVEN_AFTER}
        self._false_alarms, count = recent, recent.get(name, (0, now))[0] + 1
        self._false_alarms[name] = count, now
        grace = self._grace_of(name, self._grace, now)
        text = "%s is not gone, only its connection was interrupted; from now on it has %.1f s to connect again"
        log.warning(text, name, grace, extra={"event": "daemon_back", "daemon": name, "grace_ms": int(grace * 1000)})
