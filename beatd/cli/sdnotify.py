"""Service manager notification (systemd's sd_notify(3)): ready, reloading, stopping, watchdog, and signs of life."""

from __future__ import annotations

import logging
import os
import socket
import threading

from beatd.clock import SystemClock
from beatd.config import Environment

log = logging.getLogger("beatd.sdnotify")

READY = "READY=1"
STOPPING = "STOPPING=1"
WATCHDOG = "WATCHDOG=1"


class ServiceManager:
    """Sends states of this process to the socket that ``$NOTIFY_SOCKET`` names; with none, it does nothing.

    ``address`` is the variable's value: a path, or ``@name`` for an abstract socket. A manager that cannot be reached
    is logged once and never stops the caller.
    """

    def __init__(self, address: str | None) -> None:
        self._address = "\0" + address[1:] if address and address.startswith("@") else address
        self._complained = False

    def __bool__(self) -> bool:
        return bool(self._address)

    def notify(self, *states: str) -> None:
        """Send assignments such as ``READY=1``, all in one datagram."""
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as connection:
                connection.settimeout(1.0)
                connection.connect(self._address)
                connection.sendall("\n".join(states).encode())
        except OSError as error:
            if not self._complained:
                self._complained = True
                log.warning("Cannot notify the service manager: %s", error, extra={"event": "notify_failed"})

    def ready(self, status: str = "") -> None:
        """The service does its work now, also again after a reload."""
        self.notify(READY, *([f"STATUS={_one_line(status)}"] if status else []))

    def stopping(self) -> None:
        """The end has begun."""
        self.notify(STOPPING)

    def watchdog(self) -> None:
        """The loop turns."""
        self.notify(WATCHDOG)

    def status(self, text: str) -> None:
        """One line for ``systemctl status``."""
        self.notify(f"STATUS={_one_line(text)}")


def watchdog_period(microseconds: str | None, pid: str | None, own_pid: int) -> float | None:
    """Seconds between signs of life: half of ``$WATCHDOG_USEC``, if ``$WATCHDOG_PID`` is empty or this process.

    None when no watchdog is wanted or the value is no positive number.
    """
    if not microseconds or not microseconds.isdecimal() or int(microseconds) == 0:
        return None
    if pid and pid != str(own_pid):
        return None
    return int(microseconds) / 2_000_000


START_STEP_AT_MOST = 120.0
"""Seconds for one step of the start, such as an attempt to reach the state store."""


class SignOfLife:
    """Tells the service manager that the daemon does not hang, as often as it wants to hear it, from the start on.

    Comes from a thread of its own: waiting for a store or a broker is no hang, however long it takes. While the loop
    runs, its watchdog ends a process that hangs; before that, a step of the start that takes too long ends the signs.
    """

    def __init__(self, manager: ServiceManager, environment: Environment) -> None:
        self._manager = manager
        self._clock = SystemClock()
        self._period = watchdog_period(environment.watchdog_usec, environment.watchdog_pid, os.getpid())
        self._until: float | None = None
        self._thread = threading.Thread(target=self._run, name="sign-of-life", daemon=True)

    def start(self) -> None:
        """Begin, with the first step of the start."""
        self.extend()
        if self._manager and self._period is not None:
            self._thread.start()

    def extend(self) -> None:
        """Another step of the start begins."""
        self._until = self._clock.monotonic() + START_STEP_AT_MOST

    def leave_to_watchdog(self) -> None:
        """The watchdog of the loop decides from now on."""
        self._until = None

    def _run(self) -> None:
        never = threading.Event()
        while self._until is None or self._clock.monotonic() < self._until:
            self._manager.watchdog()
            never.wait(self._period)


def _one_line(text: str) -> str:
    return " ".join(text.split())
