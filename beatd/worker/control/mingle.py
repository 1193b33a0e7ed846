"""Mingle, as in Celery: at the start, ask the other workers for revoked ids and their logical clocks.

The same round finds out if another worker has the name of this one.
"""

from __future__ import annotations

import logging
import uuid
from typing import Any

from beatd.broker.bus import Bus, BusMessage, LamportClock, Names, addressed, command_body
from beatd.clock import monotonic
from beatd.exceptions import BrokerError
from beatd.worker.admission.revoked import RevokedSync
from beatd.worker.control.inspect_commands import texts

log = logging.getLogger("beatd.worker.control.mingling")

_LISTEN_S = 2.0
"""Time for which answers are accepted."""
FIRST_ANSWER_S = 0.5
"""Time that the worker waits for the first answer if there is no state store with revoked ids."""


class Mingle:
    """One round, over its own connection."""

    def __init__(self, bus: Bus, hostname: str, lamport: LamportClock, sharing: RevokedSync, names: Names) -> None:
        self._bus = bus
        self._hostname = hostname
        self._lamport = lamport
        self._sharing = sharing
        self._names = names
        self._over_at = 0.0
        self._of_own_name = 0
        """Answers of workers with the name of this one; it gives one itself."""

    def start(self) -> None:
        """Send the request."""
        self._over_at = monotonic() + _LISTEN_S
        oid = str(uuid.uuid4())
        hello = command_body("hello", {"from_node": self._hostname, "revoked": self._sharing.ids()})
        letter = BusMessage(hello, {"clock": self._lamport.forward(), "expires": 0})
        try:
            self._bus.connect(oid=oid)
            self._bus.broadcast(addressed(letter, self._names, oid, str(uuid.uuid4())))
            ping = BusMessage(command_body("ping", {}, [self._hostname]), letter.headers)
            self._bus.broadcast(addressed(ping, self._names, oid, str(uuid.uuid4())))
        except BrokerError as error:
            log.debug("No mingling: %s", error, extra={"event": "mingle_failed"})
            self.stop()

    def turn(self) -> bool:
        """Read answers; false after the last one."""
        if not self._over_at:
            return False
        try:
            for letter in self._bus.replies(100):
                self._learn(letter)
        except BrokerError:
            self._over_at = 0.0
        if monotonic() >= self._over_at:
            self.stop()
            return False
        return True

    def files(self) -> list[int]:
        return self._bus.files() if self._over_at else []

    def stop(self) -> None:
        """Close the connection."""
        self._over_at = 0.0
        self._bus.close()

    def _learn(self, letter: BusMessage) -> None:
        self._lamport.adjust(letter.headers.get("clock"))
        answers: dict[Any, Any] = letter.body if isinstance(letter.body, dict) else {}
        for node, answer in answers.items():
            if node == self._hostname:
                self._count_own_name(answer)
            elif isinstance(answer, dict):
                self._lamport.adjust(answer.get("clock"))
                self._sharing.learn(texts(answer.get("revoked")))
                log.debug("Synchronized with %s", node, extra={"event": "mingled", "node": str(node)})

    def _count_own_name(self, answer: Any) -> None:
        self._of_own_name += isinstance(answer, dict) and "ok" in answer
        if self._of_own_name == 2:
            log.warning(
                "Another worker has the name %s, too: remote control reaches both, and monitors take them for one. "
                "Give each worker a name of its own with -n.",
                self._hostname,
                extra={"event": "worker_name_taken", "node": self._hostname},
            )
