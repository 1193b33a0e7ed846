"""The Python tasks of the example schedule in ``beat.toml``, which is beside this file."""

from __future__ import annotations

import random
import time

from beatd import App, get_task_logger

app = App("tasks")
log = get_task_logger(__name__)


@app.task
def add(x: int, y: int) -> int:
    """The classic. What a task returns is stored as its result."""
    return x + y


@app.task(bind=True, max_retries=3)
def measure(self, sensor: str, unit: str = "°C") -> str:  # type: ignore[no-untyped-def]
    """Now and then the sensor does not answer: the task asks to be run again a second later."""
    value = random.gauss(21, 2)
    if value > 24:
        raise self.retry(exc=TimeoutError(f"{sensor} does not answer"), countdown=1)
    log.info("%s: %.1f %s", sensor, value, unit)
    return f"{value:.1f} {unit}"


@app.task(soft_time_limit=10)
def report(kind: str, pages: int = 3) -> dict[str, object]:
    """Some work that takes a moment."""
    time.sleep(0.1 * pages)
    return {"kind": kind, "pages": pages}
