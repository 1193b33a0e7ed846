"""Topology of a Redis Cluster: its nodes, which of them has which slot, and the connections to them.

The map of slots is asked for when a node says that it is not right any more, each time of another node: one that is cut
off from the others knows nothing of their failovers. A node that does not answer in time is left alone for a while: its
shards wait, and the others do not wait for it.

Nodes are known by their ids: what answers at an address that was given a wrong way, or has gone to somebody else, would
take keys just as well.
"""

from __future__ import annotations

import threading
from binascii import crc_hqx
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import redis
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    ClusterDownError,
    MaxConnectionsError,
    MovedError,
    ResponseError,
)

from beatd.clock import Backoff, monotonic
from beatd.store.pool import ConnectionPool
from beatd.urls import RedisUrl

SLOTS = 16_384
"""Slots of every cluster."""

ASK_S = 1.0
"""Time-out (s) of a question for the map of slots, while others may answer it, and of the wait for another attempt to
reach a node that did not answer."""

ASK_LONG = 2
"""Time-outs of the client after which no further node is asked for the map of slots."""

REFRESH_EVERY_S = 0.1
"""Seconds between two questions for the map of slots while something is wrong with it."""

AWAY_MIN_S, AWAY_MAX_S = 1.0, 10.0
"""Seconds for which a node that did not answer in time is left alone."""

_NOT_AWAY = (AuthenticationError, AuthorizationError, BusyLoadingError, MaxConnectionsError)
"""Errors of a connection to a node that is there."""

_KEYLESS = frozenset(
    ("TIME", "INFO", "PING", "ECHO", "PUBLISH", "PUBSUB", "WAIT", "CONFIG", "CLIENT", "SCRIPT", "CLUSTER", "DBSIZE")
)


class Address(NamedTuple):
    """Address of a node, as the cluster names it."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


def slot_of(key: str | bytes) -> int:
    """The slot of a key: that of its hash tag, if it has one."""
    raw = key if isinstance(key, bytes) else str(key).encode()
    begin = raw.find(b"{")
    if begin >= 0 and (end := raw.find(b"}", begin + 1)) > begin + 1:
        raw = raw[begin + 1 : end]
    return crc_hqx(raw, 0) % SLOTS


def key_of(command: Sequence[Any]) -> str | bytes | None:
    """The first key of a command; None for a command that has none."""
    name = str(command[0]).upper().partition(" ")[0]
    if name in ("EVAL", "EVALSHA"):
        return command[3] if int(command[2]) else None
    return None if name in _KEYLESS or len(command) < 2 else command[1]


class Topology:
    """The nodes of a cluster and their slots, as last heard; connections to them."""

    def __init__(self, url: RedisUrl, options: dict[str, Any], kind: type[Any]) -> None:
        self._seeds = tuple(Address(*node) for node in url.nodes)
        self._options, self._kind = options, kind
        self._lock = threading.RLock()
        self._pools: dict[Address, redis.ConnectionPool] = {}
        self._owners: list[Address | None] = []
        self._ids: dict[Address, set[bytes]] = {}
        """The nodes, replicas too, by the addresses that the cluster gives them, of which two may be the same."""
        self._order = self._seeds  # in which nodes are asked for the map
        self._stale = True
        self._asked_at = float("-inf")
        self._away: dict[Address, tuple[float, Backoff, str]] = {}
        self._attempts: dict[Address, threading.Thread] = {}
        """Attempts to reach nodes that are away."""
        self._is_slow = False
        """Whether it took more than a moment when the map of slots was asked for last."""
        self.last = self._seeds[0]
        """The node that answered last."""
        self._took: dict[Address, float] = {}

    def pool(self, address: Address) -> redis.ConnectionPool:
        """The connections to a node."""
        with self._lock:
            if address not in self._pools:
                self._pools[address] = self._new_pool(address, self._options)
            return self._pools[address]

    def _new_pool(self, address: Address, options: dict[str, Any], *, verified: bool = True) -> redis.ConnectionPool:
        changes: dict[str, Any] = {"host": address.host, "port": address.port}
        if verified:
            shake_hands = options["redis_connect_func"]

            def meet(connection: Any) -> None:
                shake_hands(connection)
                self._verify(address, connection)

            changes["redis_connect_func"] = meet
        return ConnectionPool(connection_class=self._kind, **options | changes)

    def _verify(self, address: Address, connection: Any) -> None:
        """Raise an error if the server at the address of a node is not that node."""
        if (known := self._ids.get(address)) is None:
            return
        connection.send_command("CLUSTER", "MYID", check_health=False)
        try:
            is_node = connection.read_response() in known
        except ResponseError as error:  # it may be that it does not know the command, or that the user must not use it
            is_node = "cluster support disabled" not in str(error)
        if not is_node:
            raise redis.ConnectionError(f"{address} is another server than the node that the cluster names so")

    def owner(self, slot: int) -> Address:
        """The node that has a slot. Raises redis-py's errors if no node can tell, or none has it."""
        self._refresh()
        address = self._owners[slot]
        if address is None:
            self._stale = True
            raise ClusterDownError(f"CLUSTERDOWN no node of the cluster has slot {slot}")
        return address

    def last_owner(self, slot: int) -> Address | None:
        """The node that had a slot when the map was asked for last; nobody is asked now."""
        return self._owners[slot] if self._owners else None

    def any(self) -> Address:
        """A node that is likely to answer."""
        self._refresh()
        return self.last

    def owners(self) -> list[Address]:
        """All nodes that have slots, in the order of their first ones."""
        self._refresh()
        return list(dict.fromkeys(owner for owner in self._owners if owner is not None))

    def unserved(self) -> int:
        """Return the number of slots that no node has."""
        self._refresh()
        return self._owners.count(None)

    def shared(self) -> list[Address]:
        """Return the addresses that several nodes give."""
        self._refresh()
        return [address for address, ids in self._ids.items() if len(ids) > 1]

    def answered(self, address: Address, seconds: float) -> None:
        """Note how long a node took to answer."""
        self._took[address] = seconds

    def slowest(self) -> Address:
        """The node that took longest to answer, when it was asked last."""
        return max(self._took, key=self._took.__getitem__, default=self.last)

    @contextmanager
    def connection(self, address: Address) -> Iterator[Any]:
        """Lend a connection to a node. After an error of the node's it is as good as before; else it is closed."""
        self._attempt_again(address)
        pool = self.pool(address)
        try:
            connection = pool.get_connection()
        except ResponseError:
            raise
        except redis.RedisError as error:
            raise self._failed(address, error) from error
        sound = False
        try:
            yield connection
            sound = True
        except ResponseError as error:
            sound = True
            self.note(error)
            raise
        except redis.RedisError as error:
            raise self._failed(address, error) from error
        finally:
            if not sound:
                connection.disconnect()  # type: ignore[no-untyped-call]
            pool.release(connection)
        self.last = address

    def note(self, error: Exception) -> None:
        """Take what an answer says of the cluster."""
        if isinstance(error, MovedError):
            owner = Address(error.host or self.last.host, error.port)
            with self._lock:
                if self._owners and (owner in self._ids or not self._ids):
                    self._owners[error.slot_id] = owner
                else:
                    self._asked_at = float("-inf")  # a new node: who it is must be known first
                self._stale = True
        elif isinstance(error, ClusterDownError):
            self._stale = True

    def _failed(self, address: Address, error: redis.RedisError) -> redis.RedisError:
        """Note that a node did not answer; returns the error that names it."""
        if isinstance(error, _NOT_AWAY):
            self._stale = True
            return error
        text = str(error)
        reason = text if str(address) in text or f"{address.port}" in text else f"{address}: {text}"
        if address not in self._seeds:
            reason += f"; the cluster names its node {address} so: if that is not its address here, set "
            reason += "cluster-announce-ip on it"
        with self._lock:
            self._stale = True
            self._put_last(address)
            if isinstance(error, redis.TimeoutError) or "timed out" in text.lower():
                _, backoff, _ = self._away.get(address, (0.0, Backoff(AWAY_MIN_S, AWAY_MAX_S), ""))
                self._away[address] = (monotonic() + backoff.failed(), backoff, reason)
        kind = redis.TimeoutError if isinstance(error, redis.TimeoutError) else redis.ConnectionError
        return kind(reason)

    def _attempt_again(self, address: Address) -> None:
        """Raise at once for a node that did not answer a moment ago; after a while find out if it does: for a moment
        here, and then in a thread, so that the others do not wait."""
        if address not in self._away:
            return
        if (reason := self._is_left_alone(address)) is not None:
            raise redis.ConnectionError(f"{reason} (not tried again yet)")
        with self._lock:
            attempt = self._attempts.get(address)
            if attempt is None:
                attempt = threading.Thread(target=self._attempt, args=(address,), name="attempt", daemon=True)
                self._attempts[address] = attempt
                try:
                    attempt.start()
                except RuntimeError as error:  # the process has no more threads
                    del self._attempts[address]
                    raise redis.ConnectionError(f"{address} is not tried again: {error}") from error
        attempt.join(ASK_S)
        if (found := self._away.get(address)) is not None:
            raise redis.ConnectionError(f"{found[-1]} (tried again)")

    def _attempt(self, address: Address) -> None:
        """Connect to a node that did not answer, and take it for away no more if it does."""
        pool = self._new_pool(address, self._options)
        try:
            pool.get_connection()
        except redis.TimeoutError as error:
            self._failed(address, error)
        except redis.RedisError:  # it does answer: the next one to use it meets the reason
            self._away.pop(address, None)
        else:
            self._away.pop(address, None)
        finally:
            pool.disconnect()
            self._attempts.pop(address, None)

    def _is_left_alone(self, address: Address) -> str | None:
        """The reason why a node is not tried now, if it is not: it did not answer a moment ago."""
        until, _, reason = self._away.get(address, (0.0, None, ""))
        return reason if monotonic() < until else None

    @staticmethod
    def _short(options: dict[str, Any]) -> dict[str, Any]:
        return {
            **options,
            **{name: min(options[name], ASK_S) for name in ("socket_timeout", "socket_connect_timeout")},
        }

    def _refresh(self) -> None:
        """Ask for the map of slots, if what is known is not right any more."""
        with self._lock:
            if not self._stale or (self._owners and monotonic() < self._asked_at + REFRESH_EVERY_S):
                return
            self._asked_at = monotonic()
            said: list[str] = []
            found, slow = False, self._candidates()
            if not self._is_slow:
                found, slow = self._ask_each(slow, said, at_once=True)
            if not found and slow:
                found, _ = self._ask_each(slow, said)
                self._is_slow = found and monotonic() > self._asked_at + ASK_S / 2
            if not self._owners:
                raise redis.ConnectionError(f"no node of the cluster answers ({'; '.join(said)})")

    def _candidates(self) -> list[Address]:
        """The nodes that may know the map, in the order in which to ask them."""
        owners = (one for one in dict.fromkeys(self._owners) if one is not None)
        return list(dict.fromkeys((*self._order, *owners, *self._seeds)))

    def _ask_each(
        self, nodes: Sequence[Address], said: list[str], *, at_once: bool = False
    ) -> tuple[bool, list[Address]]:
        """Ask one node after the other for the map, until one answers; tells whether one did. ``said`` gets the reasons
        of those that do not. With ``at_once`` each has a moment only; returns those that did not answer in it, too."""
        slow: list[Address] = []
        foreign: list[tuple[Address, Any]] = []
        until = monotonic() + ASK_LONG * self._options["socket_timeout"]
        for address in nodes:
            raw = self._map_of(address, said, slow if at_once else None)
            if raw is None:
                if monotonic() > until and not at_once:
                    break
            elif self._is_foreign(raw):
                foreign.append((address, raw))
                said.append(f"{address}: it has other nodes than the cluster; if that was made anew, restart beatd")
            else:
                self._take(address, raw)
                return True, slow
        if foreign and len(foreign) == len(self._candidates()):  # the cluster was made anew
            self._take(*foreign[0])
            return True, slow
        return False, slow

    def _map_of(self, address: Address, said: list[str], slow: list[Address] | None) -> Any:
        """The map as a node has it; None if it does not answer, with the reason in ``said``. With ``slow`` it has a
        moment, and is put there if that was not enough."""
        if (reason := self._is_left_alone(address)) is not None:
            said.append(reason)
            return None
        try:
            return self._ask(address, self._options if slow is None else self._short(self._options))
        except (AuthenticationError, AuthorizationError):
            raise
        except ResponseError as error:
            if "cluster support disabled" in str(error) and not self._ids:
                raise
            said.append(f"{address}: {error}")
        except redis.RedisError as error:
            if slow is not None and isinstance(error, redis.TimeoutError):
                slow.append(address)
                self._put_last(address)
            else:
                text = str(self._failed(address, error))
                said.append(text if str(address.port) in text else f"{address}: {text}")
        return None

    def _is_foreign(self, raw: Any) -> bool:
        """True for the map of another cluster: none of its nodes is known."""
        known = frozenset[bytes]().union(*self._ids.values())
        return bool(known) and known.isdisjoint(node[2] for _, _, *nodes in raw for node in nodes)

    def _ask(self, address: Address, options: dict[str, Any]) -> Any:
        pool = self._new_pool(address, options, verified=False)
        try:
            connection = pool.get_connection()
            connection.send_command("CLUSTER", "SLOTS")  # type: ignore[no-untyped-call]
            return connection.read_response()
        finally:
            pool.disconnect()

    def _put_last(self, address: Address) -> None:
        """Ask another node for the map the next time."""
        self._order = (*(one for one in self._order if one != address), address)

    def _take(self, asked: Address, raw: Any) -> None:
        owners: list[Address | None] = [None] * SLOTS
        ids: dict[Address, set[bytes]] = {}
        for first, last, *nodes in raw:
            found = []
            for place, port, node_id, *_ in nodes:
                host = place.decode() if place else ""
                found.append(Address(asked.host if host in ("", "?") else host, int(port)))
                ids.setdefault(found[-1], set()).add(node_id)
            owners[first : last + 1] = [found[0]] * (last + 1 - first)
        self._ids = ids
        self._owners = owners
        for address in self._pools.keys() - {*self._seeds, *ids}:  # it has left the cluster
            self._pools.pop(address).disconnect(inuse_connections=False)
            self._away.pop(address, None)
        self._took = {address: seconds for address, seconds in self._took.items() if address in ids}
        known = {*self._seeds, *owners}
        self._order = tuple(one for one in dict.fromkeys((*self._order, *owners)) if one is not None and one in known)
        self._put_last(asked)
        self.last = asked
        self._stale = False

    def close(self) -> None:
        """Disconnect from all nodes."""
        with self._lock:
            for pool in self._pools.values():
                pool.disconnect()
            self._pools.clear()
