"""Commands that change what a worker does."""

from __future__ import annotations

import logging
from typing import Any

from beatd.worker.control.panel import command
from beatd.worker.control.station import Station

log = logging.getLogger("celery.worker.control")


@command("control", arguments=(("task_name", str), ("rate_limit", str)), usage="<task> <limit, such as 5/s, 5/m, 5/h>")
def rate_limit(station: Station, task_name: str, rate_limit: Any, **_: Any) -> dict[str, str]:
    """Limit how often each worker starts a task; 0 for no limit."""
    task = station.app.tasks.get(task_name)
    if task is None:
        return {"error": "unknown task"}
    try:
        station.tools.rates.set(task_name, rate_limit)
    except ValueError as error:
        return {"error": f"Invalid rate limit string: {error!r}"}
    task.rate_limit = rate_limit
    off = rate_limit in (None, 0, "0", "", "0/s", "0/m", "0/h")
    log.info(
        "New rate limit for tasks of type %s: %s.",
        task_name,
        rate_limit,
        extra={"event": "rate_limit_changed", "task": task_name},
    )
    return {"ok": "rate limit disabled successfully" if off else "new rate limit set successfully"}


@command("control", arguments=(("task_name", str), ("soft", float), ("hard", float)), usage="<task> <soft> [hard]")
def time_limit(
    station: Station, task_name: str | None = None, hard: float | None = None, soft: float | None = None, **_: Any
) -> dict[str, str]:
    """Change a task's time limits, in seconds."""
    task = station.app.tasks.get(task_name or "")
    if task is None:
        return {"error": "unknown task"}
    task.soft_time_limit, task.time_limit = _seconds(soft), _seconds(hard)
    log.info(
        "New time limits for tasks of type %s: soft=%s hard=%s",
        task_name,
        soft,
        hard,
        extra={"event": "time_limit_changed", "task": task_name},
    )
    return {"ok": "time limits set successfully"}


def _seconds(value: Any) -> float | None:
    seconds = None if value is None else float(value)
    if seconds is not None and not 0 <= seconds < float("inf"):
        raise ValueError(f"a time limit is a number of seconds, not {value!r}")
    return seconds


@command("control")
def enable_events(station: Station) -> dict[str, str]:
    """Have them tell what becomes of each task."""
    if station.events.on:
        return {"ok": "task events already enabled"}
    station.events.on = True
    log.info("Events of group {task} enabled by remote.", extra={"event": "task_events_enabled"})
    return {"ok": "task events enabled"}


@command("control")
def disable_events(station: Station) -> dict[str, str]:
    """Have them keep that to themselves."""
    if not station.events.on:
        return {"ok": "task events already disabled"}
    station.events.on = False
    log.info("Events of group {task} disabled by remote.", extra={"event": "task_events_disabled"})
    return {"ok": "task events disabled"}


@command("control")
def heartbeat(station: Station) -> None:
    """Have them send a heartbeat now."""
    station.beat()


@command("control", arguments=(("n", int),), usage="[n=1]")
def pool_grow(station: Station, n: int = 1, **_: Any) -> dict[str, str]:
    """Add processes or threads."""
    if station.tools.autoscaler is not None:
        return {"error": "pool_grow is not supported with autoscale. Adjust autoscale range instead."}
    station.tools.pool.grow(_count(n))
    return {"ok": "pool will grow"}


@command("control", arguments=(("n", int),), usage="[n=1]")
def pool_shrink(station: Station, n: int = 1, **_: Any) -> dict[str, str]:
    """Take processes or threads away."""
    if station.tools.autoscaler is not None:
        return {"error": "pool_shrink is not supported with autoscale. Adjust autoscale range instead."}
    station.tools.pool.shrink(_count(n))
    return {"ok": "pool will shrink"}


_MOST = 1_000


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= _MOST:
        raise ValueError(f"a number from 1 to {_MOST} is needed, not {value!r}")
    return value


@command("control", arguments=(("max", int), ("min", int)), usage="[max [min]]")
def autoscale(station: Station, max: int | None = None, min: int | None = None) -> dict[str, str]:  # noqa: A002
    """Change the bounds between which the pool grows and shrinks by itself."""
    if station.tools.autoscaler is None:
        raise ValueError("Autoscale not enabled")
    highest, lowest = station.tools.autoscaler.update(max, min)
    return {"ok": f"autoscale now max={highest} min={lowest}"}


@command("control")
def pool_restart(station: Station, modules: Any = None, reload: Any = False, reloader: Any = None, **_: Any) -> None:  # noqa: ARG001
    """Refused: restart the worker, which loses nothing."""
    raise ValueError("Pool restarts not enabled")


@command(
    "control",
    arguments=(("queue", str), ("exchange", str), ("exchange_type", str), ("routing_key", str)),
    usage="<queue> [exchange [type [routing_key]]]",
)
def add_consumer(
    station: Station,
    queue: str,
    exchange: str | None = None,
    exchange_type: str | None = None,
    routing_key: str | None = None,
    **_: Any,
) -> dict[str, str]:
    """Have them take from one more queue."""
    name = _queue_name(queue)
    if exchange not in (None, "", name) or exchange_type not in (None, "direct") or routing_key not in (None, "", name):
        raise ValueError(f"beatd's workers take from queues by name: leave exchange, type and key of {name!r} out")
    if name not in station.tools.consumer.queues():
        station.tools.consumer.add_queue(name)
        log.info("Started consuming from %s", name, extra={"event": "queue_added", "queue": name})
    return {"ok": f"add consumer {name}"}


@command("control", arguments=(("queue", str),), usage="<queue>")
def cancel_consumer(station: Station, queue: str, **_: Any) -> dict[str, str]:
    """Have them take no more from a queue."""
    name = _queue_name(queue)
    if name in station.tools.consumer.queues():
        station.tools.consumer.cancel_queue(name)
        log.info("Canceling queue %s", name, extra={"event": "queue_cancelled", "queue": name})
    return {"ok": f"no longer consuming from {name}"}


def _queue_name(value: Any) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= 255:
        raise ValueError(f"a queue has a name of at most 255 characters, not {value!r}")
    return value


@command("control")
def shutdown(station: Station, msg: str = "Got shutdown from remote", **_: Any) -> None:
    """Have them finish what runs, and leave."""
    log.warning("%s", msg, extra={"event": "shutdown_requested"})
    station.tools.stop()


@command("control", visible=False)
def election(station: Station, id: str, topic: str, action: Any = None, **_: Any) -> None:  # noqa: A002
    """Celery's workers elect one of them; beatd's do not stand."""
