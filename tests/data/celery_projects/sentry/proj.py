# ruff: noqa
"""Like Sentry: a subclass of the app, tasks of a class that changes the signature, a decorator of the project."""

import os
from datetime import datetime, timezone
from celery import Celery, Task
from celery.exceptions import MaxRetriesExceededError, Retry
from waiting import WAIT


class SentryTask(Task):
    Request = "celery.worker.request:Request"

    def apply_async(self, args=(), kwargs=(), **options):
        kwargs = dict(kwargs or {})
        kwargs["__start_time"] = datetime.now(timezone.utc).timestamp()
        return super().apply_async(args, kwargs, **options)

    def __call__(self, *args, **kwargs):
        started = kwargs.pop("__start_time", None)
        value = super().__call__(*args, **kwargs)
        return value if started is None else {"value": value, "timed": started > 0}


class SentryCelery(Celery):
    task_cls = SentryTask


app = SentryCelery("sentry", broker=os.environ["BROKER_URL"], backend=os.environ["RESULT_BACKEND"])


def instrumented_task(name, **options):
    def wrapped(func):
        return app.task(name=name, typing=False, **options)(func)

    return wrapped


@instrumented_task(name="sentry.tasks.store", queue="celery", default_retry_delay=1, max_retries=1)
def store(project_id, event_id=None):
    try:
        if store.request.retries == 0:
            raise ConnectionError("first")
    except ConnectionError as exc:
        store.retry(exc=exc, countdown=0)
    return [project_id, event_id, store.request.retries]


def calls():
    return [
        store.delay(1, event_id="a").get(timeout=WAIT),
        store.apply_async((2,), {"event_id": "b"}, countdown=0.1).get(timeout=WAIT),
        app.send_task("sentry.tasks.store", (3,)).get(timeout=WAIT),
    ]


EXPECTED = [
    {"value": [1, "a", 1], "timed": True},
    {"value": [2, "b", 1], "timed": True},
    {"value": [3, None, 1], "timed": True},
]
