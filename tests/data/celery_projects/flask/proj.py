# ruff: noqa
"""Like Flask's documentation, and spiffworkflow: tasks that run inside of the context of a web application."""

import os
from contextlib import contextmanager
from celery import Celery, Task, shared_task
from celery.result import AsyncResult
from waiting import wait_for


class Flask:
    name, depth = "shop", 0
    config = {
        "CELERY": dict(
            broker_url=os.environ["BROKER_URL"], result_backend=os.environ["RESULT_BACKEND"], task_ignore_result=True
        )
    }
    extensions = {}

    @contextmanager
    def app_context(self):
        self.depth += 1
        try:
            yield self
        finally:
            self.depth -= 1


def celery_init_app(app):
    class FlaskTask(Task):
        def __call__(self, *args: object, **kwargs: object) -> object:
            with app.app_context():
                return self.run(*args, **kwargs)

    celery_app = Celery(app.name, task_cls=FlaskTask)
    celery_app.config_from_object(app.config["CELERY"])
    celery_app.set_default()
    app.extensions["celery"] = celery_app
    return celery_app


flask_app = Flask()
app = celery_init_app(flask_app)


@shared_task(ignore_result=False)
def depth(a: int, b: int) -> int:
    return [a + b, flask_app.depth]


def start_add(a, b):
    return {"result_id": depth.delay(a, b).id}


def task_result(id):
    result = AsyncResult(id)
    ready = result.ready()
    return {
        "ready": ready,
        "successful": result.successful() if ready else None,
        "value": result.get() if ready else result.result,
    }


def calls():
    started = start_add(1, 2)
    return wait_for(lambda: task_result(started["result_id"]), lambda shown: shown["ready"])


EXPECTED = {"ready": True, "successful": True, "value": [3, 1]}
