"""Client of a Redis Cluster: each command goes to the node that has its key.

It has the methods of a client of one server, so the rest of the store knows of clusters only where keys of several
slots meet. redis-py's own cluster client repeats commands whose answer was lost; this one, like all of
:mod:`beatd.store`, repeats only what a node has refused to do, as only the caller knows if a repeat is harmless.

* ``MOVED``: the node that is named has the slot now. The map of slots is asked for again.
* ``ASK``: the slot is on the move, and this key is already over there.
* ``TRYAGAIN``: the slot is on the move, and a command has keys on both sides: refused until all have arrived.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import redis
from redis.exceptions import AskError, ClusterDownError, MovedError, ResponseError, TryAgainError

from beatd.clock import monotonic, sleep
from beatd.store.pipeline import joint_answers
from beatd.store.topology import Address, Topology, key_of, slot_of
from beatd.urls import RedisUrl

HOPS = 6
"""Nodes that a command is sent to at most."""

_CIRCLE = (
    "sends a command on, and gets it back: if several nodes give the same address, set cluster-announce-ip on them"
)

PAUSE_S, PATIENCE_S = 0.02, 0.3
"""Pause before a command is sent again to a node that could not serve it just now, and for how long in all; then it is
the caller's turn to wait."""

_JOINED: dict[str, Callable[[list[Any]], Any]] = {"DEL": sum, "UNLINK": sum, "EXISTS": sum}


class ClusterClient(redis.Redis):
    """Client of a cluster. Keys of a pipeline or of ``MGET`` and ``DEL`` may be in several slots, those of a script in
    one."""

    def __init__(self, url: RedisUrl, options: dict[str, Any], kind: type[Any]) -> None:
        self.topology = Topology(url, options, kind)
        self.place = url.place
        super().__init__(connection_pool=self.topology.pool(Address(*url.nodes[0])))

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Send a command to the node that has its key, and return the answer."""
        name = str(args[0]).upper()
        if name in ("MGET", *_JOINED) and len({slot_of(key) for key in args[1:]}) > 1:
            return self._split(name, args[1:])
        answers = joint_answers(self, [(args, options)])
        if answers is None:
            return self.routed(args, options)
        if isinstance(answers[0], Exception):
            raise answers[0]
        return answers[0]

    def routed(self, args: Sequence[Any], options: dict[str, Any], before: Exception | None = None) -> Any:
        """Send a command, after an answer that led elsewhere, if there was one; follow further ones."""
        key = key_of(args)
        until, asking = monotonic() + PATIENCE_S, None
        for _ in range(HOPS * 4):
            if before is None:
                address = asking or (self.topology.any() if key is None else self.topology.owner(slot_of(key)))
                try:
                    return self._send(address, args, options, asking=asking is not None)
                except (AskError, TryAgainError, ClusterDownError) as error:
                    before = error
            asking = None
            if isinstance(before, AskError) and not isinstance(before, MovedError):
                asking = Address(before.host or self.topology.last.host, before.port)
            elif not isinstance(before, MovedError):
                if monotonic() > until:
                    raise before
                sleep(PAUSE_S)
            before = None
        raise redis.ConnectionError(f"{address} {_CIRCLE}")

    def _send(self, address: Address, args: Sequence[Any], options: dict[str, Any], *, asking: bool) -> Any:
        with self.topology.connection(address) as connection:
            if asking:
                connection.send_command("ASKING")
                connection.read_response()
            sent_at = monotonic()
            connection.send_command(*args)
            answer = self.parse_response(connection, args[0], **options)  # type: ignore[no-untyped-call]
            self.topology.answered(address, monotonic() - sent_at)
            return answer

    def _split(self, name: str, keys: Sequence[Any]) -> Any:
        """A command about keys of several slots, slot by slot."""
        by_slot: dict[int, list[int]] = {}
        for place, key in enumerate(keys):
            by_slot.setdefault(slot_of(key), []).append(place)
        pipeline = self.pipeline(transaction=False)
        for places in by_slot.values():
            pipeline.execute_command(name, *(keys[place] for place in places))  # type: ignore[no-untyped-call]
        answers = pipeline.execute()
        if name in _JOINED:
            return _JOINED[name](answers)
        found: list[Any] = [None] * len(keys)
        for places, values in zip(by_slot.values(), answers, strict=True):
            for place, value in zip(places, values, strict=True):
                found[place] = value
        return found

    def pipeline(self, transaction: bool = True, shard_hint: Any = None) -> ClusterPipeline:  # noqa: ARG002 - as in redis-py
        """A pipeline; the keys of a transaction are in one slot."""
        return ClusterPipeline(self, transaction=transaction)

    def pubsub(self, *, key: str | None = None, **options: Any) -> redis.client.PubSub:
        """Listen to channels, at the node that has ``key``; without one, at any: all nodes hear what is published."""
        return redis.client.PubSub(self.pool_of(key), **options)

    def pool_of(self, key: str | None) -> redis.ConnectionPool:
        """The connections to the node that has ``key``; without one, to any. Raises redis-py's errors if it is away."""
        address = self.topology.any() if key is None else self.topology.owner(slot_of(key))
        with self.topology.connection(address):  # if the node is away, this is noted, and the next attempt asks another
            pass
        return self.topology.pool(address)

    def close(self) -> None:
        """Disconnect."""
        if hasattr(self, "topology"):
            self.topology.close()


class ClusterPipeline(redis.client.Pipeline):
    """Commands that are sent together, to each node its own; the slowest node says how long that takes.

    Commands without a key go where the first one with a key goes.
    """

    def __init__(self, client: ClusterClient, *, transaction: bool) -> None:
        super().__init__(client.connection_pool, client.response_callbacks, transaction, None)
        self._cluster = client
        self._is_transaction = transaction

    def execute(self, raise_on_error: bool = True) -> list[Any]:
        """Send them; returns the answers in order. Without ``raise_on_error`` errors are among them, also those of a
        node that does not answer."""
        stack = self.command_stack
        self.reset()
        if not stack:
            return []
        if self._is_transaction:
            answers = self._as_one(stack)
        elif (joint := joint_answers(self._cluster, stack)) is not None:
            answers = joint
        else:
            answers = self._by_node(stack)
        if raise_on_error:
            for answer in answers:
                if isinstance(answer, Exception):
                    raise answer
        return answers

    def _as_one(self, stack: Sequence[Any]) -> list[Any]:
        topology = self._cluster.topology
        key = next((key for key in (key_of(args) for args, _ in stack) if key is not None), None)
        for _ in range(HOPS):
            address = topology.any() if key is None else topology.owner(slot_of(key))
            try:
                with topology.connection(address) as connection:
                    answers: list[Any] = self._execute_transaction(connection, stack, raise_on_error=True)
                    return answers
            except MovedError:
                continue
        raise redis.ConnectionError(f"{address} {_CIRCLE}")

    def _by_node(self, stack: Sequence[Any]) -> list[Any]:
        topology = self._cluster.topology
        answers: list[Any] = [None] * len(stack)
        keys = [key_of(args) for args, _ in stack]
        first = next((key for key in keys if key is not None), None)
        by_node: dict[Address, list[int]] = {}
        for place, key in enumerate(keys):
            where = first if key is None else key
            try:
                address = topology.any() if where is None else topology.owner(slot_of(where))
            except redis.RedisError as error:
                answers[place] = error
            else:
                by_node.setdefault(address, []).append(place)
        self._exchange(stack, by_node, answers)
        for place, answer in enumerate(answers):
            if isinstance(answer, AskError | TryAgainError):
                try:
                    answers[place] = self._cluster.routed(stack[place][0], stack[place][1], answer)
                except redis.RedisError as error:
                    answers[place] = error
        return answers

    def _exchange(self, stack: Sequence[Any], by_node: dict[Address, list[int]], answers: list[Any]) -> None:
        """Send to all nodes before the first answer is read."""
        under_way = []
        for address, places in by_node.items():
            try:
                with ExitStack() as lent:
                    connection = lent.enter_context(self._cluster.topology.connection(address))
                    connection.send_packed_command(connection.pack_commands([stack[place][0] for place in places]))
                    under_way.append((lent.pop_all(), connection, address, places))
            except redis.RedisError as error:
                for place in places:
                    answers[place] = error
        last = monotonic()
        for lent, connection, address, places in under_way:
            try:
                with lent:
                    for place in places:
                        answers[place] = self._answer(connection, *stack[place])
                    before, last = last, monotonic()
                    self._cluster.topology.answered(address, last - before)
            except redis.RedisError as error:
                for place in places:
                    answers[place] = error

    def _answer(self, connection: Any, args: Sequence[Any], options: dict[str, Any]) -> Any:
        try:
            return self.parse_response(connection, args[0], **options)  # type: ignore[no-untyped-call]
        except ResponseError as error:
            self._cluster.topology.note(error)
            return error
