"""Whether the servers that a configuration names can be used, found out within seconds."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import NamedTuple

from beatd import broker
from beatd.exceptions import BeatdError, StoreUnavailable
from beatd.model import Settings
from beatd.store.client import redacted
from beatd.store.server_binary import choose
from beatd.wiring import Store

WITHIN = 15.0
"""Seconds for each server. Sockets have timeouts of their own; this also bounds name servers and drivers that wait."""


class Attempt(NamedTuple):
    """What became of trying one server: ``what`` is ``store`` or ``broker``; no password is in any of it."""

    what: str
    url: str
    ok: bool
    message: str

    def __str__(self) -> str:
        return f"{self.what} {self.url}: {self.message}"


def try_servers(settings: Settings) -> list[Attempt]:
    """Try the state store, and the broker if it is another server. Starts nothing and writes nothing."""
    store = _try("store", settings.redis.url, lambda: _store(settings))
    if settings.broker.url is None:
        return [store, Attempt("broker", "the state store itself", store.ok, store.message)]
    url, queue = settings.broker.url, settings.broker.default_queue
    return [store, _try("broker", url, lambda: _broker(url, queue))]


def _store(settings: Settings) -> str:
    if settings.redis.url == "embedded":
        return f"would be {choose(None)}"
    found = Store(settings, settings.redis.url)
    found.client.close()
    return "reachable" + (", and the broker, too" if settings.broker.url and found.is_broker else "")


def _broker(url: str, queue: str) -> str:
    publisher = broker.open(url)
    try:
        waiting = publisher.depth(queue)
    finally:
        publisher.close()
    return f"reachable, {waiting:,} waiting in {queue}"


def _try(what: str, url: str, attempt: Callable[[], str]) -> Attempt:
    """Run the attempt in a thread that is left behind if it does not come back."""
    said: list[str] = []
    failed: list[BeatdError] = []

    def run() -> None:
        try:
            said.append(attempt())
        except BeatdError as error:
            failed.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(WITHIN)
    if not said and not failed:
        failed.append(StoreUnavailable(f"no answer within {WITHIN:g} s"))
    message = said[0] if said else str(failed[0])
    return Attempt(what, redacted(url), bool(said), message)
