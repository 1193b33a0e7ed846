"""The tasks, and their schedule."""

import os

from flask import current_app
from web import web

from beatd import App, Task


class ContextTask(Task):
    """A task that runs in the context of the application."""

    def __call__(self, *args, **kwargs):
        with web.app_context():
            return self.run(*args, **kwargs)


url = os.environ.get("REDIS_URL")
app = App("shop", broker=url, backend=url, task_cls=ContextTask)
app.conf.beat_schedule = {"heartbeat": {"task": "tasks.heartbeat", "schedule": 2.0}}


@app.task
def heartbeat() -> None:
    """Show that the schedule runs."""


@app.task
def send_receipt(order: int) -> str:
    """Send the receipt of an order."""
    return f"receipt of order {order} from {current_app.config['SENDER']}"
