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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import redis
from celery.beat import Scheduler, SchedulingError
from kombu.compression import decompress
from kombu.serialization import loads

from beatd.beat.delivery import DirectDelivery
from beatd.beat.message_builder import MessageBuilder
from beatd.broker.redis import RedisPublisher
from beatd.broker.redis_keys import RedisKeys
from beatd.config import Config
from beatd.exceptions import MessageError
from beatd.model import Entry, Run
from beatd.planning.policies import expires_at_ms
from beatd.sources import load
from beatd.timestamps import to_ms
from tests.acceptance.celery_pairs import WARNINGS
from tests.celery_apps import AppSource, apps

pytestmark = WARNINGS

NOW = datetime(2026, 12, 1, 10, 20, 30, tzinfo=UTC)


def celery_messages(app: Any, client: redis.Redis) -> dict[str, tuple[dict[str, bytes], str]]:
    """What celery beat puts on the broker: the message of each entry by list, or the error that it logs."""
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
            found[name] = {}, str(error)
        else:
            found[name] = taken(client), ""
    app.close()
    return found


def taken(client: redis.Redis) -> dict[str, bytes]:
    """Take all messages out of the lists."""
    lists = [key for key in client.keys("*") if client.type(key) == b"list"]
    messages = {key.decode(): client.rpop(key) for key in lists}
    assert not any(client.llen(key) for key in lists)
    return messages


def beatd_messages(found: Config, url: str) -> dict[str, tuple[dict[str, bytes], str]]:
    """What the daemon pushes, to which list; or why it cannot."""
    builder = MessageBuilder(found.settings.broker.default_queue)
    publisher = RedisPublisher(url)
    delivery = DirectDelivery(publisher, keys=RedisKeys.of(url))
    messages = {}
    for entry in found.entries:
        run = Run(entry, to_ms(NOW), to_ms(NOW), entry.schedule)
        message = builder.render(run, expires_at_ms(run))
        try:
            key = delivery.list_key(builder.address_of(entry), entry.options.priority)
        except MessageError as error:
            messages[entry.name] = {}, str(error)
        else:
            messages[entry.name] = {key: message}, ""
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
        # Celery counts a time without a zone from UTC here, and from the time zone of the app in the header
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
