"""The module ``proj`` of both workers for compositions whose tasks fail, retry and are replaced.

No test, and not imported as it is. BROKER, BACKEND, QUEUE and MORE settings are filled in.
"""

# ruff: noqa: F821
# mypy: ignore-errors

import json

import redis
from celery import Celery, chain, chord, group
from celery.exceptions import Ignore, Reject
from celery.utils.log import get_task_logger

app = Celery("proj", broker=BROKER, backend=BACKEND)
app.conf.task_default_queue = QUEUE
app.conf.update(MORE)
app.conf.broker_connection_retry_on_startup = True
log = get_task_logger(__name__)
store = redis.Redis.from_url(BACKEND)


def facts(request, **more):
    """What a run of a task sees of its place."""
    headers = request.headers or {}
    return {
        "id": request.id,
        "parent": request.parent_id,
        "root": request.root_id,
        "group": request.group,
        "index": request.group_index,
        "retries": request.retries,
        "nesting": request.replaced_task_nesting,
        "in_chord": request.chord is not None,
        "then": len(request.chain or ()),
        "links": len(request.callbacks or ()),
        "errors": len(request.errbacks or ()),
        "stamped": sorted(request.stamped_headers or ()),
        "stamps": {name: list(value) for name, value in (request.stamps or {}).items()},
        "expires": request.expires is not None,
        "priority": request.delivery_info.get("priority"),
        "tenant": headers.get("tenant"),
        "ignored": bool(request.ignore_result),
        **more,
    }


@app.task(bind=True, max_retries=3, typing=False)
def step(self, *args, number, case, does="return", **more):  # noqa: C901 - one line for each kind
    request = self.request
    store.rpush(case, json.dumps(facts(request, number=number, args=args, more=more)))

    def other(add, *args):
        return step.s(*args, number=number + add, case=case)

    if does == "fail":
        raise ValueError(number)
    if does == "retry" and request.retries < 1:
        raise self.retry(countdown=0)
    if does == "retry in vain":
        raise self.retry(countdown=0, max_retries=1, exc=KeyError(number))
    if does == "ignore":
        raise Ignore
    if does == "reject":
        raise Reject("no", requeue=False)
    if does == "replace":
        return self.replace(other(0.1))
    if does == "replace fail":
        return self.replace(other(0.1).set(kwargs={"number": number + 0.1, "case": case, "does": "fail"}))
    if does == "replace chain":
        return self.replace(chain(other(0.1), other(0.2)))
    if does == "replace group":
        return self.replace(group(other(0.1), other(0.2)))
    if does == "replace chord":
        return self.replace(chord([other(0.1), other(0.2)], other(0.3)))
    if does == "replace twice":
        return self.replace(other(0.1).clone(kwargs={"does": "replace"}))
    if does == "child":
        other(0.1).delay()
    if does == "group child":
        group(other(0.1), other(0.2)).delay()
    if does == "chain child":
        chain(other(0.1), other(0.2)).delay()
    if does == "chord child":
        chord([other(0.1), other(0.2)], other(0.3)).delay()
    return [number, *args]


@app.task
def caught(request, exc, traceback, number, case):
    """An errback that gets the failed request."""
    failed = (request.kwargs or {}).get("number")
    error = type(exc).__name__
    store.rpush(case, json.dumps({"id": str(request.id), "caught by": number, "failed": failed, "error": error}))


@app.task
def caught_id(task_id, number, case):
    """An errback of the old kind."""
    store.rpush(case, json.dumps({"id": task_id, "caught by": number}))
