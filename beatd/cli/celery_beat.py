"""Signs of a celery beat that runs beside beatd, and would send again what beatd sends.

celery beat answers to nobody, so there are only signs: its process on this host, RedBeat's lock, and messages that wait
in queues with the header that it gives them.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from beatd.broker import is_redis
from beatd.broker.redis_keys import RedisKeys
from beatd.exceptions import StoreRefused
from beatd.model import Settings
from beatd.redaction import redacted_text
from beatd.state_store import running_store
from beatd.store.client import Role, connect, translate_errors
from beatd.urls import RedisUrl

if TYPE_CHECKING:
    import redis

REDBEAT_LOCK = "redbeat::lock"
"""Key of RedBeat's lock, with its default prefix."""
_HEADER, _OURS = "celery_beat_task", "beatd-entry"
_PEEKED = 100
"""Messages that are looked at, at each end of a queue."""
_QUEUES = 50
_ADVICE = "an entry that both have is sent twice: stop one of them"


def signs_on_host(processes: Path = Path("/proc")) -> Iterator[str]:
    """Yield a sentence for each process of celery beat, also inside a worker (``-B``)."""
    for path in processes.glob("[0-9]*/cmdline"):
        with suppress(OSError):
            words = path.read_bytes().decode(errors="replace").split("\0")[:-1]
            if is_celery_beat(words):
                line = redacted_text(shlex.join(words), at_most=80)
                yield f"celery beat runs on this host, process {path.parent.name} ({line}); {_ADVICE}"


def signs_on_servers(settings: Settings, queues: Iterable[str], *, redbeat: bool = True) -> Iterator[str]:
    """Yield a sentence for each sign in state store and broker. Raises :class:`~beatd.exceptions.StoreError`.

    ``redbeat``: look for RedBeat's lock, too; the server may log that a user with the least rights has no right to it.
    """
    store = running_store(settings)
    broker = settings.broker.url or store
    for url in dict.fromkeys(each for each in (store, broker) if is_redis(each)):
        role: Role = "state store" if url == store else "broker"
        with connect(url, timeout_ms=settings.redis.timeout_ms, name="beatd-signs", role=role) as client:
            with suppress(StoreRefused), translate_errors(client):
                if redbeat and client.exists(REDBEAT_LOCK):
                    yield f"RedBeat leads on {RedisUrl.parse(url).shown}; {_ADVICE}"
            if url == broker:
                yield from _waiting(client, RedisKeys.of(url), sorted(set(queues))[:_QUEUES])


def is_celery_beat(words: list[str]) -> bool:
    """Return True for the command line of a celery beat."""
    for index, word in enumerate(words[:3]):
        if Path(word).name == "celery":
            options = words[index + 1 :]
            return "beat" in options or ("worker" in options and bool({"-B", "--beat"} & set(options)))
    return False


def _waiting(client: redis.Redis, keys: RedisKeys, queues: Sequence[str]) -> Iterator[str]:
    with translate_errors(client), client.pipeline(transaction=False) as pipeline:
        for queue in queues:
            pipeline.lrange(keys.queue(queue), 0, _PEEKED - 1)
            pipeline.lrange(keys.queue(queue), -_PEEKED, -1)
        ends = pipeline.execute(raise_on_error=False)
    for queue, first, last in zip(queues, ends[::2], ends[1::2], strict=True):
        if not (isinstance(first, list) and isinstance(last, list)):
            continue  # the key of a queue may be something else
        if tasks := sorted({str(task) for task in _of_celery_beat(first + last)}):
            yield f"messages of a celery beat wait in {queue} ({', '.join(tasks[:3])}); {_ADVICE}"


def _of_celery_beat(messages: Iterable[bytes]) -> Iterator[object]:
    """Yield the task of each message that a celery beat has sent."""
    for raw in messages:
        with suppress(ValueError, AttributeError):
            headers = json.loads(raw).get("headers", {})
            if headers.get(_HEADER) and _OURS not in headers:
                yield headers.get("task")
