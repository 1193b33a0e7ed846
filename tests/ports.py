"""TCP ports of this host for the servers of tests."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import socket

LOWEST, END = 10_000, 32_000
"""Below the ports that connections get by themselves: a server that was killed finds its port free again."""


def _own_ports() -> list[int]:
    """Return the ports of this process in random order; the processes of pytest-xdist have different ones.

    A port is free for some time before its server listens, and for good where a test needs that nobody does.
    """
    number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    count = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    ports = list(range(LOWEST + number, END, count))
    random.SystemRandom().shuffle(ports)
    return ports


_ports = itertools.cycle(_own_ports())


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that nobody uses now; it is returned again only after all others."""
    while True:
        port = next(_ports)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
