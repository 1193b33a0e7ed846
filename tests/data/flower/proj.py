# ruff: noqa
"""Tasks that end in all ways that Flower shows."""

import os
import time
from celery import Celery
from celery.exceptions import Ignore, Reject

app = Celery("proj", broker=os.environ["BROKER_URL"], backend=os.environ["RESULT_BACKEND"])
app.conf.task_default_queue = os.environ["QUEUE"]
app.conf.task_send_sent_event = True


class ShopError(Exception):
    def __init__(self, item, count):
        super().__init__(item, count)


@app.task
def add(x, y, note=None):
    return x + y


@app.task(resultrepr_maxsize=20)
def long(text):
    return text


@app.task(track_started=True, ignore_result=True)
def unwanted():
    return [1, "é"]


@app.task(send_events=False)
def silent():
    return 1


@app.task
def boom():
    try:
        raise KeyError("inner")
    except KeyError as error:
        raise ValueError("boom", 7) from error


@app.task
def deep(n):
    return deep.run(n - 1) if n else 1 / 0


@app.task(throws=(ShopError,), acks_late=True)
def expected():
    raise ShopError("apple", 3)


@app.task(bind=True, max_retries=2)
def flaky(self, wanted, countdown):
    if self.request.retries < wanted:
        try:
            raise OSError("away")
        except OSError as exc:
            raise self.retry(exc=exc, countdown=countdown)
    return self.request.retries


@app.task
def reject():
    raise Reject("no", requeue=False)


@app.task(acks_late=True)
def late_reject():
    raise Reject("no", requeue=False)


@app.task
def ignore():
    raise Ignore()


@app.task(bind=True)
def state(self):
    self.update_state(state="MINE", meta={"a": 1})
    return "done"


@app.task
def sleep(seconds):
    time.sleep(seconds)


@app.task(soft_time_limit=1)
def soft():
    time.sleep(30)


@app.task(time_limit=1)
def hard():
    time.sleep(30)


@app.task
def die():
    os._exit(3)


@app.task(rate_limit="100/s")
def limited(n):
    return n
