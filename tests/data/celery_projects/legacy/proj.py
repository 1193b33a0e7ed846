# ruff: noqa
"""Like code that was written for Celery 3 and 4: old names of settings, class tasks, a late finalize."""

import os
from celery import Celery, current_app, current_task
from celery.signals import celeryd_init, worker_ready
from celery.utils.log import get_task_logger
from waiting import WAIT

app = Celery("legacy")
app.conf.update(
    BROKER_URL=os.environ["BROKER_URL"],
    CELERY_RESULT_BACKEND=os.environ["RESULT_BACKEND"],
    CELERY_TASK_SERIALIZER="json",
    CELERY_ACCEPT_CONTENT=["json"],
    CELERY_ENABLE_UTC=True,
    CELERYD_PREFETCH_MULTIPLIER=1,
    CELERY_ACKS_LATE=True,
    CELERY_TASK_RESULT_EXPIRES=3600,
)
logger = get_task_logger(__name__)
late = []


@app.on_after_finalize.connect
def setup(sender, **kwargs):
    late.append(sorted(name for name in sender.tasks if name.startswith("legacy.")))
    sender.add_periodic_task(3600.0, sender.signature("legacy.who"), name="hourly")


@celeryd_init.connect
def configure(sender=None, conf=None, **kwargs):
    conf.worker_max_tasks_per_child = 1000


@app.task(name="legacy.who")
def who():
    logger.info("who")
    return [current_task.name, current_app.main, current_task.request.hostname, late[0]]


app.finalize()


def calls():
    return who.delay().get(timeout=WAIT)


EXPECTED = ["legacy.who", "legacy", "node@here", ["legacy.who"]]
