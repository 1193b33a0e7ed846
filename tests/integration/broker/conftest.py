"""A publisher on a real RabbitMQ, and a look into its queues."""

import time

import kombu
import pytest

from beatd.broker import Address, OutgoingMessage
from beatd.broker.amqp_publisher import AmqpPublisher
from beatd.message.protocol import build


def parcel(task_id, queue="", exchange="", key="", **options):
    """A parcel whose message has this id."""
    return OutgoingMessage(
        build("tasks.t", task_id, (1,), **options), Address(key, exchange) if exchange else Address(queue)
    )


@pytest.fixture
def publisher(rabbitmq):
    publisher = AmqpPublisher(rabbitmq.url)
    yield publisher
    publisher.close()


class Queues:
    """A connection of the test's own."""

    def __init__(self, rabbitmq):
        self._connection = kombu.Connection(rabbitmq.url, connect_timeout=5)
        self.channel = self._connection.channel()

    def take(self, queue, at_least=0, timeout=10):
        """Everything in the queue, as messages; waits until there are so many."""
        taken = []
        deadline = time.monotonic() + timeout
        while True:
            if message := self.channel.basic_get(queue, no_ack=True):
                taken.append(message)
            elif len(taken) >= at_least or time.monotonic() > deadline:
                return taken
            else:
                time.sleep(0.02)

    def ids(self, queue, at_least=0, timeout=10):
        return [message.headers["id"] for message in self.take(queue, at_least, timeout)]

    def close(self):
        self._connection.release()


@pytest.fixture
def queues(rabbitmq):
    queues = Queues(rabbitmq)
    yield queues
    queues.close()
