"""A Redis Cluster as the state store under test, with proxies in front of every node.

Nodes announce the ports of their proxies, so what clients and other nodes send goes through them. Each node opens its
own connections from an address of its own (127.0.1.1, 127.0.1.2, …): so a proxy can tell nodes from clients, and a node
can be cut off from all others while clients still reach it.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import NamedTuple

import redis

from beatd.store.keys import Keys
from beatd.store.topology import slot_of
from tests.chaos.proxy import Proxy
from tests.clusters import Cluster
from tests.conftest import Server

MASTERS = 3


class Ways(NamedTuple):
    """The proxies in front of a node."""

    clients: Proxy
    """For clients, replicas and slots that move."""
    bus: Proxy
    """For the nodes' talk about who is there."""


def _is_node(address: str) -> bool:
    return address.startswith("127.0.1.")


class ChaosCluster(Cluster):
    """Three primaries, and replicas, as many as are left of ``nodes``."""

    def __init__(self, kind: str, nodes: int, shards: int) -> None:
        assert nodes % MASTERS == 0, "each primary has as many replicas as the others"
        self.keys = Keys(parts=shards)
        self.replicas = nodes // MASTERS - 1
        self._stack = ExitStack()
        self._ways: list[Ways] = []
        self._cut_off: set[Server] = set()
        self._without_replicas: set[Server] = set()
        quick = ("--cluster-node-timeout", "800")  # a fault takes seconds
        super().__init__(kind, MASTERS, self.replicas, arguments=("--appendfsync", "always", *quick))

    def _own_arguments(self, number: int) -> Sequence[str]:
        ways = Ways(*(self._stack.enter_context(Proxy()) for _ in Ways._fields))
        self._ways.append(ways)
        ports = ("--cluster-announce-port", str(ways.clients.port), "--cluster-announce-bus-port", str(ways.bus.port))
        return (*ports, "--bind-source-addr", self._address(number))

    @staticmethod
    def _address(number: int) -> str:
        return f"127.0.1.{number + 1}"

    def _form(self, replicas: int) -> None:
        for server, ways in zip(self.servers, self._ways, strict=True):
            ways.clients.target = server.port
            ways.bus.target = super().bus_port(server)
        super()._form(replicas)

    def ways(self, server: Server) -> Ways:
        return self._ways[self.servers.index(server)]

    def peer_port(self, server: Server) -> int:
        return self.ways(server).clients.port

    def bus_port(self, server: Server) -> int:
        return self.ways(server).bus.port

    def named_port(self, server: Server) -> int:
        return self.peer_port(server)

    def client_of(self, key: str) -> redis.Redis:
        return self.client(self.owner(slot_of(key)))

    @staticmethod
    def client(server: Server) -> redis.Redis:
        return redis.Redis(port=server.port, socket_timeout=5, retry=None)

    def cut_off(self, server: Server) -> None:
        """Let nothing pass between a node and the others, until it may :meth:`join` again; clients reach it."""
        self._cut_off.add(server)
        self._bar()

    def cut_replicas(self, server: Server) -> None:
        """Let no replica of a node hear what is written to it."""
        self._without_replicas.add(server)
        self._bar()

    def join(self, server: Server) -> None:
        """End what :meth:`cut_off` and :meth:`cut_replicas` have done to a node."""
        self._cut_off.discard(server)
        self._without_replicas.discard(server)
        self._bar()

    def _bar(self) -> None:
        away = frozenset(self._address(number) for number, one in enumerate(self.servers) if one in self._cut_off)
        for server, ways in zip(self.servers, self._ways, strict=True):
            is_cut_off = server in self._cut_off
            ways.bus.bar(_is_node if is_cut_off else away.__contains__)
            ways.clients.bar(_is_node if is_cut_off or server in self._without_replicas else away.__contains__)

    def close(self) -> None:
        super().close()
        self._stack.close()
