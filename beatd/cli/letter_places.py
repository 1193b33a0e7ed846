"""Where dead letters are, and how their messages get back: found from a file, an app or a URL."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from beatd import broker, config
from beatd.app.loading import find_app
from beatd.broker import Address, Parcel, Publisher
from beatd.exceptions import ConfigError, Fault, MessageError
from beatd.message import open_envelope
from beatd.store import server
from beatd.store.client import connect, place_of
from beatd.store.dead_letters import DeadLetters, Letter
from beatd.store.keys import Keys
from beatd.wiring import running_store


class Refusal(NamedTuple):
    """A letter whose message cannot be sent, and why."""

    letter: Letter
    reason: str


class Place:
    """The letters on one server; ``publisher`` leads to their broker where that is another one."""

    def __init__(self, client: Any, keys: Keys, publisher: Publisher | None) -> None:
        self.name = place_of(client)
        self.letters = DeadLetters(client, keys)
        self._publisher = publisher

    def requeue(self, letters: Sequence[Letter]) -> tuple[int, list[Refusal]]:
        """Send the messages to their queues and strike the letters off; returns how many, and what cannot be sent."""
        refusals = [Refusal(one, reason) for one in letters if (reason := _unsendable(one))]
        letters = [one for one in letters if not _unsendable(one)]
        if self._publisher is None:
            return self.letters.requeue(letters), refusals
        with self.letters.alone():
            there = {one.raw for one in self.letters}
            count = 0
            for letter in letters:
                if letter.raw not in there:
                    continue
                if reason := self._send(self._publisher, letter):
                    refusals.append(Refusal(letter, reason))
                else:
                    count += self.letters.remove([letter])
        return count, refusals

    def _send(self, publisher: Publisher, letter: Letter) -> str | None:
        """Publish, and wait until the broker has it; returns why that is impossible."""
        try:
            message = open_envelope(letter.message)
        except MessageError as error:
            return str(error)
        if "id" not in message.headers:
            return "it has no id"
        address = message.properties.get("delivery_info") or {}
        exchange = "" if letter.worker else str(address.get("exchange") or "")
        refused = publisher.publish_many([Parcel(message, Address(letter.queue, exchange))])
        return refused[0].reason if refused else None


def _unsendable(letter: Letter) -> str | None:
    """The reason why this letter cannot be sent again, if there is one."""
    if not letter.queue:
        return "it names no queue"
    if not letter.whole:
        return f"only the first {len(letter.message):,} of its {letter.size:,} bytes were kept"
    return None


@contextlib.contextmanager
def open_places(config_file: str | None, app_name: str | None, broker_url: str | None) -> Iterator[list[Place]]:
    """All places of an installation: the broker, if that is Redis, and the state store, if that is another server.

    Raises :class:`~beatd.exceptions.ConfigError` and :class:`~beatd.exceptions.StoreError`.
    """
    url, store_url, keys = _addresses(config_file, app_name, broker_url)
    with contextlib.ExitStack() as stack:
        places = []
        broker_client = None
        if broker.is_redis(url):
            broker_client = stack.enter_context(connect(broker.redis_url(url), name="beatd-dead-letters"))
            places.append(Place(broker_client, keys, None))
        if store_url is not None:
            client = stack.enter_context(connect(store_url, name="beatd-dead-letters"))
            if broker_client is None or not server.same(client, broker_client):
                publisher = broker.open(url)
                stack.callback(publisher.close)
                places.append(Place(client, keys, publisher))
        if not places:
            text = "without a state store this broker keeps no dead letters: name a file with --config"
            raise ConfigError([Fault("beatd dead-letters", None, "", text)])
        yield places


def _addresses(config_file: str | None, app_name: str | None, broker_url: str | None) -> tuple[str, str | None, Keys]:
    """The broker's URL, the state store's, and the names of keys."""
    store_url, prefix, url = None, "beatd", broker_url
    if config_file or not (app_name or broker_url):
        settings = config.load(config.find(config_file)).settings
        store_url, prefix = running_store(settings), settings.redis.prefix
        url = url or settings.broker.url or store_url
    if app_name:
        conf = find_app(app_name).conf
        store_url = store_url or conf.state_store
        url = url or (conf.broker_url if isinstance(conf.broker_url, str) else ";".join(conf.broker_url))
    return str(url), store_url, Keys(prefix)
