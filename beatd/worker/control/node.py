"""Node of a worker: filters commands by destination, runs them and replies."""

from __future__ import annotations

import fnmatch
import logging
import re
from typing import Any

from beatd.broker.bus import Bus, BusMessage, LamportClock
from beatd.exceptions import MessageError
from beatd.worker.control.panel import WorkerView, find

log = logging.getLogger("celery.worker.pidbox")


_ASKERS_OWN = (KeyError, TypeError, ValueError)
"""Errors of the command's arguments."""


class Node:
    """Runs commands. No command makes :meth:`take` raise anything but the bus's errors."""

    def __init__(self, view: WorkerView, lamport: LamportClock) -> None:
        self._view = view
        self._lamport = lamport

    def take(self, letter: BusMessage, bus: Bus) -> None:
        """Run the command of a message if this node is a destination, and reply if asked to."""
        self._lamport.adjust(letter.headers.get("clock"))
        order = letter.body
        if not isinstance(order, dict) or not self._is_meant(order):
            return
        answer = self._dispatch(order)
        to = order.get("reply_to")
        if not to:
            return
        try:
            self._reply(bus, to, answer, order.get("ticket"))
        except MessageError as error:
            log.warning("Cannot answer: %s", error, extra={"event": "control_unanswered"})

    def _is_meant(self, order: dict[str, Any]) -> bool:
        """True if the names or the pattern of a message include this node; without both every node is included."""
        name, destination, pattern = self._view.hostname, order.get("destination"), order.get("pattern")
        if destination:
            return isinstance(destination, list | str) and name in destination
        if not pattern or not order.get("matcher"):
            return True
        if not isinstance(pattern, str):
            return False
        if order["matcher"] == "glob":
            return fnmatch.fnmatch(name, pattern)
        try:
            return order["matcher"] == "pcre" and re.match(pattern, name) is not None
        except (re.error, RecursionError):
            return False

    def _dispatch(self, order: dict[str, Any]) -> Any:
        method, arguments = order.get("method"), order.get("arguments") or {}
        log.debug("Received command %r", method, extra={"event": "control_command", "method": str(method)})
        try:
            return find(method)(self._view, **arguments)
        except Exception as error:  # a command can be anything, and the worker has other things to do
            log.warning(
                "Control command error: %r",
                error,
                exc_info=not isinstance(error, _ASKERS_OWN),
                extra={"event": "control_command_failed", "method": str(method)},
            )
            return {"error": repr(error)}

    def _reply(self, bus: Bus, to: Any, answer: Any, ticket: Any) -> None:
        if not isinstance(to, dict):
            raise MessageError(f"reply_to {to!r} is no address")
        exchange, key = to.get("exchange"), to.get("routing_key")
        headers = {"ticket": ticket, "clock": self._lamport.forward()}
        name = self._view.hostname
        try:
            bus.reply(BusMessage({name: answer}, headers), str(exchange), str(key))
        except MessageError as error:
            bus.reply(BusMessage({name: {"error": repr(error)}}, headers), str(exchange), str(key))
