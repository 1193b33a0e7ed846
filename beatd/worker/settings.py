"""Settings of a worker."""

from __future__ import annotations

import os
import socket

import msgspec

from beatd.listen_address import ListenAddress


class WorkerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The options of ``beatd worker``, read and checked."""

    hostname: str
    """The worker's name for Celery's tools, ``celery@host``."""
    queues: tuple[str, ...]
    pool: str
    concurrency: int
    prefix: str = "beatd"
    """Prefix of the worker's keys in Redis."""
    store_url: str | None = None
    """The state store; None: the broker, if that is Redis."""
    max_tasks_per_child: int | None = None
    max_memory_per_child: int | None = None
    """KiB of resident memory after which a process of the pool is replaced."""
    autoscale: tuple[int, int] | None = None
    """Maximum and minimum of processes or threads; ``concurrency`` is the initial number."""
    autoscale_idle_s: float = 30.0
    """Idle time before the pool shrinks."""
    task_events: bool = False
    """Send task events from the start."""
    remote_control: bool = True
    """Accept commands."""
    grace_s: float | None = None
    """Time that a warm shutdown waits for tasks before it becomes a cold one; None: forever."""
    soft_shutdown_s: float = 0.0
    """Time that a cold shutdown waits for tasks before it kills them."""
    soft_shutdown_on_idle: bool = False
    """Wait also when no task is running."""
    metrics_listen: ListenAddress | None = None
    """Address of the worker's metrics and health; None: nowhere."""
    sigterm_quits: bool = False
    """Treat SIGTERM as SIGQUIT."""


def node_name(name: str | None) -> str:
    """Expand ``%h`` (host), ``%n`` (first part) and ``%d`` (domain) in a name; ``celery@host`` without one."""
    host = socket.gethostname()
    short, _, domain = host.partition(".")
    text = (name or "celery@%h").replace("%h", host).replace("%n", short).replace("%d", domain).replace("%%", "%")
    return text if "@" in text else f"{text}@{host}"


COROUTINES = 100
"""Default concurrency of the asyncio pool."""


def cpu_count() -> int:
    """Return the number of processes that can run at the same time on this machine."""
    return os.cpu_count() or 1
