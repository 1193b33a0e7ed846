"""What is scheduled while everything breaks: 700 runs a second, none of which a policy may drop."""

from __future__ import annotations

from beatd.broker.redis import queue_keys

INTERVALS = {f"second-{n}": 1000 for n in range(300)} | {f"quarter-{n}": 250 for n in range(100)}
"""Entry → milliseconds between its runs."""

QUEUES = [*queue_keys("celery"), *queue_keys("other")]

_DEFAULTS = '[defaults]\ncatch_up = "all"\ncatch_up_window = "1h"\ncatch_up_max = 1000000\n'


def _entry(number: int, name: str, interval_ms: int) -> str:
    options = ("", 'queue = "other"\n', "priority = 6\n")[number % 3]
    return f'[beat_schedule.{name}]\ntask = "tasks.tick"\nschedule = {interval_ms / 1000}\n{options}'


SCHEDULE = _DEFAULTS + "".join(_entry(number, *item) for number, item in enumerate(INTERVALS.items()))
