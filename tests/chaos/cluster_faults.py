"""What may go wrong with a Redis Cluster: nodes die, hang and are cut off, replicas take over, and slots move."""

from __future__ import annotations

import time
from collections.abc import Callable

import redis

from beatd.store.topology import slot_of
from tests.chaos.cluster import ChaosCluster
from tests.chaos.faults import Repairs, ServerFaults
from tests.conftest import Server

CLUSTER_FAULTS = (
    "kill_node", "kill_node", "freeze_node", "move_slot", "move_slot", "node_network", "cut_off_node",
    "kill_clients", "pause_clients", "forget_scripts",
)  # fmt: skip
REPLICA_FAULTS = ("kill_unreplicated", "failover")
"""What may also go wrong where primaries have replicas."""

AT_ONCE = 2
"""Nodes that are disturbed at the same time, at most."""

LOOK_EVERY_S = 0.5


class ClusterFaults(ServerFaults):
    """Disturbs nodes; none that are disturbed already, and none while a slot moves.

    A node that dies in the midst of a move leaves the keys of the slot at two nodes, which is for people to mend.
    """

    def __init__(self, cluster: ChaosCluster, repairs: Repairs, *, longest: float) -> None:
        super().__init__(self._some_client, repairs.random)
        self._cluster = cluster
        self._repairs = repairs
        self._longest = longest
        self._disturbed: set[Server] = set()
        self._is_moving = False
        self._since: float | None = None
        self._looked_at = 0.0
        self.unsettled: list[tuple[float, float]] = []
        """From when to when (monotonic) nodes were disturbed, or not in step with each other."""

    def watch(self) -> None:
        """See whether the nodes have settled; to be called often."""
        now = time.monotonic()
        if self._since is None or self._disturbed or self._is_moving or now < self._looked_at + LOOK_EVERY_S:
            return
        self._looked_at = now
        try:
            settled = self._cluster.settled() and self._cluster.replicated()
        except redis.RedisError:
            return
        if settled:
            self.unsettled.append((self._since, now))
            self._since = None

    def all_unsettled(self) -> list[tuple[float, float]]:
        """The times in ``unsettled``, and the one that has not ended."""
        return [*self.unsettled, *([] if self._since is None else [(self._since, time.monotonic())])]

    def _some_client(self) -> redis.Redis:
        return self._cluster.client(self._random.choice([one for one in self._cluster.servers if one.awake]))

    def _pick(self, role: str | None = None) -> Server | None:
        """A node to be disturbed, from now on."""
        able = [one for one in self._cluster.servers if one.awake and one not in self._disturbed]
        if role is not None:
            able = [one for one in able if self._is(one, role)]
        if not able or self._is_moving or len(self._disturbed) >= AT_ONCE:
            return None
        node = self._random.choice(able)
        self._disturb()
        self._disturbed.add(node)
        return node

    def _disturb(self) -> None:
        if self._since is None:
            self._since = time.monotonic()

    def _is(self, node: Server, role: str) -> bool:
        try:
            return self._cluster.role(node) == role
        except redis.RedisError:  # its clients are paused
            return False

    def _name(self, node: Server) -> str:
        return f"node {self._cluster.servers.index(node) + 1}"

    def _over(self, node: Server, repair: Callable[[], object]) -> Callable[[], None]:
        """The repair of a disturbed node."""

        def make() -> None:
            repair()
            self._disturbed.discard(node)

        return make

    def kill_node(self) -> str:
        role = self._random.choice(("master", "master", None))
        if (node := self._pick(role)) is None:
            return "nobody"
        node.kill()
        return f"{self._name(node)}, a {role or 'node'}, for {self._repairs.after(0, 6, self._over(node, node.start))}"

    def kill_unreplicated(self) -> str:
        """Kill a primary whose replicas have not heard of its last writes."""
        if (node := self._pick("master")) is None:
            return "nobody"
        self._cluster.cut_replicas(node)

        def kill() -> None:
            node.kill()
            self._cluster.join(node)
            self._repairs.after(2, 6, self._over(node, node.start))

        return f"{self._name(node)}, after {self._repairs.after(0.2, 2, kill)}"

    def freeze_node(self) -> str:
        role = self._random.choice(("master", "master", None))
        if (node := self._pick(role)) is None:
            return "nobody"
        node.pause()
        until = self._repairs.after(0.5, self._longest, self._over(node, node.resume))
        return f"{self._name(node)}, a {role or 'node'}, for {until}"

    def cut_off_node(self) -> str:
        """Cut a primary off from all other nodes."""
        if (node := self._pick("master")) is None:
            return "nobody"
        self._cluster.cut_off(node)
        join = self._over(node, lambda: self._cluster.join(node))
        return f"{self._name(node)} for {self._repairs.after(0.5, self._longest, join)}"

    def node_network(self) -> str:
        """Break the way to a node, for daemons and replicas."""
        if (node := self._pick()) is None:
            return "nobody"
        way = self._cluster.ways(node).clients

        def pass_again() -> None:
            way.mode = "pass"
            self._disturbed.discard(node)

        way.mode = self._random.choice(("stall", "refuse", "deaf", "slow"))
        return f"{self._name(node)}, {way.mode}, for {self._repairs.after(0.5, self._longest, pass_again)}"

    def failover(self) -> str:
        """Have a replica take over, with or without its primary's agreement."""
        able = [one for one in self._cluster.servers if one.awake and one not in self._disturbed]
        replicas = [one for one in able if self._is(one, "slave")]
        if not replicas or self._is_moving:
            return "nobody"
        replica, how = self._random.choice(replicas), self._random.choice(((), (), ("FORCE",)))
        self._disturb()
        try:
            self._cluster.call(replica, "CLUSTER", "FAILOVER", *how)
        except redis.RedisError as error:
            return f"not told: {error}"
        return f"{self._name(replica)} {' '.join(how)}"

    def move_slot(self) -> str:
        """Begin to move the slot of a shard, with some of its keys."""
        if self._disturbed or self._is_moving or not self._cluster.settled():
            return "not now"
        slot = slot_of(self._random.choice(self._cluster.keys.all_parts()).lease)
        try:
            source = self._cluster.owner(slot)
            target = self._random.choice([one for one in self._cluster.primaries() if one is not source])
            self._cluster.begin_move(slot, source, target)
            self._is_moving = True
            self._disturb()
            moved = self._cluster.move_keys(slot, source, target, at_most=self._random.randint(0, 8))
        except redis.RedisError as error:
            moved = 0
            if not self._is_moving:
                return f"not told: {error}"

        def end() -> None:
            try:
                self._cluster.end_move(slot, source, target)
            except redis.RedisError:  # clients are paused, or the way is slow
                self._repairs.after(0.3, 0.6, end)
            else:
                self._is_moving = False

        where = f"{slot} from {self._name(source)} to {self._name(target)}"
        return f"{where}, {moved} keys at once, the rest after {self._repairs.after(0, 2, end)}"
