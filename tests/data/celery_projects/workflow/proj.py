# ruff: noqa
"""Like bookwyrm's and scan services' imports: fan out, collect, and tell somebody when a part has failed."""

import os
from celery import Celery, chain, chord, group, signature, shared_task
from celery.exceptions import Ignore, Reject
from waiting import WAIT, wait_for

app = Celery("workflow", broker=os.environ["BROKER_URL"], backend=os.environ["RESULT_BACKEND"])
app.conf.update(task_serializer="json", result_extended=True, result_expires=600)


@app.task
def fetch(n):
    return n


@app.task(bind=True, max_retries=2)
def flaky(self, n):
    try:
        if self.request.retries < 1:
            raise OSError("again")
    except OSError as exc:
        raise self.retry(exc=exc, countdown=0.05 * 2**self.request.retries)
    return n * 10


@app.task
def collect(values, scale=1):
    return sum(values) * scale


@app.task
def explode(n):
    raise ValueError(f"part {n}")


@app.task
def told(request, exc, traceback):
    app.backend.store_result("told-" + request.root_id, str(exc), "SUCCESS")


@app.task(bind=True)
def plan(self, n):
    return self.replace(chord((fetch.s(i) | flaky.s() for i in range(n)), collect.s(scale=2)))


@app.task(bind=True)
def ignored(self):
    self.update_state(state="SKIPPED", meta={"why": "old"})
    raise Ignore()


def calls():
    fanned = chord((fetch.s(n) | flaky.s() for n in range(3)), collect.s()).delay().get(timeout=WAIT)
    planned = plan.delay(3).get(timeout=WAIT)
    failed = chain(fetch.s(1), explode.s(), fetch.s()).apply_async(link_error=told.s())
    try:
        failed.get(timeout=WAIT)
    except ValueError as exc:
        error = str(exc)
    said = app.AsyncResult("told-" + failed.parent.parent.id).get(timeout=WAIT)
    skipped = ignored.delay()
    state = wait_for(lambda: skipped.state, lambda state: state != "PENDING")
    return [fanned, planned, error, said, state, skipped.info]


EXPECTED = [30, 60, "part 1", "part 1", "SKIPPED", {"why": "old"}]
