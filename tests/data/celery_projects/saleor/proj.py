# ruff: noqa
"""Like Saleor: a class of tasks with restarting hooks, discovered modules, signals of the worker's processes."""

import os
from celery import Celery, signals
from waiting import WAIT

started = []


@signals.worker_process_init.connect
def on_process_init(**kwargs):
    started.append(os.getpid())


app = Celery("saleor", broker=os.environ["BROKER_URL"], backend=os.environ["RESULT_BACKEND"])
app.autodiscover_tasks(["shop_orders", "shop_checkout"])
app.autodiscover_tasks(packages=["shop_plugins"], related_name="search_tasks")


@app.task(bind=True)
def debug_task(self):
    return [started == [os.getpid()], repr(self.request.id) != "None"]


def calls():
    from shop_checkout.tasks import complete
    from shop_orders.tasks import expire
    from shop_plugins.search_tasks import index

    return [
        each.get(timeout=WAIT) for each in (debug_task.delay(), expire.delay("A1"), complete.delay(4), index.delay(4))
    ]


EXPECTED = [[True, True], "A1", 8, [4]]
