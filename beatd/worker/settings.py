"""Settings of one worker."""

from __future__ import annotations

import os
import socket

import msgspec


class WorkerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The options of ``beatd worker``, read and checked."""

    hostname: str
    """The worker's name, ``celery@host``: what Celery's tools call it by."""
    queues: tuple[str, ...]
    pool: str
    concurrency: int
    prefix: str = "beatd"
    """Of the worker's keys in Redis."""
    store_url: str | None = None
    """The state store; None: the broker, if that is Redis."""
    max_tasks_per_child: int | None = None
    max_memory_per_child: int | None = None
    """KiB of resident memory after which a process of the pool is replaced."""
    autoscale: tuple[int, int] | None = None
    """At most and at least so many processes or threads; ``concurrency`` is where it begins."""
    autoscale_idle_s: float = 30.0
    """How long there must have been too many of them before there are less."""
    task_events: bool = False
    """Whether it tells monitors what becomes of each task, from the start."""
    remote_control: bool = True
    """Whether it takes commands."""
    grace_s: float | None = None
    """How long a warm shutdown waits for tasks before it becomes a cold one; None: for ever."""
    soft_shutdown_s: float = 0.0
    """How long a cold shutdown still waits for tasks before it kills them."""
    soft_shutdown_on_idle: bool = False
    """Wait also when no task is running."""
    sigterm_quits: bool = False
    """Whether SIGTERM means what SIGQUIT means."""


def node_name(name: str | None) -> str:
    """``name`` with ``%h`` (host), ``%n`` (first part) and ``%d`` (domain) filled in; ``celery@host`` without one."""
    host = socket.gethostname()
    short, _, domain = host.partition(".")
    text = (name or "celery@%h").replace("%h", host).replace("%n", short).replace("%d", domain).replace("%%", "%")
    return text if "@" in text else f"{text}@{host}"


COROUTINES = 100
"""How many tasks the asyncio pool runs at the same time, unless told otherwise."""


def cpu_count() -> int:
    """Return how many processes can run at the same time on this machine."""
    return os.cpu_count() or 1
