"""The tasks, and their schedule."""

import os

from beatd import App

url = os.environ.get("REDIS_URL")
app = App("shop", broker=url, backend=url)
app.conf.beat_schedule = {"heartbeat": {"task": "tasks.heartbeat", "schedule": 2.0}}


@app.task
def heartbeat() -> None:
    """Show that the schedule runs."""


@app.task
def send_receipt(order: int) -> str:
    """Send the receipt of an order."""
    return f"receipt of order {order}"
