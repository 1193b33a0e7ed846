"""A Celery app with periodic tasks."""

import os

from celery import Celery

url = os.environ.get("REDIS_URL", "redis://localhost:6379/0")
app = Celery("proj", broker=url, backend=url)
app.conf.broker_connection_retry_on_startup = True
app.conf.beat_schedule = {
    "add-every-2-seconds": {"task": "proj.add", "schedule": 2.0, "args": (16, 16)},
}


@app.task
def add(x, y):
    return x + y
