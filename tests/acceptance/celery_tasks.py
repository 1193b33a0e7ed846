"""The module ``proj`` of both workers; BROKER, BACKEND and QUEUE are filled in. No test, and not imported as it is."""

# ruff: noqa: F821
# mypy: ignore-errors

import json

import redis
from celery import Celery, chain, group
from celery.exceptions import Ignore, Reject

app = Celery("proj", broker=BROKER, backend=BACKEND)
app.conf.task_default_queue = QUEUE
app.conf.broker_connection_retry_on_startup = True
store = redis.Redis.from_url(BACKEND)


class ShopError(Exception):
    """One of the user's own, with two arguments."""

    def __init__(self, item, count):
        super().__init__(item, count)
        self.item, self.count = item, count


def note(key, value):
    store.rpush(key, json.dumps(value))


@app.task
def add(x, y):
    return x + y


@app.task
def mul(x, y):
    return x * y


@app.task
def total(numbers):
    return sum(numbers)


@app.task
def echo(value):
    return value


@app.task
def listed(*args):
    return list(args)


@app.task
def boom(*args):
    raise ValueError("boom", 7)


@app.task
def own_error(*args):
    raise ShopError("apple", 3)


@app.task(bind=True)
def who(self):
    request = self.request
    return {
        "id": request.id,
        "root": request.root_id,
        "parent": request.parent_id,
        "queue": request.delivery_info["routing_key"],
        "tenant": (request.headers or {}).get("tenant"),
        "limits": request.timelimit,
        "retries": request.retries,
        "direct": request.called_directly,
        "eager": request.is_eager,
        "eta": request.eta is not None,
        "expires": request.expires is not None,
        "shadow": request.shadow,
        "args": list(request.args),
        "kwargs": request.kwargs,
        "group": request.group,
        "correlation": request.correlation_id,
    }


@app.task(bind=True, max_retries=3)
def flaky(self, wanted):
    if self.request.retries < wanted:
        raise self.retry(countdown=0.1)
    return self.request.retries


@app.task(bind=True, max_retries=2)
def shrinking(self, n, seen=0):
    if n:
        raise self.retry((n - 1,), {"seen": seen + 1}, countdown=0.1)
    return seen


@app.task(bind=True, max_retries=0)
def hopeless(self):
    raise self.retry(countdown=0.1)


@app.task(bind=True, max_retries=1)
def in_vain(self):
    try:
        raise KeyError("first cause")
    except KeyError as error:
        raise self.retry(exc=error, countdown=0.1) from error


@app.task(bind=True)
def quietly(self):
    if self.request.retries == 0:
        self.retry(countdown=0.1, throw=False)
        raise Ignore
    return "again"


@app.task(autoretry_for=(OSError,), retry_kwargs={"max_retries": 2, "countdown": 0.1}, bind=True)
def auto(self, key):
    note(key, self.request.retries)
    raise OSError("still away")


@app.task(autoretry_for=(OSError,), retry_backoff=0.1, retry_jitter=False, dont_autoretry_for=(FileNotFoundError,))
def not_auto():
    raise FileNotFoundError("gone")


@app.task(bind=True)
def stages(self):
    self.update_state(state="HALFWAY", meta={"done": 50})
    return "done"


@app.task(bind=True)
def left_in_state(self):
    self.update_state(state="MINE", meta={"left": 1})
    raise Ignore


@app.task(track_started=True)
def reject():
    raise Reject("not today", requeue=False)


@app.task(ignore_result=True)
def ignored(key):
    note(key, "ran")
    return 1


@app.task(throws=(KeyError,))
def expected():
    raise KeyError("known")


@app.task
def on_error_id(task_id, key=None):
    note(key, ["id", task_id])


@app.task
def on_error_details(request, exc, traceback, key=None):
    note(key, ["details", request.id, repr(exc), traceback is None or "Error" in str(traceback)])


@app.task
def after(value, key=None):
    note(key, value)
    return value


@app.task(bind=True)
def replaced_by_task(self, n):
    return self.replace(add.s(n, 100))


@app.task(bind=True)
def replaced_by_chain(self, n):
    return self.replace(chain(add.s(n, 100), mul.s(2)))


@app.task(bind=True)
def replaced_by_group(self, n):
    return self.replace(group(add.s(n, 1), add.s(n, 2)))


@app.task(bind=True)
def spawner(self, key):
    child = add.delay(1, 1)
    note(key, [child.id, self.request.id, self.request.root_id])
    return child.id


@app.task(bind=True)
def waits(self):
    try:
        add.delay(1, 1).get(timeout=5)
    except RuntimeError as error:
        return str(error)[:32]
    return "waited"
