"""A herd through the outbox: N entries due in the same second, state in Redis, messages to RabbitMQ with confirms.

    python benchmarks/outbox.py [-n 10000] [--limit 20]

In one run, each on a fresh Redis and fresh queues of one RabbitMQ, seen from the broker:

* beatd: the whole daemon, from the due second to the last message in the queue;
* outbox: a full outbox emptied, without anything else going on;
* kombu: the same messages through kombu's producer, each confirmed before the next;
* celery beat: the same schedule, within ``--limit`` seconds after due.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path

import amqp
import kombu
from herd import fresh_redis, lateness, next_minute, start_celery

from beatd.beat.delivery import OutboxDelivery
from beatd.beat.dispatch_log import DispatchLog
from beatd.beat.message_builder import MessageBuilder
from beatd.beat.term import Term
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


def measure_daemon(rabbit: RabbitMQ, n: int, limit: float) -> str:
    with fresh_redis() as store, tempfile.TemporaryDirectory() as folder:
        due = next_minute()
        path = Path(folder) / "beat.toml"
        head = f'[redis]\nurl = "{store}"\n[broker]\nurl = "{rabbit.url}"\n[log]\nlevel = "warning"\n'
        cron = f"{due.minute} {due.hour} {due.day} {due.month} *"
        entries = (
            f'[beat_schedule.entry-{i}]\ntask = "tasks.noop"\nschedule = "{cron}"\nargs = [{i}]\n' for i in range(n)
        )
        path.write_text(head + "".join(entries))
        process = subprocess.Popen([sys.executable, "-m", "beatd", "--config", str(path)], cwd=folder)
        return watched("beatd", rabbit, process, n, due, limit)


def measure_celery(rabbit: RabbitMQ, n: int, limit: float) -> str:
    with tempfile.TemporaryDirectory() as folder:
        due = next_minute()
        return watched("celery beat", rabbit, start_celery(rabbit.url, n, due, Path(folder)), n, due, limit)


def measure_outbox(rabbit: RabbitMQ, n: int) -> str:
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
    return f"{'outbox':12} {n:>8} of {n}   {n / took:10.0f} msg/s"


def measure_kombu(rabbit: RabbitMQ, n: int) -> str:
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
    return f"{'kombu':12} {n:>8} of {n}   {n / took:10.0f} msg/s"


def watched(name: str, rabbit: RabbitMQ, process: subprocess.Popen[bytes], n: int, due: datetime, limit: float) -> str:
    """Watch the queue's depth from the due second on, then end the process and empty the queue."""
    connection = rabbit.connect()
    channel = connection.channel()
    channel.queue_declare(QUEUE, durable=True, auto_delete=False)
    seen: list[tuple[float, int]] = []
    try:
        while (late := time.time() - due.timestamp()) < limit and (not seen or seen[-1][1] < n):
            time.sleep(0.02 if late > -0.05 else 0.2)
            count = channel.queue_declare(QUEUE, passive=True).message_count
            if count and (not seen or seen[-1][1] != count):
                seen.append((time.time() - due.timestamp(), count))
    finally:
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
        process.kill()
        process.wait()
        channel.queue_purge(QUEUE)
        with contextlib.suppress(amqp.AMQPError, OSError):
            connection.close()
    if not seen:
        return f"{name:12} {0:>8} of {n} within {limit:.0f} s"
    last, sent = seen[-1]
    p50, p99 = lateness(seen, 0.5) * 1000, lateness(seen, 0.99) * 1000
    rate = f"{sent / last:10.0f} msg/s"
    return f"{name:12} {sent:>8} of {n}   {rate}   p50 {p50:9.1f} ms   p99 {p99:9.1f} ms   last {last * 1000:9.1f} ms"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("-n", type=int, default=10_000, help="entries (default: 10000)")
    parser.add_argument("--limit", type=float, default=20, help="seconds after the due second")
    options = parser.parse_args()
    print(f"{options.n} messages; {os.cpu_count()} cores; Python {sys.version.split()[0]}; {datetime.now(UTC):%F}")
    rabbit = RabbitMQ()
    try:
        rabbit.start()
        print(measure_daemon(rabbit, options.n, options.limit), flush=True)
        print(measure_outbox(rabbit, options.n), flush=True)
        print(measure_kombu(rabbit, max(options.n // 5, 1)), flush=True)
        print(measure_celery(rabbit, options.n, options.limit), flush=True)
    finally:
        rabbit.close()


if __name__ == "__main__":
    main()
