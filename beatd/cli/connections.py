"""Whether the servers that a configuration names can be used, found out within seconds."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from beatd import broker
from beatd.exceptions import BeatdError, StoreRefused
from beatd.model import Entry, Settings
from beatd.redaction import redacted_text
from beatd.store import rights, server
from beatd.store.client import connect, place_of
from beatd.store.embedded import find_embedded
from beatd.store.keys import Keys
from beatd.store.server_binary import choose
from beatd.urls import shown
from beatd.wiring import Store

if TYPE_CHECKING:
    import redis

WITHIN = 15.0
"""Seconds for each server. Sockets have timeouts of their own; this also bounds name servers and drivers that wait."""


QUEUES_TRIED = 50
"""Of the queues that entries name, at most so many are tried."""


class Attempt(NamedTuple):
    """What became of trying one server: ``what`` is ``store`` or ``broker``; no password is in any of it."""

    what: str
    url: str
    ok: bool
    message: str

    def __str__(self) -> str:
        return f"{self.what} {self.url}: {self.message}"


def try_servers(settings: Settings, entries: Sequence[Entry] = ()) -> list[Attempt]:
    """Try the state store, and the broker if it is another server: all that a daemon needs there.

    Starts nothing; what it writes are keys and queues for trial, which are gone when it returns.
    """
    named = (entry.options.queue for entry in entries)
    queues = list(dict.fromkeys((settings.broker.default_queue, *filter(None, named))))[:QUEUES_TRIED]
    url = settings.broker.url
    store = _try("store", settings.redis.url, lambda: _store(settings, queues if url is None else []))
    if url is None:
        return [store, Attempt("broker", "the state store itself", store.ok, store.message)]
    return [store, _try("broker", url, lambda: _broker(url, queues, settings))]


def _store(settings: Settings, queues: Sequence[str]) -> str:
    url = settings.redis.url
    if url == "embedded":
        running = find_embedded(settings.state_dir)
        if running is None:
            return f"would be {choose(None)}"
        url = running
    with connect(url, timeout_ms=settings.redis.timeout_ms) as client:
        notes = _examine(client, Keys(settings.redis.prefix), queues, "state store")
        what = server.described(client) if settings.redis.url == "embedded" else ""
    found = Store(settings, url)
    found.client.close()
    both = ", and the broker, too" if settings.broker.url and found.is_broker else ""
    return "; ".join([f"reachable{f', {what} runs' if what else ''}{both}", *notes])


def _examine(client: redis.Redis, keys: Keys, queues: Sequence[str], what: str, *, state: bool = True) -> list[str]:
    """What is worth knowing of a server; raises :class:`StoreRefused` with all that is wrong with it."""
    info = server.facts(client)
    wrong, notes = rights.state_of(info)
    wrong = wrong or rights.missing(client, keys, queues, state=state)
    if wrong:
        raise StoreRefused(f"{what} {place_of(client)}: {'; '.join(wrong)}")
    return notes


def _broker(url: str, queues: Sequence[str], settings: Settings) -> str:
    notes = []
    if broker.is_redis(url):
        with connect(url, timeout_ms=settings.redis.timeout_ms) as client:
            notes = _examine(client, Keys(settings.redis.prefix), queues, "broker", state=False)
    elif broker.is_amqp(url):
        broker.try_rights(url, queues)
    publisher = broker.open(url)
    try:
        waiting = publisher.depth(queues[0])
    finally:
        publisher.close()
    return "; ".join([f"reachable, {waiting:,} waiting in {queues[0]}", *notes])


def _try(what: str, url: str, attempt: Callable[[], str]) -> Attempt:
    """Run the attempt in a thread that is left behind if it does not come back."""
    said: list[str] = []
    failed: list[str] = []

    def run() -> None:
        try:
            said.append(attempt())
        except BeatdError as error:
            failed.append(str(error))
        except Exception as error:  # noqa: BLE001 - of a driver: it is what became of the attempt
            failed.append(redacted_text(f"{type(error).__name__}: {error}", at_most=1_000))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(WITHIN)
    message = (said or failed or [f"no answer within {WITHIN:g} s"])[0]
    return Attempt(what, shown(url), bool(said), message)
