"""The module ``proj`` of both workers; BROKER, BACKEND, QUEUE and MORE settings are filled in.

No test, and not imported as it is.
"""

# ruff: noqa: F821, TRY301
# mypy: ignore-errors

import json

import redis
from celery import Celery, Task, chain, current_app, current_task, group, shared_task
from celery.exceptions import Ignore, Reject
from celery.signals import task_failure, task_postrun, task_prerun, task_success
from celery.utils.log import get_task_logger

try:
    from kombu.utils.json import register_type
except ImportError:  # kombu before 5.3
    register_type = print

app = Celery("proj", broker=BROKER, backend=BACKEND)
app.conf.task_default_queue = QUEUE
app.conf.update(MORE)
app.conf.broker_connection_retry_on_startup = True
log = get_task_logger(__name__)
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
def stages(self, key):
    store.blpop(key, timeout=30)  # until somebody listens
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


@app.task(bind=True, typing=False, name="proj.named", priority=3)
def given_name(self, *args, **kwargs):
    return [self.name, list(args), kwargs]


class Counting(Task):
    """A base class with a cache that lives as long as the process."""

    abstract = True
    _calls = 0

    def __call__(self, *args, **kwargs):
        type(self)._calls += 1
        return [self._calls > 0, super().__call__(*args, **kwargs)]

    def before_start(self, task_id, args, kwargs):
        note(f"hooks-{task_id}", ["before_start", list(args)])

    def on_success(self, retval, task_id, args, kwargs):
        note(f"hooks-{task_id}", ["on_success", retval])

    def on_failure(self, exc, task_id, args, kwargs, einfo):
        note(f"hooks-{task_id}", ["on_failure", repr(exc), "ZeroDivisionError" in str(einfo)])

    def on_retry(self, exc, task_id, args, kwargs, einfo):
        note(f"hooks-{task_id}", ["on_retry", repr(exc)])

    def after_return(self, status, retval, task_id, args, kwargs, einfo):
        note(f"hooks-{task_id}", ["after_return", status])


@app.task(base=Counting, bind=True, max_retries=1)
def divide(self, x, y):
    if y is None:
        raise self.retry(exc=KeyError("no y"), args=(x, 0), countdown=0.1)
    return x / y


@shared_task
def shared(x):
    """Belongs to whichever app there is."""
    return [x, current_task.name, current_app.main]


@app.task(bind=True)
def logs(self):
    log.info("from the task")
    log.warning("a warning")
    return self.request.hostname.partition("@")[0]


@task_prerun.connect
def before(sender, task_id, task, args, kwargs, **rest):
    if task.name == "proj.watched":
        note(f"signals-{task_id}", ["prerun", list(args)])


@task_postrun.connect
def afterwards(sender, task_id, task, args, kwargs, retval, state, **rest):
    if task.name == "proj.watched":
        note(f"signals-{task_id}", ["postrun", retval, state])


@task_success.connect(sender="proj.watched")
def never(sender, result, **rest):
    """By name nobody is found in Celery: senders are tasks."""


@task_failure.connect
def on_any_failure(sender, task_id, exception, args, kwargs, einfo, **rest):
    if sender.name == "proj.boom":
        note(f"signals-{task_id}", ["failure", repr(exception)])


@app.task
def watched(x):
    return x


@app.task(bind=True)
def waits(self):
    try:
        add.delay(1, 1).get(timeout=5)
    except RuntimeError as error:
        return str(error)[:32]
    return "waited"


@app.task
def handle_of_a_task():
    return add.delay(1, 2)


@app.task
def handle_of_a_group():
    return group(add.s(1, 2), add.s(3, 4))()


@app.task
def lazy_text():
    from django.utils.functional import lazystr

    return {"text": lazystr("hello")}


class Money:
    """A type that is registered at kombu."""

    def __init__(self, cents):
        self.cents = cents


register_type(Money, "Money", lambda money: money.cents, Money)


@app.task
def doubled(money):
    return Money(money.cents * 2)
