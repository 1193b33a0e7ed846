"""Commands that keep tasks from running, or end them."""

from __future__ import annotations

import logging
import os
import signal as signals
from collections.abc import Iterable
from typing import Any

from beatd.exceptions import BeatdError, TaskRevokedError
from beatd.store.outcomes import PENDING, RECEIVED, REJECTED, RETRY, REVOKED, exception_payload
from beatd.store.results import NoResults
from beatd.worker.control.inspecting import texts
from beatd.worker.control.panel import command
from beatd.worker.control.revoked import Revoked
from beatd.worker.control.station import Station
from beatd.worker.request import Request

log = logging.getLogger("celery.worker.control")

_AT_ONCE = 1_000
"""Ids in one command whose state is written at once; that of others when their messages are met."""
_NOT_BEGUN = frozenset({PENDING, RECEIVED, RETRY, REJECTED})


@command("control", variadic="task_id", usage="[id …]")
def revoke(station: Station, task_id: Any, terminate: bool = False, signal: Any = None, **_: Any) -> dict[str, str]:
    """Have tasks not run any more, by id; with terminate, end them if they run."""
    number = _number(signal) if terminate else signals.SIGTERM
    ids = list(dict.fromkeys(texts(task_id)))
    station.revoked.add(ids, station.app.clock.now_ms())
    station.remember(ids)
    ours = [request for task in ids for request in station.find(task)]
    _mark(station, ids, ours)
    waiting = [request for request in ours if _withdraw(station, request)]
    if not terminate:
        log.info("Tasks flagged as revoked: %s", ", ".join(ids), extra={"event": "tasks_revoked", "count": len(ids)})
        return {"ok": f"tasks {set(ids) or '{}'} flagged as revoked"}
    ended = [request.id for request in ours if request not in waiting and _terminate(station, request, number)]
    known = dict.fromkeys([*ended, *(request.id for request in waiting)])
    return {"ok": f"terminate: {', '.join(known) or 'tasks unknown'}"}


@command("control", arguments=(("signal", str),), variadic="task_id", usage="<signal> [id …]")
def terminate(station: Station, signal: Any, task_id: Any, **_: Any) -> dict[str, str]:
    """Revoke tasks by id, and end those that run by a signal."""
    return revoke(station, task_id, terminate=True, signal=signal)


@command("control", variadic="headers", usage="[header=value …]")
def revoke_by_stamped_headers(
    station: Station, headers: Any, terminate: bool = False, signal: Any = None, **_: Any
) -> dict[str, str]:
    """Have tasks that bear a stamp not run any more."""
    number = _number(signal) if terminate else signals.SIGTERM
    if isinstance(headers, list):
        headers = dict(each.split("=", 1) for each in texts(headers))
    stamps = {str(name): _values(value) for name, value in headers.items()}
    station.revoked.add_stamps(stamps)
    for request in list(station.tools.requests.values()):
        if Revoked.bears(request, stamps):
            _withdraw(station, request)
    if not terminate:
        return {"ok": f"headers {headers} flagged as revoked, but not terminated"}
    bearers = [request for request in station.tools.requests.values() if Revoked.bears(request, stamps)]
    ended = [request for request in bearers if _terminate(station, request, number)]
    if not ended:
        return {"ok": f"headers {headers} were not terminated"}
    return {"ok": f"headers {headers} revoked"}


def _values(value: Any) -> list[str]:
    return [str(each) for each in value] if isinstance(value, list) else [str(value)]


def _number(name: Any) -> signals.Signals:
    """A signal by number or name, with or without SIG; SIGTERM for none. Raises ValueError."""
    if name is None:
        return signals.SIGTERM
    text = str(name).upper()
    try:
        return signals.Signals(int(text)) if text.isdigit() else signals.Signals[f"SIG{text.removeprefix('SIG')}"]
    except (KeyError, ValueError):
        raise ValueError(f"there is no signal {name!r}") from None


def _withdraw(station: Station, request: Request) -> bool:
    """Take a request back that waits in the pool; whether it could be."""
    if not station.tools.pool.withdraw(request.delivery.tag):
        return False
    station.tools.drop(request)
    return True


def _terminate(station: Station, request: Request, number: signals.Signals) -> bool:
    """End a run; one that is about to begin is ended when it does."""
    request.terminated = number
    tag, pool = request.delivery.tag, station.tools.pool
    running = tag in pool.running_since()
    if running and not pool.kill(tag, number):
        request.terminated = None  # it has just ended
        return False
    log.info(
        "Terminating %s (%s)",
        request.id,
        number.name,
        extra={"event": "task_terminating", "task_id": request.id, "running": running, "pid": os.getpid()},
    )
    return True


def _mark(station: Station, ids: Iterable[str], ours: Iterable[Request]) -> None:
    """Write REVOKED at once for those who wait for a result, unless the task has begun or ended somewhere."""
    results, app = station.app.results, station.app
    running = station.running()
    begun = {request.id for request in ours if request.delivery.tag in running}
    if isinstance(results, NoResults):
        return
    payload = exception_payload(TaskRevokedError("revoked"))
    try:
        for task_id in list(ids)[:_AT_ONCE]:
            if task_id not in begun and (results.get(task_id) or {"status": PENDING})["status"] in _NOT_BEGUN:
                app.store_state(task_id, REVOKED, payload)
    except BeatdError as error:
        log.warning("Cannot mark tasks as revoked: %s", error, extra={"event": "revoke_unmarked"})
