"""Control commands: they change settings of a worker, or keep tasks from running and end them."""

from __future__ import annotations

import logging
import os
import signal as signals
from typing import Any

from beatd.worker.admission.revoked import Revoked
from beatd.worker.control.inspect_commands import texts
from beatd.worker.control.panel import WorkerView, command
from beatd.worker.request import Request

log = logging.getLogger("celery.worker.control")


@command("control", arguments=(("task_name", str), ("rate_limit", str)), usage="<task> <limit, such as 5/s, 5/m, 5/h>")
def rate_limit(view: WorkerView, task_name: str, rate_limit: Any, **_: Any) -> dict[str, str]:
    """Limit how often each worker starts a task; 0 for no limit."""
    task = view.app.tasks.get(task_name)
    if task is None:
        return {"error": "unknown task"}
    try:
        view.tools.rates.set(task_name, rate_limit)
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
    view: WorkerView, task_name: str | None = None, hard: float | None = None, soft: float | None = None, **_: Any
) -> dict[str, str]:
    """Change a task's time limits, in seconds."""
    task = view.app.tasks.get(task_name or "")
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
def enable_events(view: WorkerView) -> dict[str, str]:
    """Start sending task events."""
    if view.events.on:
        return {"ok": "task events already enabled"}
    view.events.on = True
    log.info("Events of group {task} enabled by remote.", extra={"event": "task_events_enabled"})
    return {"ok": "task events enabled"}


@command("control")
def disable_events(view: WorkerView) -> dict[str, str]:
    """Stop sending task events."""
    if not view.events.on:
        return {"ok": "task events already disabled"}
    view.events.on = False
    log.info("Events of group {task} disabled by remote.", extra={"event": "task_events_disabled"})
    return {"ok": "task events disabled"}


@command("control")
def heartbeat(view: WorkerView) -> None:
    """Send a heartbeat now."""
    view.beat()


@command("control", arguments=(("n", int),), usage="[n=1]")
def pool_grow(view: WorkerView, n: int = 1, **_: Any) -> dict[str, str]:
    """Add processes or threads."""
    if view.tools.autoscaler is not None:
        return {"error": "pool_grow is not supported with autoscale. Adjust autoscale range instead."}
    pool, by = view.tools.pool, _count(n)
    if pool.size + by > _MOST:
        raise ValueError(f"the pool has {pool.size} processes or threads; with {by} more it would have over {_MOST}")
    pool.grow(by)
    return {"ok": "pool will grow"}


@command("control", arguments=(("n", int),), usage="[n=1]")
def pool_shrink(view: WorkerView, n: int = 1, **_: Any) -> dict[str, str]:
    """Take processes or threads away."""
    if view.tools.autoscaler is not None:
        return {"error": "pool_shrink is not supported with autoscale. Adjust autoscale range instead."}
    view.tools.pool.shrink(_count(n))
    return {"ok": "pool will shrink"}


_MOST = 1_000
"""Processes or threads to which orders let a pool grow."""


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= _MOST:
        raise ValueError(f"a number from 1 to {_MOST} is needed, not {value!r}")
    return value


@command("control", arguments=(("max", int), ("min", int)), usage="[max [min]]")
def autoscale(view: WorkerView, max: int | None = None, min: int | None = None) -> dict[str, str]:  # noqa: A002
    """Change the bounds between which the pool grows and shrinks by itself."""
    if view.tools.autoscaler is None:
        raise ValueError("Autoscale not enabled")
    highest, lowest = view.tools.autoscaler.update(max, min)
    return {"ok": f"autoscale now max={highest} min={lowest}"}


@command("control")
def pool_restart(view: WorkerView, modules: Any = None, reload: Any = False, reloader: Any = None, **_: Any) -> None:  # noqa: ARG001
    """Refused: restart the worker, which loses nothing."""
    raise ValueError("Pool restarts not enabled")


@command(
    "control",
    arguments=(("queue", str), ("exchange", str), ("exchange_type", str), ("routing_key", str)),
    usage="<queue> [exchange [type [routing_key]]]",
)
def add_consumer(
    view: WorkerView,
    queue: str,
    exchange: str | None = None,
    exchange_type: str | None = None,
    routing_key: str | None = None,
    **_: Any,
) -> dict[str, str]:
    """Start consuming a queue."""
    name = _queue_name(queue)
    if exchange not in (None, "", name) or exchange_type not in (None, "direct") or routing_key not in (None, "", name):
        raise ValueError(f"beatd's workers take from queues by name: leave exchange, type and key of {name!r} out")
    if name not in view.tools.consumer.queues():
        view.tools.consumer.add_queue(name)
        log.info("Started consuming from %s", name, extra={"event": "queue_added", "queue": name})
    return {"ok": f"add consumer {name}"}


@command("control", arguments=(("queue", str),), usage="<queue>")
def cancel_consumer(view: WorkerView, queue: str, **_: Any) -> dict[str, str]:
    """Stop consuming a queue."""
    name = _queue_name(queue)
    if name in view.tools.consumer.queues():
        view.tools.consumer.cancel_queue(name)
        log.info("Canceling queue %s", name, extra={"event": "queue_cancelled", "queue": name})
    return {"ok": f"no longer consuming from {name}"}


def _queue_name(value: Any) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= 255:
        raise ValueError(f"a queue has a name of at most 255 characters, not {value!r}")
    return value


@command("control")
def shutdown(view: WorkerView, msg: str = "Got shutdown from remote", **_: Any) -> None:
    """Shut down after running tasks have ended."""
    log.warning("%s", msg, extra={"event": "shutdown_requested"})
    view.tools.stop()


@command("control", visible=False)
def election(view: WorkerView, id: str, topic: str, action: Any = None, **_: Any) -> None:  # noqa: A002
    """Celery's workers elect one of them; beatd's do not stand."""


@command("control", variadic="task_id", usage="[id …]")
def revoke(view: WorkerView, task_id: Any, terminate: bool = False, signal: Any = None, **_: Any) -> dict[str, str]:
    """Revoke tasks by id; with terminate, also end them while they run."""
    number = _number(signal) if terminate else signals.SIGTERM
    ids = list(dict.fromkeys(texts(task_id)))
    view.revoked.add(ids, view.app.clock.now_ms())
    view.remember(ids)
    wanted = set(ids)
    ours = [request for request in view.tools.requests.values() if request.id in wanted]
    running = view.running()
    begun = {request.id for request in ours if request.delivery.tag in running}
    view.states.mark([task for task in ids if task not in begun])
    waiting = [request for request in ours if _withdraw(view, request)]
    if not terminate:
        log.info("Tasks flagged as revoked: %s", ", ".join(ids), extra={"event": "tasks_revoked", "count": len(ids)})
        return {"ok": f"tasks {set(ids) or '{}'} flagged as revoked"}
    ended = [request.id for request in ours if request not in waiting and _terminate(view, request, number)]
    known = dict.fromkeys([*ended, *(request.id for request in waiting)])
    return {"ok": f"terminate: {', '.join(known) or 'tasks unknown'}"}


@command("control", arguments=(("signal", str),), variadic="task_id", usage="<signal> [id …]")
def terminate(view: WorkerView, signal: Any, task_id: Any, **_: Any) -> dict[str, str]:
    """Revoke tasks by id, and end running ones with a signal."""
    return revoke(view, task_id, terminate=True, signal=signal)


@command("control", variadic="headers", usage="[header=value …]")
def revoke_by_stamped_headers(
    view: WorkerView, headers: Any, terminate: bool = False, signal: Any = None, **_: Any
) -> dict[str, str]:
    """Revoke tasks by stamped header."""
    number = _number(signal) if terminate else signals.SIGTERM
    if isinstance(headers, list):
        headers = dict(header.split("=", 1) for header in texts(headers))
    stamps = {str(name): _values(value) for name, value in headers.items()}
    view.revoked.add_stamps(stamps)
    for request in list(view.tools.requests.values()):
        if Revoked.bears(request, stamps):
            _withdraw(view, request)
    if not terminate:
        return {"ok": f"headers {headers} flagged as revoked, but not terminated"}
    bearers = [request for request in view.tools.requests.values() if Revoked.bears(request, stamps)]
    ended = [request for request in bearers if _terminate(view, request, number)]
    if not ended:
        return {"ok": f"headers {headers} were not terminated"}
    return {"ok": f"headers {headers} revoked"}


def _values(value: Any) -> list[str]:
    return [str(each) for each in value] if isinstance(value, list) else [str(value)]


def _number(name: Any) -> signals.Signals:
    """Parse a signal's number or name, with or without SIG; SIGTERM for none. Raises ValueError."""
    if name is None:
        return signals.SIGTERM
    text = str(name).upper()
    try:
        return signals.Signals(int(text)) if text.isdigit() else signals.Signals[f"SIG{text.removeprefix('SIG')}"]
    except (KeyError, ValueError):
        raise ValueError(f"there is no signal {name!r}") from None


def _withdraw(view: WorkerView, request: Request) -> bool:
    """Withdraw a request that waits in the pool; true if it has not begun.

    One that a process has is withdrawn if the process gives it back.
    """
    tag = request.delivery.tag
    if not view.tools.pool.withdraw(tag):
        if tag not in view.tools.pool.running_since():
            view.tools.condemn(tag, None)
        return False
    view.tools.drop(request)
    return True


def _terminate(view: WorkerView, request: Request, number: signals.Signals) -> bool:
    """End a run; a run that is about to begin is ended at its start."""
    request.terminated = number
    tag, pool = request.delivery.tag, view.tools.pool
    since = pool.running_since().get(tag)
    if since is not None and not pool.kill(tag, number):
        request.terminated = None  # it has just ended
        return False
    view.tools.condemn(tag, since)
    log.info(
        "Terminating %s (%s)",
        request.id,
        number.name,
        extra={"event": "task_terminating", "task_id": request.id, "running": since is not None, "pid": os.getpid()},
    )
    return True
