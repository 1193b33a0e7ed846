"""Settings of a worker."""

from __future__ import annotations

import math
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path

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
    """Return the full name of a node, as Celery makes it: without a ``@`` the name is that of a host.

    ``%h`` is this host, ``%n`` its first part, ``%d`` its domain, ``%%`` a percent sign; ``%i`` and ``%I`` are for the
    names of files. ``celery@host`` without a name. Source: ``celery/utils/nodenames.py``.
    """
    host = socket.gethostname()
    short, _, domain = host.partition(".")
    before, _, after = (name or "").rpartition("@")
    values = {"h": host, "n": short, "d": domain, "i": "0", "I": "", "%": "%"}
    text = f"{before or 'celery'}@{after or host}"
    return re.sub("%([hndiI%])", lambda found: values[found[1]], text)


COROUTINES = 100
"""Default concurrency of the asyncio pool."""


def cpu_count() -> int:
    """Return the number of processes that can run at the same time on this machine."""
    return os.cpu_count() or 1


AUTO = "auto"
"""Value of ``worker_concurrency``: :func:`usable_cpus`."""


def usable_cpus(*, quota: bool, of: Path = Path("/proc/self/cgroup"), groups: Path = Path("/sys/fs/cgroup")) -> int:
    """Return the number of processors that this process may use; with ``quota`` at most that of its control group.

    ``of`` is the file that names the control groups of the process, ``groups`` the folder where they are.
    """
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else cpu_count()
    quotas = list(_cpu_quotas(of, groups)) if quota else []
    return min([count, *(max(1, math.ceil(each)) for each in quotas)])


def _cpu_quotas(of: Path, groups: Path) -> Iterator[float]:
    """Yield the quotas of processors of the control group of a process and of those around it."""
    for line in _lines(of):
        _, controllers, name = line.split(":", 2)
        own = Path(name.lstrip("/"))
        for group in (own, *own.parents):
            if not controllers:
                words = [word for line in _lines(groups / group / "cpu.max") for word in line.split()]
            elif "cpu" in controllers.split(","):
                files = (groups / "cpu" / group / f"cpu.cfs_{name}_us" for name in ("quota", "period"))
                words = [word for file in files for word in _lines(file)]
            else:
                continue
            if len(words) == 2 and all(word.isdecimal() for word in words):
                yield int(words[0]) / int(words[1])


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
