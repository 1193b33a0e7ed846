"""Redis Clusters of real servers: formed, resharded, and failed over by the tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import redis

from tests.certificates import tls_arguments
from tests.conftest import Server, _binary_or_skip, wait_for
from tests.ports import free_port

SLOTS = 16_384
NODE_TIMEOUT_MS = 2_000
"""After this silence a node counts as failed: a process may wait for a second for a processor, or for a disk."""


class Cluster:
    """A cluster of ``masters`` nodes, each with so many replicas, on free ports.

    With ``certificates`` (their folder) clients may also, and nodes do, speak TLS; ``call`` takes the plain port.
    """

    def __init__(
        self,
        kind: str,
        masters: int = 3,
        replicas: int = 0,
        *,
        coverage: str = "no",
        arguments: Sequence[str] = (),
        certificates: Path | None = None,
        node_timeout_ms: int = NODE_TIMEOUT_MS,
    ) -> None:
        settings = ("--cluster-enabled", "yes", "--cluster-node-timeout", str(node_timeout_ms), "--appendonly", "yes")
        settings += ("--cluster-require-full-coverage", coverage, "--cluster-allow-replica-migration", "no")
        settings += ("--repl-diskless-sync-delay", "0", "--cluster-replica-validity-factor", "0", *arguments)
        binary = _binary_or_skip(kind)
        self.certificates = certificates
        self.servers: list[Server] = []
        self._tls_ports: dict[int, int] = {}
        for _ in range(masters * (1 + replicas)):
            tls_port = free_port()
            tls = ("--tls-cluster", "yes", *tls_arguments(certificates, tls_port)) if certificates else ()
            own = ("--cluster-port", str(free_port()), *tls, *self._own_arguments(len(self.servers)))
            self.servers.append(Server(binary, *settings, *own).start())
            self._tls_ports[self.servers[-1].port] = tls_port
        self.masters = self.servers[:masters]
        self._moved: set[int] = set()
        self._form(replicas)

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{self.peer_port(server)}" for server in self.servers)
        if self.certificates:
            return f"rediss+cluster://{hosts}?ssl_ca_certs={self.certificates}/ca.pem"
        return f"redis+cluster://{hosts}"

    def peer_port(self, server: Server) -> int:
        """The port at which other nodes, and clients by ``url``, reach a node."""
        return self._tls_ports[server.port] if self.certificates else server.port

    def bus_port(self, server: Server) -> int:
        """The port at which other nodes reach a node's bus."""
        return int(self.call(server, "CONFIG", "GET", "cluster-port")[1])

    def named_port(self, server: Server) -> int:
        """The port under which nodes name a node to who asks at a plain port."""
        return server.port

    def _own_arguments(self, number: int) -> Sequence[str]:
        """Arguments of one node alone."""
        return ()

    def _form(self, replicas: int) -> None:
        """Give out the slots, let the nodes meet, and attach the replicas."""
        count = len(self.masters)
        for number, server in enumerate(self.masters):
            self.call(server, "CLUSTER", "ADDSLOTSRANGE", number * SLOTS // count, (number + 1) * SLOTS // count - 1)
            self.call(server, "CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for server in self.servers[1:]:
            where = self.peer_port(server), self.bus_port(server)
            self.call(self.servers[0], "CLUSTER", "MEET", "127.0.0.1", *where)
        wait_for(lambda: all(self.known(server) == len(self.servers) for server in self.servers), 20, "nodes to meet")
        for number, server in enumerate(self.servers[count:]):
            self.call(server, "CLUSTER", "REPLICATE", self.id_of(self.masters[number % count]))
        wait_for(self.settled, 30, "the cluster to be formed")
        if replicas:
            wait_for(self.replicated, 30, "the replicas to be attached")

    def call(self, server: Server, *command: Any) -> Any:
        """The answer of a node, as the server sends it."""
        with redis.Redis(port=server.port, socket_timeout=5, protocol=2, retry=None) as client:
            client.response_callbacks.clear()
            return client.execute_command(*command)

    def facts(self, server: Server, *command: str) -> dict[str, str]:
        lines = self.call(server, *command).decode().splitlines()
        return dict(line.split(":", 1) for line in lines if ":" in line)

    def known(self, server: Server) -> int:
        nodes = self.call(server, "CLUSTER", "NODES").decode().splitlines()
        return sum("handshake" not in node for node in nodes)

    def id_of(self, server: Server) -> str:
        return self.call(server, "CLUSTER", "MYID").decode()

    def settled(self) -> bool:
        """Whether all nodes that run see all slots served."""
        try:
            return all(self._sees_all(server) for server in self.servers if server.awake)
        except redis.RedisError:
            return False

    def missed(self, node: Server) -> bool:
        """Whether the other nodes have noticed that a node is away."""
        return not any(self._sees_all(server) for server in self.servers if server is not node and server.awake)

    def _sees_all(self, server: Server) -> bool:
        info = self.facts(server, "CLUSTER", "INFO")
        return info["cluster_state"] == "ok" and int(info["cluster_slots_ok"]) == SLOTS

    def replicated(self) -> bool:
        replicas = [server for server in self.servers if self.role(server) == "slave"]
        expected = len(self.servers) - len(self.masters)
        return len(replicas) == expected and all(
            self.facts(server, "INFO", "replication").get("master_link_status") == "up" for server in replicas
        )

    def role(self, server: Server) -> str:
        return self.facts(server, "INFO", "replication")["role"]

    def primaries(self) -> list[Server]:
        """The nodes that say that they are primaries."""
        return [server for server in self.servers if server.awake and self.role(server) == "master"]

    def owner(self, slot: int) -> Server:
        """The node that has a slot, as the running ones say."""
        for server in self.servers:
            if server.awake:
                for first, last, (_, port, *_), *_ in self.call(server, "CLUSTER", "SLOTS"):
                    if first <= slot <= last:
                        return next(one for one in self.servers if self.named_port(one) == port)
        raise AssertionError(f"nobody has slot {slot}")

    def take_away(self, slot: int) -> None:
        """Take a slot from its node, as all nodes see it."""
        self.call(self.owner(slot), "CLUSTER", "DELSLOTS", slot)

        def unknown(server: Server) -> bool:
            if any(first <= slot <= last for first, last, *_ in self.call(server, "CLUSTER", "SLOTS")):
                self.call(server, "CLUSTER", "DELSLOTS", slot)  # what its owner said before may arrive late
                return False
            return True

        wait_for(lambda: all(unknown(server) for server in self.servers), 20, "the nodes to forget a slot")

    def begin_move(self, slot: int, source: Server, target: Server) -> None:
        """Put a slot on the move."""
        self.call(target, "CLUSTER", "SETSLOT", slot, "IMPORTING", self.id_of(source))
        self.call(source, "CLUSTER", "SETSLOT", slot, "MIGRATING", self.id_of(target))

    def move_keys(self, slot: int, source: Server, target: Server, at_most: int = 1_000) -> int:
        """Move some keys of a slot that is on the move; returns how many."""
        keys = self.call(source, "CLUSTER", "GETKEYSINSLOT", slot, at_most)
        for key in keys:
            self.call(source, "MIGRATE", "127.0.0.1", self.peer_port(target), key, 0, 5_000, "REPLACE")
        return len(keys)

    def end_move(self, slot: int, source: Server, target: Server) -> None:
        """Move the rest, and give the slot to its new node."""
        while self.move_keys(slot, source, target):
            pass
        self._moved.add(slot)
        for server in (target, source, *(one for one in self.primaries() if one not in (source, target))):
            self.call(server, "CLUSTER", "SETSLOT", slot, "NODE", self.id_of(target))

    def move(self, slot: int, target: Server) -> None:
        """Give a slot with all its keys to another node."""
        source = self.owner(slot)
        if source is not target:
            self.begin_move(slot, source, target)
            self.end_move(slot, source, target)

    def reset(self) -> None:
        """Bring all nodes back, settled and empty, and all slots to their first nodes."""
        for server in self.servers:
            server.start()
        wait_for(self.settled, 30, "the cluster to be settled")
        for server in self.servers:
            if self.role(server) == "master":
                self.call(server, "FLUSHALL")
                self.call(server, "SCRIPT", "FLUSH")
        for slot in sorted(self._moved):
            self.move(slot, self.masters[((slot + 1) * len(self.masters) - 1) // SLOTS])
        self._moved.clear()

    def close(self) -> None:
        for server in self.servers:
            server.close()


ClusterFactory = Callable[..., Cluster]
