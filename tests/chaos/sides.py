"""The broker's side: where messages go, and how every one of them is seen in the end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import amqp

from beatd.broker.redis_keys import RedisKeys
from tests.chaos.ledger import Books, Consumer, Run, id_of
from tests.chaos.plan import Plan
from tests.chaos.proxy import Proxy
from tests.chaos.store import ChaosStore
from tests.chaos.work import QUEUE, Executions, Window, Work
from tests.rabbitmq import RabbitMQ

STANDSTILL = 60.0
"""Seconds without an execution after which the worker is said to have stopped working, though there is work."""


class Side(Protocol):
    """Entered before the first daemon starts; asked for the books when the last one has ended."""

    plan: Plan
    repeats: bool
    """Whether a message may come again, under the same id."""

    def toml(self, number: int) -> str:
        """What the file of daemon ``number`` says about the broker."""

    def began(self, folder: Path) -> None:
        """The daemons run, with their files in ``folder``."""

    def check(self) -> None:
        """Fails if something ended that should not have."""

    def finish(self, due: set[Run], forgetful: Sequence[Window]) -> tuple[Books, Executions | None]:
        """No daemon runs any more: what of all that was due has reached the broker, and what was executed."""

    def close(self) -> None:
        """End what was started."""


class StoreSide:
    """The state store is the broker: messages are taken from its queues as they come."""

    repeats = False
    _queues = (*RedisKeys().queues("celery"), *RedisKeys().queues("other"))

    def __init__(self, store: ChaosStore, size: int) -> None:
        self.plan = Plan.of(("", 'queue = "other"\n', "priority = 6\n"), size)
        self._stack = ExitStack()
        self._consumer = Consumer(self._stack.enter_context(store.client()), self._queues)

    def toml(self, number: int) -> str:
        return ""

    def began(self, folder: Path) -> None:
        self._stack.enter_context(self._consumer)

    def check(self) -> None:
        assert self._consumer.error is None, f"the consumer failed: {self._consumer.error!r}"

    def finish(self, due: set[Run], forgetful: Sequence[Window]) -> tuple[Books, None]:
        self._consumer.__exit__()
        self.check()
        self._consumer.drain()
        return self._consumer.books, None

    def close(self) -> None:
        self._stack.close()


class RedisSide:
    """A Redis that is not the state store is the broker. Messages of two thirds of the entries are taken as they come;
    the worker takes the rest, and what it has executed has come."""

    repeats = True
    _queues = (*RedisKeys().queues("celery"),)

    def __init__(self, size: int, store_kind: str) -> None:
        self.plan = Plan.of(("", "priority = 6\n", f'queue = "{QUEUE}"\n'), size)
        self._worked = self.plan.of_kind(2)
        self._store_kind = store_kind
        self._stack = ExitStack()
        self.node = ChaosStore(store_kind, "always")
        self._stack.callback(self.node.close)
        self.node.start()
        self.proxy = self._stack.enter_context(Proxy(self.node.port))
        self._consumer = Consumer(self._stack.enter_context(self.node.client()), self._queues)
        self.work: Work | None = None

    def toml(self, number: int) -> str:
        port = self.proxy.port if number == PROXIED else self.node.port
        return f'[broker]\nurl = "redis://127.0.0.1:{port}/0"\n'

    def began(self, folder: Path) -> None:
        self._stack.enter_context(self._consumer)
        self.work = Work(folder, folder / "beat-1.toml", self._store_kind)
        self._stack.callback(self.work.close)

    def check(self) -> None:
        assert self._consumer.error is None, f"the consumer failed: {self._consumer.error!r}"
        if self.work is not None:
            self.work.place.check()

    def finish(self, due: set[Run], forgetful: Sequence[Window]) -> tuple[Books, Executions]:
        self._consumer.__exit__()
        self.check()
        self._consumer.drain()
        assert self.work is not None
        sent = {id_of(run) for run in due if run[0] in self._worked}
        work_off(self.work, self._depth, lambda work: work.executed().keys() >= sent)
        self.work.executed(self._consumer.books)
        return self._consumer.books, self.work.balance(sent, forgetful)

    def close(self) -> None:
        self._stack.close()

    def _depth(self) -> int:
        with self.node.client() as client:
            return int(client.llen(QUEUE))


class RabbitSide:
    """RabbitMQ is the broker. What two thirds of the entries send goes to two queues: the worker takes from one, and
    the other is read at the end, as is the queue of the last third. So what came is known apart from what was done.
    """

    repeats = True
    EXCHANGE, LEDGER, PLAIN = "chaos", "chaos-ledger", "chaos-plain"

    def __init__(self, size: int, store_kind: str) -> None:
        routed = f'exchange = "{self.EXCHANGE}"\nrouting_key = "all"\n'
        self.plan = Plan.of((routed, f'queue = "{self.PLAIN}"\n', routed), size)
        self._store_kind = store_kind
        self._stack = ExitStack()
        self.node = RabbitMQ()
        self._stack.callback(self.node.close)
        self.node.start()
        self._declare()
        self.proxy = self._stack.enter_context(Proxy(self.node.port))
        self.work: Work | None = None

    def toml(self, number: int) -> str:
        port = self.proxy.port if number == PROXIED else self.node.port
        return f'[broker]\nurl = "amqp://guest:guest@127.0.0.1:{port}//"\n'

    def began(self, folder: Path) -> None:
        self.work = Work(folder, folder / "beat-1.toml", self._store_kind)
        self._stack.callback(self.work.close)

    def check(self) -> None:
        if self.work is not None:
            self.work.place.check()

    def finish(self, due: set[Run], forgetful: Sequence[Window]) -> tuple[Books, Executions]:
        books, worked = Books(), Books()
        for headers in self._take(self.PLAIN):
            books.note(headers)
        for headers in self._take(self.LEDGER):
            books.note(headers)
            worked.note(headers)
        assert self.work is not None
        work_off(self.work, self._depth, lambda work: work.count() > 0)
        return books, self.work.balance(worked.ids, forgetful)

    def close(self) -> None:
        self._stack.close()

    def _declare(self) -> None:
        with self.node.connect() as connection, connection.channel() as channel:
            channel.exchange_declare(self.EXCHANGE, "direct", durable=True, auto_delete=False)
            for queue in (self.LEDGER, QUEUE):
                channel.queue_declare(queue, durable=True, auto_delete=False)
                channel.queue_bind(queue, self.EXCHANGE, "all")

    def _take(self, queue: str) -> Iterator[dict[str, object]]:
        """The headers of every message in a queue. They stay there: nothing is acknowledged."""
        with self.node.connect() as connection, connection.channel() as channel:
            left = channel.queue_declare(queue, passive=True).message_count
            found: list[amqp.Message] = []
            channel.basic_consume(queue, callback=found.append, no_ack=False)
            while left:
                connection.drain_events(timeout=30)
                yield from (message.headers for message in found)
                left -= len(found)
                found.clear()

    def _depth(self) -> int:
        """Messages that wait or are not acknowledged yet."""
        text = self.node.ctl("list_queues", "name", "messages")
        return next(int(line.split()[1]) for line in text.splitlines() if line.startswith(f"{QUEUE}\t"))


def work_off(work: Work, depth: Callable[[], int], enough: Callable[[Work], bool]) -> None:
    """Wait until the worker has taken and settled everything, and end it. ``enough``: whether that may be all."""
    executed, at = -1, time.monotonic()
    while (left := depth()) or not enough(work):
        work.place.check()
        if (count := work.count()) > executed:
            executed, at = count, time.monotonic()
        if not left and time.monotonic() > at + STANDSTILL:
            break  # what is missing is told by name
        assert time.monotonic() < at + STANDSTILL, f"{left} messages are left, and nothing moves"
        time.sleep(0.5)
    work.place.stop()
    assert not depth(), "the worker gave messages back when it was told to stop"


PROXIED = 3
"""The daemon that reaches store and broker through proxies."""
