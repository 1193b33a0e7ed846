"""Free TCP ports for the servers of tests."""

from __future__ import annotations

import contextlib
import os
import random
import socket

FIRST, END = 10_000, 32_000
"""The range is below the ports of connections: a server that was killed finds its own free again."""

_given: set[int] = set()


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody uses now. None is given out twice.

    The processes of pytest-xdist have ports of their own: no other one takes a port before its server does, or while
    its server is down.
    """
    number, processes = _place()
    while True:
        port = random.SystemRandom().randrange(FIRST + number, END, processes)
        if port in _given:
            continue
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            _given.add(port)
            return port


def _place() -> tuple[int, int]:
    """Return the number of this process among those of pytest-xdist, and how many they are."""
    processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    return int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % processes, processes
