"""Dead letters for programs: where they are kept, which are meant, what can be said of one, and how it gets back."""

from __future__ import annotations

import contextlib
import fnmatch
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from itertools import islice
from typing import Any, NamedTuple

from beatd import broker, config
from beatd.app.find_app import find_app
from beatd.broker import Address, OutgoingMessage, Publisher
from beatd.clock import SystemClock
from beatd.config.loader import load_settings
from beatd.exceptions import ConfigError, Fault, MessageError
from beatd.message.protocol import TaskMessage, open_envelope, without_marks
from beatd.redaction import printable, redacted, redacted_text
from beatd.state_store import running_store
from beatd.store import server_check
from beatd.store.audit import Audit
from beatd.store.client import connect, place_of
from beatd.store.dead_letters import DeadLetter, DeadLetters
from beatd.store.keys import Keys
from beatd.timestamps import to_ms
from beatd.url_keyprefix import global_keyprefix, own_prefix


class Refusal(NamedTuple):
    """A letter whose message cannot be sent, and why."""

    letter: DeadLetter
    reason: str


class DeadLetterSource:
    """The letters on one server; ``publisher`` leads to their broker where that is another one.

    On the broker itself ``queue_prefix`` is before the keys of its queues.
    """

    def __init__(self, client: Any, keys: Keys, publisher: Publisher | None, queue_prefix: str = "") -> None:
        self.name = f"{place_of(client)} ({keys.prefix})" if queue_prefix else place_of(client)
        self.letters = DeadLetters(client, keys, queue_prefix=queue_prefix)
        self.audit = Audit(client, keys)
        self._publisher = publisher

    def requeue(self, letters: Sequence[DeadLetter]) -> tuple[int, list[Refusal]]:
        """Send the messages to their queues and strike the letters off; returns how many, and what cannot be sent.

        They are sent without the marks of their deliveries: one that has killed its workers would come back at once.
        """
        refusals = [Refusal(one, reason) for one in letters if (reason := _unsendable(one))]
        letters = [one._replace(message=without_marks(one.message)) for one in letters if not _unsendable(one)]
        if self._publisher is None:
            outcomes = list(zip(letters, self.letters.requeued(letters), strict=True))
            refusals += [Refusal(one, f"queue {one.queue!r}: {why}") for one, why in outcomes if isinstance(why, str)]
            return sum(outcome is True for _, outcome in outcomes), refusals
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

    def _send(self, publisher: Publisher, letter: DeadLetter) -> str | None:
        """Publish, and wait until the broker has it; returns why that is impossible."""
        try:
            message = open_envelope(letter.message)
        except MessageError as error:
            return str(error)
        if "id" not in message.headers:
            return "it has no id"
        address = message.properties.get("delivery_info") or {}
        exchange = "" if letter.worker else str(address.get("exchange") or "")
        refused = publisher.publish_many([OutgoingMessage(message, Address(letter.queue, exchange))])
        return refused[0].reason if refused else None


def _unsendable(letter: DeadLetter) -> str | None:
    """The reason why this letter cannot be sent again, if there is one."""
    if not letter.queue:
        return "it names no queue"
    if not letter.whole:
        return f"only the first {len(letter.message):,} of its {letter.size:,} bytes were kept"
    return None


@contextlib.contextmanager
def open_places(
    config_file: str | None, app_name: str | None, broker_url: str | None
) -> Iterator[list[DeadLetterSource]]:
    """All places of an installation: the broker, if that is Redis, and the state store, if that is another server.

    Raises :class:`~beatd.exceptions.ConfigError` and :class:`~beatd.exceptions.StoreError`.
    """
    url, store_url, prefix = _addresses(config_file, app_name, broker_url)
    keys, beside = Keys(own_prefix(store_url, prefix)), Keys(own_prefix(url, prefix))
    with contextlib.ExitStack() as stack:
        places = []
        broker_client = None
        if broker.is_redis(url):
            broker_client = stack.enter_context(
                connect(broker.redis_url(url), name="beatd-dead-letters", role="broker")
            )
            places.append(DeadLetterSource(broker_client, beside, None, global_keyprefix(url)))
        if store_url is not None:
            client = stack.enter_context(connect(store_url, name="beatd-dead-letters"))
            if broker_client is None or keys.prefix != beside.prefix or not server_check.same(client, broker_client):
                publisher = broker.open(url)
                stack.callback(publisher.close)
                places.append(DeadLetterSource(client, keys, publisher))
        if not places:
            text = "without a state store this broker keeps no dead letters: name a file with --config"
            raise ConfigError([Fault("beatd dead-letters", None, "", text)])
        yield places


def _addresses(config_file: str | None, app_name: str | None, broker_url: str | None) -> tuple[str, str | None, str]:
    """The broker's URL, the state store's, and the prefix of keys there."""
    store_url, prefix, url = None, "beatd", broker_url
    if config_file or not (app_name or broker_url):
        settings = load_settings(config.find(config_file)).settings
        store_url, prefix = running_store(settings), settings.redis.prefix
        url = url or settings.broker.url or store_url
    if app_name:
        conf = find_app(app_name).conf
        store_url = store_url or conf.state_store
        url = url or (conf.broker_url if isinstance(conf.broker_url, str) else ";".join(conf.broker_url))
    return str(url), store_url, prefix


_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_BODY_MAX, _HEADERS_MAX, REASON_MAX = 2_000, 100_000, 2_000
"""Characters of a body, of headers and of a reason that are shown."""


class Found(NamedTuple):
    """A letter and where it is."""

    place: DeadLetterSource
    letter: DeadLetter


class Filter(NamedTuple):
    """Which letters are meant."""

    ids: tuple[str, ...] = ()
    reason: str | None = None
    task: str | None = None
    queue: str | None = None
    older_ms: int | None = None
    alike: bool = False
    """Not only the letters with these ids, but all that are like them, see :func:`grouped`."""

    def __bool__(self) -> bool:
        return any(self)

    def takes(self, letter: DeadLetter, now_ms: int) -> bool:
        """True if the letter matches."""
        return (
            (not self.ids or letter.id.startswith(self.ids))
            and (self.reason is None or self.reason.lower() in letter.reason.lower())
            and (self.task is None or fnmatch.fnmatchcase(task_of(letter), self.task))
            and (self.queue is None or self.queue == queue_of(letter))
            and (self.older_ms is None or age_ms(letter, now_ms) >= self.older_ms)
        )


def matching_letters(places: Sequence[DeadLetterSource], wanted: Filter, limit: int | None) -> Iterator[Found]:
    """The letters that match, the newest first of each place."""
    now_ms = SystemClock().now_ms()
    every = (Found(place, letter) for place in places for letter in place.letters)
    if wanted.alike:
        models = {_likeness(one) for one in matching_letters(places, wanted._replace(alike=False), None)}
        every = (one for one in every if _likeness(one) in models)
        wanted = wanted._replace(ids=())
    return islice((one for one in every if wanted.takes(one.letter, now_ms)), limit)


class LetterGroup(NamedTuple):
    """Letters of one place that are alike: of the same task and queue, with the same error."""

    newest: Found
    size: int


def grouped(found: Iterable[Found]) -> list[LetterGroup]:
    """The letters, those that are alike together, in the order of the newest of each group."""
    newest: dict[tuple[str, ...], Found] = {}
    counts: Counter[tuple[str, ...]] = Counter()
    for one in found:
        likeness = _likeness(one)
        newest.setdefault(likeness, one)
        counts[likeness] += 1
    return [LetterGroup(one, counts[likeness]) for likeness, one in newest.items()]


def _likeness(one: Found) -> tuple[str, ...]:
    """The place, task, queue and error of a letter; an error may name the id of its message."""
    letter = one.letter
    return one.place.name, task_of(letter), queue_of(letter), _ID.sub("", letter.reason)


def each_place(
    places: Sequence[DeadLetterSource],
    wanted: Filter,
    step: Callable[[DeadLetterSource, list[DeadLetter]], tuple[int, list[Refusal]]],
) -> tuple[int, list[Refusal]]:
    """Do it everywhere, the oldest letters first: so their messages come in the order in which they were sent."""
    total, refusals = 0, []
    for place in places:
        letters = [found.letter for found in matching_letters([place], wanted, None)][::-1]
        count, refused = step(place, letters)
        total += count
        refusals += refused
    return total, refusals


def message_of(letter: DeadLetter) -> TaskMessage | None:
    """The letter's message, if it is one."""
    try:
        return open_envelope(letter.message)
    except MessageError:
        return None


def task_of(letter: DeadLetter) -> str:
    """The task's name, as far as it can be read."""
    message = message_of(letter)
    return str(message.headers.get("task") or "") if message else ""


def queue_of(letter: DeadLetter) -> str:
    """On Redis the key of a list, in which the priority is a part of its own."""
    return letter.queue.partition("\x06")[0]


def age_ms(letter: DeadLetter, now_ms: int) -> int:
    """Age of the dead letter, in milliseconds."""
    try:
        return max(0, now_ms - to_ms(datetime.fromisoformat(letter.at)))
    except (ValueError, TypeError):
        return 0


def facts(found: Found) -> dict[str, Any]:
    """The letter in short, for programs and people."""
    letter = found.letter
    message = message_of(letter)
    headers = message.headers if message else {}
    return {
        "id": letter.id,
        "at": letter.at,
        "reason": redacted_text(letter.reason, at_most=REASON_MAX),
        "queue": queue_of(letter),
        "task": headers.get("task"),
        "task_id": headers.get("id"),
        "by": letter.worker or "the daemon",
        "bytes": letter.size,
        "complete": letter.whole,
        "store": found.place.name,
    }


def content(letter: DeadLetter, *, body: bool) -> dict[str, Any]:
    """Return its message without secrets; ``body`` shows arguments as they are."""
    message = message_of(letter)
    if message is None:
        return (
            {
                "message": cut(
                    redacted_text(letter.message[: 4 * _BODY_MAX].decode("utf-8", "replace"), at_most=_BODY_MAX),
                    _BODY_MAX,
                )
            }
            if body
            else {}
        )
    shown: dict[str, Any] = {
        "headers": redacted(message.headers, at_most=_HEADERS_MAX),
        "properties": redacted(message.properties, at_most=_HEADERS_MAX),
    }
    shown["content"] = f"{message.content_type}, {message.content_encoding}"
    if body:
        shown["body"] = cut(message.body.decode("utf-8", "replace"), _BODY_MAX)
    return shown


def cut(text: str, most: int) -> str:
    """The text on one line, and not longer."""
    line = printable(" ".join(text.split()))
    return line if len(line) <= most else f"{line[: most - 1]}…"
