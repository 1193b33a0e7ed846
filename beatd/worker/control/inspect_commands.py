"""Inspect commands: ``beatd inspect …``, read-only."""

from __future__ import annotations

import contextlib
import gc
import io
import os
import platform
import resource
import sys
from collections import deque
from collections.abc import Iterator
from datetime import datetime
from importlib import metadata
from typing import Any

import beatd
from beatd import urls
from beatd.app.routing import Queues
from beatd.exceptions import MessageError
from beatd.redaction import censored
from beatd.timestamps import from_ms
from beatd.worker.control.inspect_format import broker_info, queue_info, request_info
from beatd.worker.control.panel import WorkerView, command, truth
from beatd.worker.execution.decode import accepted_types
from beatd.worker.messages import Delivery, headers_of
from beatd.worker.request import Request

_WAITING_SHOWN = 1_000
"""Messages with an ETA are in the state store, perhaps a million of them: so many are shown, the soonest."""
_PRIORITY = 6
"""Of a timer in Celery's worker, in which messages with an ETA wait there."""


@command("inspect")
def ping(view: WorkerView, **_: Any) -> dict[str, str]:  # noqa: ARG001
    """Ask workers for a sign of life."""
    return {"ok": "pong"}


@command("inspect")
def clock(view: WorkerView, **_: Any) -> dict[str, int]:
    """Show the logical clock."""
    return {"clock": view.lamport.value}


@command("inspect")
def stats(view: WorkerView, **_: Any) -> dict[str, Any]:
    """Show statistics: tasks, pool, broker and system resources."""
    pool, settings = view.tools.pool, view.settings
    return {
        "total": dict(view.totals),
        "pid": os.getpid(),
        "clock": str(view.lamport.value),
        "uptime": int(view.app.clock.monotonic() - view.started),
        "pool": {
            "implementation": f"beatd.worker.pools:{type(pool).__name__}",
            "max-concurrency": pool.size,
            "processes": pool.pids(),
            "max-tasks-per-child": settings.max_tasks_per_child or "N/A",
            "put-guarded-by-semaphore": False,
            "timeouts": [view.app.conf.task_soft_time_limit or 0, view.app.conf.task_time_limit or 0],
        },
        "broker": broker_info(view.url),
        "prefetch_count": len(view.tools.requests) + pool.room(),
        "rusage": _usage(),
    }


def _usage() -> dict[str, float]:
    used = resource.getrusage(resource.RUSAGE_SELF)
    names = (
        "utime stime maxrss ixrss idrss isrss minflt majflt nswap inblock oublock msgsnd msgrcv nsignals nvcsw nivcsw"
    )
    return {name: getattr(used, f"ru_{name}") for name in names.split()}


@command("inspect", alias="dump_tasks", variadic="taskinfoitems", usage="[attribute …]")
def registered(view: WorkerView, taskinfoitems: Any = None, builtins: bool = False, **_: Any) -> list[str]:
    """List the registered tasks, with attributes that are set."""
    wanted = texts(taskinfoitems) or ["exchange", "routing_key", "rate_limit"]
    names = [name for name in wanted if not name.startswith("_")]

    def described(name: str) -> str:
        task = view.app.tasks[name]
        facts = [f"{each}={value}" for each in names if (value := getattr(task, each, None)) is not None]
        return f"{name} [{' '.join(facts)}]" if facts else name

    return [described(name) for name in sorted(view.app.tasks) if builtins or not name.startswith("celery.")]


@command("inspect", alias="dump_active")
def active(view: WorkerView, safe: bool = False, **_: Any) -> list[Any]:
    """List the tasks that run now; ``safe``: their arguments as text."""
    return [
        _described(view, tag, since, as_text=bool(safe))
        for tag, since in view.running().items()
        if tag in view.tools.requests
    ]


@command("inspect", alias="dump_reserved")
def reserved(view: WorkerView, **_: Any) -> list[Any]:
    """List the tasks that were taken and wait for a free process."""
    running = view.running()
    held = [request_info(view, request) for request in view.tools.held()]
    return [_described(view, tag, None) for tag in list(view.tools.requests) if tag not in running] + held


def _described(view: WorkerView, tag: int, since: float | None, *, as_text: bool = False) -> Any:
    began = None if since is None else view.app.clock.now_ms() / 1000 - since
    return request_info(view, view.tools.requests[tag], tag=tag, began=began, as_text=as_text)


@command("inspect", alias="dump_schedule")
def scheduled(view: WorkerView, **_: Any) -> list[Any]:
    """List the tasks that wait for their ETA, the soonest 1,000."""
    return [
        {
            "eta": _eta(view, request) or from_ms(due_ms).isoformat(),
            "priority": _PRIORITY,
            "request": request_info(view, request),
        }
        for request, due_ms in _waiting(view)
    ]


def _eta(view: WorkerView, request: Request) -> str | None:
    """Return the exact ETA in a message; None for a message that waits for another reason."""
    if request.headers.eta is None:
        return None
    moment = datetime.fromisoformat(request.headers.eta)
    return (moment if moment.tzinfo else moment.replace(tzinfo=view.app.timezone)).isoformat()


def _waiting(view: WorkerView) -> Iterator[tuple[Request, int]]:
    for delivery, due_ms in view.tools.consumer.waiting(_WAITING_SHOWN):
        if (request := _request(view, delivery)) is not None:
            yield request, due_ms


def _request(view: WorkerView, delivery: Delivery) -> Request | None:
    """Return a parked message as a request; None for a task of another app."""
    try:
        headers = headers_of(delivery.raw, accepted_types(view.app.conf.accept_content))
    except MessageError:
        return None
    task = view.app.tasks.get(headers.task)
    return Request(delivery, headers, task) if task is not None else None


@command("inspect", alias="dump_revoked")
def revoked(view: WorkerView, **_: Any) -> list[str]:
    """List the ids of revoked tasks."""
    return view.revoked.ids()


@command("inspect", variadic="ids", usage="[id …]")
def query_task(view: WorkerView, ids: Any, **_: Any) -> dict[str, Any]:
    """Show where tasks are: active, reserved or scheduled."""
    wanted = {ids} if isinstance(ids, str) else {each for each in ids if isinstance(each, str)}
    running = view.running()
    found: dict[str, Any] = {}
    for tag, request in list(view.tools.requests.items()):
        if request.id in wanted:
            state = "active" if tag in running else "reserved"
            found[request.id] = [state, _described(view, tag, running.get(tag))]
    for request in view.tools.held():
        if request.id in wanted:
            found.setdefault(request.id, ["reserved", request_info(view, request)])
    if wanted - found.keys():
        for request, _due in _waiting(view):
            if request.id in wanted:
                found.setdefault(request.id, ["scheduled", request_info(view, request)])
    return found


@command("inspect", alias="dump_conf", arguments=(("with_defaults", truth),), usage="[with_defaults]")
def conf(view: WorkerView, with_defaults: bool = False, **_: Any) -> dict[str, Any]:
    """Show the settings; secrets, recognised by name, are masked."""
    settings = view.app.conf
    shown = dict(settings) if with_defaults else settings.changes()
    return censored({"deprecated_settings": None, **shown})  # a Celery worker's answer always has this field


@command("inspect")
def active_queues(view: WorkerView, **_: Any) -> list[Any]:
    """List the queues that the workers consume."""
    declared = Queues(view.app.conf)
    return [queue_info(declared.binding_of(name, view.hostname)) for name in view.tools.consumer.queues()]


def _libraries() -> Iterator[str]:
    """Yield name and version of the installed libraries that messages and results depend on."""
    for name in ("celery", "kombu", "amqp", "redis", "msgspec"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            yield f"{name}:{metadata.version(name)}"


@command("inspect")
def report(view: WorkerView) -> dict[str, str]:
    """Describe the installation, for bug reports."""
    backend = view.app.conf.result_backend
    settings = "\n".join(f"{name}: {value!r}" for name, value in sorted(conf(view).items()))
    text = (
        f"software -> beatd:{beatd.__version__} py:{platform.python_version()} imp:{platform.python_implementation()}\n"
        f"software -> {' '.join(_libraries())}\n"
        f"platform -> system:{platform.system()} arch:{platform.machine()} kernel version:{platform.release()}\n"
        f"settings -> transport:{broker_info(view.url)['transport']} "
        f"results:{urls.shown(str(backend)) if backend else 'disabled'}\n\n{settings}\n"
    )
    return {"ok": text}


_samples: deque[str] = deque(maxlen=100)


@command("inspect")
def memsample(view: WorkerView, **_: Any) -> str | None:  # noqa: ARG001
    """Measure the memory that the workers use."""
    used = _resident()
    if used is not None:
        _samples.append(used)
    return used


@command("inspect", arguments=(("samples", int),), usage="[samples]")
def memdump(view: WorkerView, samples: int = 10, **_: Any) -> str:  # noqa: ARG001
    """Show the last measurements, and one after a garbage collection."""
    out = io.StringIO()
    print("- rss (sample):", file=out)
    for sample in list(_samples)[-max(0, int(samples)) :]:
        print(f"-    > {sample},", file=out)
    gc.collect()
    print(f"- rss (end): {_resident() or 'unknown'}.", file=out)
    return out.getvalue()


def _resident() -> str | None:
    """Return the resident memory, or its maximum where the system does not tell the present value."""
    try:
        with open("/proc/self/statm", encoding="ascii") as statm:  # noqa: PTH123 - no path of ours
            used = int(statm.read().split()[1]) * resource.getpagesize()
    except (OSError, ValueError, IndexError):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        used = peak if sys.platform == "darwin" else peak * 1024
    return f"{used / 1024 / 1024:.2f}MB"


@command("inspect", visible=False)
def objgraph(view: WorkerView, num: int = 200, max_depth: int = 10, type: str = "Request") -> Any:  # noqa: A002
    """Draw a graph of objects."""
    raise NotImplementedError("beatd's worker draws no graphs of objects")


@command("inspect", visible=False)
def hello(view: WorkerView, from_node: str, revoked: Any = None, **_: Any) -> dict[str, Any] | None:
    """Exchange what is revoked with a worker that has just started."""
    if from_node == view.hostname:
        return None
    view.revoked.add(texts(revoked), view.app.clock.now_ms())
    return {"revoked": view.revoked.ids(), "clock": view.lamport.forward()}


def texts(value: Any) -> list[str]:
    """Return the strings of a list or the keys of a mapping: workers of different versions send either."""
    if isinstance(value, str):
        return [value]
    return [each for each in value if isinstance(each, str)] if isinstance(value, list | dict) else []
