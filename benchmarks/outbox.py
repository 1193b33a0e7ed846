"""A herd through the outbox: N entries due in the same second, state in Redis, messages to RabbitMQ with confirms.

    python benchmarks/outbox.py [-n 10000] [--limit 20]

In one run, each on a fresh Redis and fresh queues of one RabbitMQ, seen from the broker:

* beatd: the whole daemon, from the due second to the last message in the queue;
* outbox: a full outbox emptied, without anything else going on;
* kombu: the same messages through kombu's producer, each confirmed before the next;
* celery beat: the same schedule, within ``--limit`` seconds of its first message;
* limit: the same messages through beatd's publisher, without a store.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import amqp
import kombu
from figures import LIMIT, Figure, show
from herd import end, fresh_redis, soon, start_beatd, start_celery

from beatd.beat.delivery import OutboxDelivery
from beatd.beat.dispatch_log import DispatchLog
from beatd.beat.message_builder import MessageBuilder
from beatd.beat.term import Term
from beatd.broker import Address, OutgoingMessage
from beatd.broker.amqp_publisher import AmqpPublisher
from beatd.clock import SystemClock
from beatd.message.protocol import open_envelope
from beatd.model import Entry, Run
from beatd.schedules import parse
from beatd.store.client import connect
from beatd.store.keys import Keys
from beatd.store.outbox import Outbox

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.rabbitmq import RabbitMQ

QUEUE = "celery"


def envelopes(n: int, queue: str) -> list[bytes]:
    """What the claims of a herd put into the outbox."""
    due_ms, schedule, messages = 1_790_000_000_000, parse(60.0), MessageBuilder(queue)
    entries = (Entry(name=f"entry-{i}", task="tasks.noop", schedule=schedule, args=(i,)) for i in range(n))
    return [messages.render(Run(entry, due_ms, due_ms, schedule), None) for entry in entries]


def measure_daemon(rabbit: RabbitMQ, n: int, limit: float) -> float:
    with fresh_redis() as store, tempfile.TemporaryDirectory() as folder:
        due = soon(n)
        process = start_beatd(store, n, due, Path(folder), more=f'[broker]\nurl = "{rabbit.url}"\n')
        return watched(rabbit, process, n, due, limit)


def measure_celery(rabbit: RabbitMQ, n: int, limit: float) -> float:
    with tempfile.TemporaryDirectory() as folder:
        return watched(rabbit, start_celery(rabbit.url, n, soon(n), Path(folder)), n, None, limit)


def measure_outbox(rabbit: RabbitMQ, n: int) -> float:
    queue, keys = f"bench-{uuid.uuid4().hex}", Keys("bench")
    with fresh_redis() as url:
        client, outbox = connect(url), Outbox(connect(url), keys)
        term = Term(1, "bench:1", float("inf"))
        client.set(keys.shard(0).lease, term.lease_value)
        for raw in envelopes(n, queue):
            client.lpush(outbox.key, raw)
        publisher = AmqpPublisher(rabbit.url)
        assert publisher.depth(queue) == 0
        began = time.perf_counter()
        assert OutboxDelivery(outbox, publisher, SystemClock()).flush(term, DispatchLog())
        took = time.perf_counter() - began
        assert publisher.depth(queue) == n
        publisher.close()
    return n / took


def measure_kombu(rabbit: RabbitMQ, n: int) -> float:
    queue = f"bench-{uuid.uuid4().hex}"
    messages = [open_envelope(raw) for raw in envelopes(n, queue)]
    with kombu.Connection(rabbit.url, transport_options={"confirm_publish": True}) as connection:
        producer = kombu.Producer(connection, auto_declare=False)
        kombu.Queue(queue, kombu.Exchange(queue, type="direct"), routing_key=queue)(connection.channel()).declare()
        began = time.perf_counter()
        for message in messages:
            producer.publish(
                message.body,
                routing_key=queue,
                headers=message.headers,
                content_type=message.content_type,
                content_encoding=message.content_encoding,
                delivery_mode=2,
                correlation_id=message.id,
            )
        took = time.perf_counter() - began
    return n / took


def watched(rabbit: RabbitMQ, process: subprocess.Popen[bytes], n: int, due: datetime | None, limit: float) -> float:
    """Messages a second from the due second (else from the first message) to the last one or the limit."""
    connection = rabbit.connect()
    channel = connection.channel()
    channel.queue_declare(QUEUE, durable=True, auto_delete=False)
    began, last, sent = None if due is None else due.timestamp(), 0.0, 0
    give_up = time.time() + 60
    try:
        while sent < n and time.time() < (give_up if began is None else began + limit):
            time.sleep(0.02)
            count = channel.queue_declare(QUEUE, passive=True).message_count
            if count and count != sent:
                last, sent = time.time(), count
                began = began or last
    finally:
        end(process)
        channel.queue_purge(QUEUE)
        with contextlib.suppress(amqp.AMQPError, OSError):
            connection.close()
    return sent / (last - began) if sent and began and last > began else math.nan


LIMIT_QUEUE = "bench-limit"


def raw(rabbit: RabbitMQ, n: int) -> float:
    """Messages a second that RabbitMQ confirms at best: equal bytes, published in batches, one wait for each."""
    publisher = AmqpPublisher(rabbit.url)
    messages = [OutgoingMessage(open_envelope(one), Address(LIMIT_QUEUE)) for one in envelopes(n, LIMIT_QUEUE)]
    publisher.depth(LIMIT_QUEUE)
    began = time.perf_counter()
    for at in range(0, n, 2_000):
        assert not publisher.publish_many(messages[at : at + 2_000])
    took = time.perf_counter() - began
    publisher.close()
    return n / took


def figures(rabbit: RabbitMQ, n: int, limit: float) -> Iterator[Figure]:
    """One round."""
    what = "messages a second"
    yield Figure("RabbitMQ: whole daemon", what, "beatd", measure_daemon(rabbit, n, limit))
    yield Figure("RabbitMQ: whole daemon", what, "celery beat", measure_celery(rabbit, n, limit))
    yield Figure("RabbitMQ: full outbox", what, "beatd", measure_outbox(rabbit, n))
    yield Figure("RabbitMQ: full outbox", what, "kombu, one by one", measure_kombu(rabbit, max(n // 5, 1)))
    yield Figure("RabbitMQ: full outbox", what, f"{LIMIT}: publishing alone", raw(rabbit, n))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("-n", type=int, default=10_000, help="entries (default: 10000)")
    parser.add_argument("--limit", type=float, default=20, help="seconds after the due second")
    options = parser.parse_args()
    rabbit = RabbitMQ()
    try:
        rabbit.start()
        show(figures(rabbit, options.n, options.limit))
    finally:
        rabbit.close()


if __name__ == "__main__":
    main()
