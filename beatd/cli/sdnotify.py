"""Service manager notification (systemd's sd_notify(3)): ready, reloading, stopping, watchdog."""

from __future__ import annotations

import logging
import socket

from beatd.clock import monotonic_us

log = logging.getLogger("beatd.sdnotify")

READY = "READY=1"
STOPPING = "STOPPING=1"
WATCHDOG = "WATCHDOG=1"


class Notifier:
    """Sends states to the socket that ``$NOTIFY_SOCKET`` names; with none, it does nothing.

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

    def reloading(self) -> None:
        """A reload has begun; ``ready`` ends it."""
        self.notify("RELOADING=1", f"MONOTONIC_USEC={monotonic_us()}")

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


def _one_line(text: str) -> str:
    return " ".join(text.split())
