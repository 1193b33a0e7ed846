"""What the daemon sends for entries of a Celery app, beside what celery beat sends for them, message by message.

The apps are generated (:mod:`tests.celery_apps`). For each entry either both send the same message to the same list, or
beatd refuses the entry, or the difference is one of those that ``docs/celery.md`` names.
"""

from __future__ import annotations

import base64
import importlib
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest
import redis
from celery.beat import Scheduler, SchedulingError
from kombu.compression import decompress

from beatd.beat.delivery import DirectDelivery
from beatd.beat.message_builder import MessageBuilder
from beatd.broker.redis import RedisPublisher
from beatd.broker.redis_keys import SEPARATOR, RedisKeys
from beatd.config import Config
from beatd.exceptions import BrokerRefused, MessageError
from beatd.importers.celery_app import read_celery_app
from beatd.importers.report import carry_over
from beatd.importers.settings_table import with_connections
from beatd.model import Run
from beatd.planning.policies import expires_at_ms
from beatd.sources import load
from beatd.timestamps import to_ms
from tests.acceptance.celery_pairs import WARNINGS
from tests.celery_apps import AppSource

pytestmark = [*WARNINGS, pytest.mark.filterwarnings("ignore::celery.exceptions.CDeprecationWarning")]

NOW = datetime(2026, 12, 1, 10, 20, 30, tzinfo=UTC)
ENTRIES = 40


class Sent(NamedTuple):
    """The message of an entry by the lists that got it; or why there is none."""

    lists: Mapping[str, bytes]
    error: str = ""


def celery_messages(app: Any, client: redis.Redis) -> dict[str, Sent]:
    """Return what celery beat puts on the broker for each entry, with a worker's bindings; or the error it logs."""
    found = {}
    app.now = lambda: NOW.astimezone(app.timezone)
    app.loader.import_default_modules()
    app.finalize()
    scheduler = Scheduler(app=app)
    with app.connection_for_write() as connection:
        for queue in list(app.amqp.queues.values()):
            queue(connection.default_channel).declare()
    for name, entry in scheduler.schedule.items():
        try:
            scheduler.apply_async(entry, advance=False)
        except SchedulingError as error:
            found[name] = Sent({}, str(error))
        else:
            found[name] = Sent(taken(client))
    app.close()
    return found


def taken(client: redis.Redis) -> dict[str, bytes]:
    """Take all messages out of the lists."""
    lists = [key for key in client.keys("*") if client.type(key) == b"list"]
    messages = {key.decode(): client.rpop(key) for key in lists}
    assert not any(client.llen(key) for key in lists)
    return messages


def daemon_messages(found: Config) -> dict[str, Sent]:
    """Return what the daemon pushes for each entry, and to which list; or why it cannot."""
    url = found.settings.broker.url or found.settings.redis.url
    builder = MessageBuilder(found.settings.broker.default_queue)
    publisher = RedisPublisher(url)
    delivery = DirectDelivery(publisher, keys=RedisKeys.of(url))
    messages = {}
    for entry in found.entries:
        run = Run(entry, to_ms(NOW), to_ms(NOW), entry.schedule)
        message = builder.render(run, expires_at_ms(run))
        try:
            key = delivery.list_key(builder.address_of(entry), entry.options.priority)
        except (MessageError, BrokerRefused) as error:
            messages[entry.name] = Sent({}, str(error))
        else:
            messages[entry.name] = Sent({key: message})
    publisher.close()
    return messages


def plain(message: bytes, zone: tzinfo) -> dict[str, Any]:
    """Return the parts of a message that say what a worker does with it."""
    outer = json.loads(message)
    headers, properties = dict(outer["headers"]), outer["properties"]
    body = base64.b64decode(outer["body"])
    if compression := headers.pop("compression", None):
        body = decompress(body, compression)
    content = json.loads(body)
    if isinstance(content, dict):
        headers, content = protocol_2(headers, content)
    assert headers.pop("id") == headers.pop("root_id") == properties["correlation_id"]
    assert headers.pop("celery_beat_task") is True
    expires = headers["expires"]
    return {
        **{name: value for name, value in headers.items() if name not in OWN},
        "eta": instant(headers["eta"], zone),
        "expires": instant(expires, zone),
        "content": content,
        "priority": properties["priority"],
        # None for a time without a zone: Celery reads it as UTC here, and in the time zone of the app in the header
        "expiration": expires and datetime.fromisoformat(expires).tzinfo and properties["expiration"],
    }


OWN = {"origin", "periodic_task_name", "beatd-entry", "beatd-due-at", "beatd-after", "argsrepr", "kwargsrepr"}
"""Headers that differ: texts for people are cut at other places."""


def protocol_2(headers: dict[str, Any], content: dict[str, Any]) -> tuple[dict[str, Any], list[Any]]:
    """Return headers and content of a message of protocol 1, as protocol 2 has them."""
    names = ("id", "task", "eta", "expires", "group", "retries", "timelimit")
    more = {"lang": "py", "shadow": None, "root_id": content["id"], "parent_id": None, "group_index": None}
    more |= {"replaced_task_nesting": 0, "stamped_headers": None, "stamps": {}, "ignore_result": None}
    embed = {"callbacks": content["callbacks"], "errbacks": content["errbacks"], "chain": None, "chord": None}
    return {**more, **{name: content[name] for name in names}, **headers}, [content["args"], content["kwargs"], embed]


def instant(text: str | None, zone: tzinfo) -> datetime | None:
    if text is None:
        return None
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=zone)).astimezone(UTC)


class Case(NamedTuple):
    """An app, and what celery beat sends for it."""

    name: str
    source: AppSource
    zone: tzinfo
    theirs: Mapping[str, Sent]

    def assert_same(self, ours: Mapping[str, Sent], said: Mapping[str, str]) -> int:
        """Compare all messages; ``said``: what beatd says about entries. Returns how many are the same."""
        same = 0
        for entry, their in self.theirs.items():
            if their.error:
                continue  # celery beat logs an error instead
            mine = ours.get(entry)
            line = next(line for line in self.source.text.splitlines() if f"'{entry}'" in line)
            about = f"{self.name} {self.source.conf} {line} {said.get(entry)}"
            if mine is None or entry in said:
                assert re.search(SAID, said.get(entry, "")), about
            elif mine.error:
                assert "reaches 2 queues" in mine.error, about
                assert len(their.lists) != 1, about
            elif not their.lists:
                assert re.search("exchange|routing_key", self.source.text), about
            else:
                [(key, message)] = mine.lists.items()
                expected, got = (plain(each, self.zone) for each in (*their.lists.values(), message))
                left_out = {"ignore_result", "shadow"} if "task_protocol" in self.source.conf else set()
                left_out |= {"expiration"} if expected["expiration"] is None else set()
                if got["ignore_result"] is None and not re.search(r"ignore_result\W+False", line):
                    got["ignore_result"] = False if expected["ignore_result"] is False else None  # that of the task
                assert without(got, left_out) == without(expected, left_out), about
                assert self.queues([key]) == self.queues(their.lists), about
                same += 1
        return same

    def queues(self, lists: Any) -> set[str]:
        """Return names of lists; without the priority if the app has more steps than the daemon."""
        has_more = "range" in self.source.conf.get("broker_transport_options", "")
        return {key.partition(SEPARATOR)[0] if has_more else key for key in lists}


def without(message: Mapping[str, Any], names: set[str]) -> dict[str, Any]:
    return {name: value for name, value in message.items() if name not in names}


SAID = "|".join(
    [
        r'unknown setting "(eta|task_id|root_id|stamped_headers|tenant)"',
        r'serializer: expected "json"',
        r"priority \d: the app's workers do not take from its list",
        "TOML has no|beyond the numbers of TOML",
        "an exchange whose bindings have the separator sep",
    ]
)
"""Differences that beatd names when it reads the app."""


@pytest.fixture
def case(tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], Case]]:
    """Write the app of a number as a module into the working directory, and have celery beat send its entries."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("CASE_BROKER", redis_url)
    made: list[str] = []

    def make(number: int) -> Case:
        name, source = f"celery_case_{number}", AppSource(number, ENTRIES)
        (tmp_path / f"{name}.py").write_text(source.text)
        made.append(name)
        module: ModuleType = importlib.import_module(name)
        with redis.Redis.from_url(redis_url) as client:
            client.flushall()
            return Case(name, source, module.app.timezone, celery_messages(module.app, client))

    yield make
    for name in made:
        del sys.modules[name]


TIMEOUT = pytest.mark.timeout(1_800)
SOME = [pytest.param(range(4), id="some"), pytest.param(range(4, 200), id="many", marks=[pytest.mark.soak, TIMEOUT])]


@pytest.mark.parametrize("numbers", SOME)
@pytest.mark.parametrize("package", ["celery", "beatd"])
def test_the_daemon_sends_what_celery_beat_sends(
    package: str, numbers: range, case: Callable[[int], Case], tmp_path: Path, redis_url: str
) -> None:
    same = 0
    for number in numbers:
        made = case(number)
        if package == "beatd":
            (tmp_path / f"{made.name}.py").write_text(made.source.of_beatd)
        options = made.source.conf.get("broker_transport_options", "")
        url = f"{redis_url}?global_keyprefix=env1%3A" if "keyprefix" in options else redis_url
        (tmp_path / "beat.toml").write_text(
            f'app = "{made.name}"\n[redis]\nurl = "{redis_url}"\n[broker]\nurl = "{url}"\n'
        )
        found = load("beat.toml", env={})
        said = {fault.path.split(".")[1]: f"{fault.path}: {fault.message}" for fault in found.refused}
        same += made.assert_same(daemon_messages(found), said)
    assert same > len(numbers) * ENTRIES / 2


@pytest.mark.parametrize("numbers", SOME)
def test_a_file_made_of_an_app_sends_what_celery_beat_sends(
    numbers: range, case: Callable[[int], Case], tmp_path: Path
) -> None:
    same = 0
    for number in numbers[::2]:
        made = case(number)
        carried = carry_over(read_celery_app(made.name))
        (tmp_path / "beat.toml").write_text(with_connections(carried.toml, made.name)[0])
        found = load("beat.toml", env={"HOME": "/wrong"})
        said = {note.entry: str(note) for note in carried.notes if "it has no effect" not in note.why}
        same += made.assert_same(daemon_messages(found), said)
    assert same > len(numbers) * ENTRIES / 4
