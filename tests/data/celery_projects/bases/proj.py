# ruff: noqa
"""Like the base classes of many services: abstract bases with hooks, that swap arguments and keep connections."""

import os
import abc
from celery import Celery, Task
from celery.signals import task_prerun, task_success
from waiting import WAIT

app = Celery("bases", broker=os.environ["BROKER_URL"], backend=os.environ["RESULT_BACKEND"])
seen = []


@task_prerun.connect
def before(sender=None, task_id=None, task=None, args=None, kwargs=None, **_):
    seen.append(f"prerun {sender.name} {args}")


@task_success.connect
def success(sender=None, result=None, **_):
    seen.append("success")


class Abstract(Task, abc.ABC):
    abstract = True
    _db = None
    max_retries = 7

    @property
    def db(self):
        if self._db is None:
            self._db = object()
        return self._db

    def before_start(self, task_id, args, kwargs):
        seen.append("before_start")

    def on_success(self, retval, task_id, args, kwargs):
        seen.append("on_success")

    def after_return(self, status, retval, task_id, args, kwargs, einfo):
        seen.append(f"after_return {status}")


class Swapping(Abstract):
    abstract = True

    def __call__(self, first, second, *args, **kwargs):
        return super().__call__(second, first, *args, **kwargs)


class Registered(Abstract):
    name = "bases.registered"

    def run(self, x):
        return [x, self.db is self.db, self.max_retries]


registered = app.register_task(Registered())


@app.task(base=Swapping, bind=True, name="bases.swapped")
def swapped(self, one, two):
    seen.clear()
    return [one, two, self.db is self.db]


@app.task(name="bases.what")
def what():
    return seen[:-1]


def calls():
    return [
        swapped.delay(1, 2).get(timeout=WAIT),
        what.delay().get(timeout=WAIT),
        registered.delay(5).get(timeout=WAIT),
    ]


EXPECTED = [[2, 1, True], ["on_success", "success", "after_return SUCCESS"], [5, True, 7]]
