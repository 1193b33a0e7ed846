"""Tasks, and compositions of them that run on two workers: a module for any Celery since 4.4.

No test, and not imported. Tests give it to beatd, too, with ``celery`` in its imports replaced. The workers consume the
queues ``ours`` and ``theirs``; ``python mixed_fleet.py`` makes the calls and prints what became of them as JSON.
"""

# ruff: noqa
# mypy: ignore-errors

import json
import os
import time

from celery import Celery, chain, chord, group

app = Celery("mixed", broker=os.environ["BROKER"], backend=os.environ["BACKEND"])
if os.environ.get("ORDERED"):
    app.conf.result_backend_transport_options = {"result_chord_ordered": os.environ["ORDERED"] == "True"}


@app.task(name="mixed.add")
def add(x, y):
    return x + y


@app.task(name="mixed.later")
def later(value):
    time.sleep(0.3)
    return value


@app.task(name="mixed.total")
def total(numbers):
    """Versions before 5 pass the results of nested groups as one list."""
    return sum(total(each) if isinstance(each, list) else each for each in numbers)


@app.task(name="mixed.boom")
def boom():
    raise ValueError("boom")


@app.task(name="mixed.caught")
def caught(task_id):
    app.backend.store_result("caught-" + task_id, "caught", "SUCCESS")


def calls(first, last):
    """Compositions; all tasks of a header end on the queue ``first``, but for one, later, on ``last``."""
    early, body = [add.s(1, 1).set(queue=first), add.s(2, 2).set(queue=first)], total.s().set(queue=first)
    late = later.s(10).set(queue=last)
    nested = chord([add.s(5, 5).set(queue=first), later.s(20).set(queue=last)], total.s().set(queue=last))
    members = group(add.s(1).set(queue=first), later.s().set(queue=last))
    return {
        "chord": chord(early + [late])(body),
        "body on the other": chord(early + [late])(total.s().set(queue=last)),
        "group in a chord": chord([group(early), late])(body),
        "chain in a chord": chord([early[0] | add.s(1).set(queue=last), late])(body),
        "chord in a chord": chord([nested, early[0]])(body),
        "chord in a chain": (early[0] | members | body | add.s(100).set(queue=last)).apply_async(),
        "chord of a chain": chord(early + [late])(body | add.s(1000).set(queue=last)),
        "error": chord([boom.si().set(queue=first), late])(body),
        "late error": chord(early + [late | boom.si().set(queue=last)])(body),
        "errback": chord([boom.si().set(queue=first), late])(body.clone().on_error(caught.s().set(queue=last))),
    }


def outcome(name, result):
    try:
        value = app.AsyncResult(result.id).get(timeout=20)
    except Exception as error:
        value = [type(error).__name__, "boom" in str(error)]
    return [value, app.AsyncResult("caught-" + result.id).get(timeout=20)] if name == "errback" else value


if __name__ == "__main__":
    places = [("ours", "theirs"), ("theirs", "ours")]
    sent = [(name, last, result) for first, last in places for name, result in calls(first, last).items()]
    print(json.dumps({"%s, last %s" % (name, last): outcome(name, result) for name, last, result in sent}))
