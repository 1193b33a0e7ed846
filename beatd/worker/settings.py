"""How one worker is set up."""

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
    grace_s: float = 5.0
    """How long a cold shutdown waits for the processes before it kills them."""


def node_name(name: str | None) -> str:
    """``name`` with ``%h`` (host), ``%n`` (first part) and ``%d`` (domain) filled in; ``celery@host`` without one."""
    host = socket.gethostname()
    short, _, domain = host.partition(".")
    text = (name or "celery@%h").replace("%h", host).replace("%n", short).replace("%d", domain).replace("%%", "%")
    return text if "@" in text else f"{text}@{host}"


def cpu_count() -> int:
    """How many processes can run at the same time on this machine."""
    return os.cpu_count() or 1
