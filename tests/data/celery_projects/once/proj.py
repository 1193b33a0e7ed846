# ruff: noqa
"""Like celery-once and service templates: a base that locks calls, routes by a function, a pool of connections per process."""

import os
import random
import redis
from celery import Celery, Task, chain, current_task, group, shared_task
from celery.exceptions import MaxRetriesExceededError
from celery.signals import (
    after_task_publish,
    before_task_publish,
    celeryd_init,
    setup_logging,
    task_unknown,
    worker_process_init,
    worker_process_shutdown,
    worker_ready,
)
from celery.utils.log import get_task_logger
from kombu.utils.uuid import uuid
from waiting import WAIT, wait_for

logger = get_task_logger(__name__)
store = redis.Redis.from_url(os.environ["RESULT_BACKEND"], decode_responses=True)
facts = {}


class AlreadyQueued(Exception):
    pass


def route_task(name, args, kwargs, options, task=None, **kw):
    if name.startswith("reports."):
        return {"queue": "reports", "priority": 3}


class ReportAnnotate:
    def annotate(self, task):
        if task.name.startswith("reports."):
            return {"rate_limit": "50/s"}


app = Celery("once")
app.config_from_object(
    {
        "broker_url": os.environ["BROKER_URL"],
        "result_backend": os.environ["RESULT_BACKEND"],
        "task_routes": (route_task,),
        "task_annotations": [ReportAnnotate(), {"*": {"default_retry_delay": 0}}],
        "task_default_queue": "once",
        "result_extended": True,
    }
)


@celeryd_init.connect
def pick_queues(sender=None, instance=None, conf=None, options=None, **kwargs):
    facts["init"] = sender


@worker_process_init.connect
def open_pool(**kwargs):
    facts["pool"] = os.getpid()


@before_task_publish.connect
def tag(sender=None, headers=None, body=None, **kwargs):
    headers["tenant"] = "a"


class QueueOnce(Task):
    """Refuses a call while another with the same arguments waits or runs."""

    abstract = True
    once = {"timeout": 60}

    def key(self, args, kwargs):
        return "once:" + self.name + repr(sorted(kwargs.items())) + repr(tuple(args or ()))

    def apply_async(self, args=None, kwargs=None, **options):
        if not options.get("retries"):
            if not store.set(self.key(args, kwargs or {}), "1", nx=True, ex=self.once["timeout"]):
                raise AlreadyQueued(self.name)
        return super().apply_async(args, kwargs, **options)

    def before_start(self, task_id, args, kwargs):
        store.rpush("seen", "before_start")

    def after_return(self, status, retval, task_id, args, kwargs, einfo):
        store.rpush("seen", "after_return " + status)
        if status != "RETRY":
            store.delete(self.key(args, kwargs))


@app.task(base=QueueOnce, name="reports.weekly", bind=True, once={"timeout": 30})
def weekly(self, team):
    store.blpop("may-end", timeout=WAIT)
    return [team, self.rate_limit, self.once, self.request.delivery_info["routing_key"], self.request.headers["tenant"]]


@app.task(base=QueueOnce, name="reports.flaky", bind=True, autoretry_for=(OSError,), max_retries=3, retry_jitter=True)
def flaky(self, n):
    if self.request.retries < n:
        raise OSError("away")
    return self.request.retries


@shared_task(bind=True, name="jobs.fan")
def fan(self, n):
    raise self.replace(group(square.s(i) for i in range(n)) | total.si() if n < 0 else chain(square.s(n), square.s()))


@shared_task(name="jobs.square")
def square(n):
    return n * n


@shared_task(name="jobs.total")
def total(values):
    return sum(values)


@app.task(name="jobs.process")
def process():
    return [facts["pool"] == os.getpid(), facts["init"], current_task.name]


def calls():
    store.delete("seen", "may-end")
    first = weekly.apply_async(("a",), countdown=0.1)
    try:
        weekly.delay("a")
    except AlreadyQueued as error:
        refused = str(error)
    store.rpush("may-end", "first", "second")
    weekly_value = first.get(timeout=WAIT)
    retried = flaky.delay(2).get(timeout=WAIT)
    seen = wait_for(lambda: store.lrange("seen", 0, -1), lambda seen: len(seen) >= 6)
    store.delete("seen")
    second = weekly.delay("a").get(timeout=WAIT)[0]
    squares = (group(square.s(n) for n in range(4)) | total.s()).apply_async().get(timeout=WAIT)
    done = app.AsyncResult(first.id)
    extended = [done.name, list(done.args), done.queue, done.worker]
    return [
        weekly_value,
        refused,
        retried,
        seen,
        second,
        fan.delay(3).get(timeout=WAIT),
        squares,
        extended,
        process.delay().get(timeout=WAIT),
    ]


EXPECTED = [
    ["a", "50/s", {"timeout": 30}, "reports", "a"],
    "reports.weekly",
    2,
    ["before_start", "after_return SUCCESS", *["before_start"] * 3, "after_return SUCCESS"],
    "a",
    81,
    14,
    ["reports.weekly", ["a"], "reports", "node@here"],
    [True, "node@here", "jobs.process"],
]
