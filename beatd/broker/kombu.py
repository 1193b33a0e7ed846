"""Every broker that beatd does not speak to itself goes through kombu: RabbitMQ, SQS, Sentinel, memory and the rest."""

from __future__ import annotations

import os
import threading
from typing import Any

import kombu as _kombu
from amqp.exceptions import ChannelError
from kombu.exceptions import KombuError, OperationalError

from beatd.broker.port import PUBLISH_ATTEMPTS, PUBLISH_TIMEOUT
from beatd.exceptions import BrokerError
from beatd.message import TaskMessage
from beatd.store.client import redacted

kombu: Any = _kombu  # only half of it is typed


class KombuPublisher:
    """Publishes through one connection, with confirms where the transport has them (AMQP)."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._lock = threading.Lock()
        self._owner = 0
        self._connection: Any = None
        self._producer: Any = None
        self._declared: set[str] = set()

    def publish(self, message: TaskMessage, *, queue: str, exchange: str = "", routing_key: str | None = None) -> None:
        try:
            with self._lock:
                self._publish(message, queue, exchange, routing_key or queue)
        except (OperationalError, KombuError, OSError) as error:
            self.close()
            raise BrokerError(f"broker {redacted(self._url)}: {error}") from error

    def depth(self, queue: str) -> int:
        try:
            with self._lock:
                return int(self._open().channel.queue_declare(queue, passive=True).message_count)
        except ChannelError:
            self.close()
            return 0  # there is no such queue
        except (OperationalError, KombuError, OSError) as error:
            self.close()
            raise BrokerError(f"broker {redacted(self._url)}: {error}") from error

    def close(self) -> None:
        connection, self._connection, self._producer = self._connection, None, None
        self._declared.clear()
        if connection is not None and self._owner == os.getpid():
            connection.release()

    def _publish(self, message: TaskMessage, queue: str, exchange: str, routing_key: str) -> None:
        producer = self._open()
        declare = [] if exchange or queue in self._declared else [task_queue(queue)]
        producer.publish(
            message.body,
            exchange=exchange,
            routing_key=routing_key,
            content_type=message.content_type,
            content_encoding=message.content_encoding,
            headers=dict(message.headers),
            declare=declare,
            retry=True,
            retry_policy=_RETRY_POLICY,
            timeout=PUBLISH_TIMEOUT,
            **_properties(message),
        )
        self._declared.add(queue)

    def _open(self) -> Any:
        """The producer of this process: a connection that was opened before a fork belongs to the parent."""
        if self._producer is None or self._owner != os.getpid():
            self._owner = os.getpid()
            self._declared.clear()
            self._connection = kombu.Connection(
                self._url,
                connect_timeout=PUBLISH_TIMEOUT,
                transport_options={"confirm_publish": True} if self._url.startswith(("amqp", "pyamqp")) else {},
            )
            self._producer = kombu.Producer(self._connection, auto_declare=False)
        return self._producer


def task_queue(name: str) -> Any:
    """A queue as Celery declares it: other arguments would be refused by RabbitMQ once it exists."""
    return kombu.Queue(name, kombu.Exchange(name, type="direct", durable=True), routing_key=name, durable=True)


_RETRY_POLICY = {"max_retries": PUBLISH_ATTEMPTS - 1, "interval_start": 0, "interval_step": 0.2, "interval_max": 1}


def _properties(message: TaskMessage) -> dict[str, Any]:
    """kombu's keywords for the message's properties; it takes the time to live in seconds and writes milliseconds."""
    properties = dict(message.properties)
    if (expiration := properties.pop("expiration", None)) is not None:
        properties["expiration"] = int(expiration) / 1000
    return properties
