# ruff: noqa
"""Like payment and webhook services on RabbitMQ: late acknowledgements, and a dead-letter queue for what is rejected."""

import os
from celery import Celery
from celery.exceptions import Reject
from kombu import Exchange, Queue
from waiting import WAIT, wait_for

dead_exchange = Exchange("payments.dead", type="direct")
dead_queue = Queue("payments.dead", dead_exchange, routing_key="dead")
queue = Queue(
    "payments",
    Exchange("payments"),
    routing_key="payments",
    queue_arguments={"x-dead-letter-exchange": "payments.dead", "x-dead-letter-routing-key": "dead"},
)

app = Celery("payments", broker=os.environ["BROKER_URL"], backend=os.environ["RESULT_BACKEND"])
app.conf.update(
    task_queues=[queue],
    task_default_queue="payments",
    task_default_exchange="payments",
    task_default_routing_key="payments",
    task_acks_late=True,
    task_reject_on_worker_lost=True,
)


@app.task(bind=True, max_retries=1)
def charge(self, amount):
    try:
        if amount < 0:
            raise ValueError("negative")
        if self.request.retries < 1:
            raise ConnectionError("away")
    except ConnectionError as exc:
        raise self.retry(exc=exc, countdown=0)
    except ValueError as exc:
        raise Reject(exc, requeue=False)
    return amount


@app.task(bind=True)
def again(self):
    if not self.request.delivery_info["redelivered"]:
        raise Reject("not yet", requeue=True)
    return self.request.delivery_info["redelivered"]


def dead():
    """The next message in the dead-letter queue."""
    with app.connection_for_read() as connection:
        message = dead_queue(connection.default_channel).get(no_ack=True)
        return message and [message.headers["task"], message.payload[0], message.headers["x-death"][0]["reason"]]


def calls():
    with app.connection_for_write() as connection:
        dead_queue(connection).declare()
        queue(connection).declare()
    bad = charge.delay(-1)
    letter = wait_for(dead, lambda found: found)
    return [charge.delay(7).get(timeout=WAIT), letter, again.delay().get(timeout=WAIT), bad.id != "", dead()]


EXPECTED = [7, ["proj.charge", [-1], "rejected"], True, True, None]
