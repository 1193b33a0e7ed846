"""Signs of a celery beat that runs beside beatd, and would send again what beatd sends.

celery beat answers to nobody, so there are only signs: its process on this host, RedBeat's lock, and messages that wait
in queues with the header that it gives them.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from beatd.broker.publisher import is_redis
from beatd.config import Config
from beatd.redaction import redacted_text
from beatd.state_store import running_store
from beatd.store.client import connect
from beatd.urls import RedisUrl

REDBEAT_LOCK = "redbeat::lock"
"""Key of RedBeat's lock, with its default prefix."""
_HEADER, _OURS = "celery_beat_task", "beatd-entry"
_PEEKED = 100
"""Messages that are looked at, at each end of a queue."""
_QUEUES = 50
_ADVICE = "an entry that both have is sent twice: stop one of them"


def signs(found: Config, processes: Path = Path("/proc")) -> Iterator[str]:
    """Yield a sentence for each sign of another scheduler."""
    for pid, line in _processes(processes):
        yield f"celery beat runs on this host, process {pid} ({redacted_text(line, at_most=80)}); {_ADVICE}"
    store = running_store(found.settings)
    broker = found.settings.broker.url or store
    for url in dict.fromkeys(each for each in (store, broker) if each and is_redis(each)):
        with connect(url, timeout_ms=found.settings.redis.timeout_ms, name="beatd-doctor") as client:
            if client.exists(REDBEAT_LOCK):
                yield f"RedBeat leads on {RedisUrl.parse(url).shown}; {_ADVICE}"
            if url == broker:
                yield from _waiting(client, found)


def _processes(processes: Path) -> Iterator[tuple[int, str]]:
    """Yield the id and the command line of each process of celery beat, also inside a worker (``-B``)."""
    for path in processes.glob("[0-9]*/cmdline"):
        with suppress(OSError):
            words = path.read_bytes().decode(errors="replace").split("\0")[:-1]
            if is_celery_beat(words):
                yield int(path.parent.name), shlex.join(words)


def is_celery_beat(words: list[str]) -> bool:
    """Return True for the command line of a celery beat."""
    for index, word in enumerate(words[:3]):
        if Path(word).name == "celery":
            options = words[index + 1 :]
            return "beat" in options or ("worker" in options and bool({"-B", "--beat"} & set(options)))
    return False


def _waiting(client: Any, found: Config) -> Iterator[str]:
    named = {entry.options.queue or found.settings.broker.default_queue for entry in found.entries}
    for queue in sorted(named)[:_QUEUES]:
        if client.type(queue) == b"list":
            ends = client.lrange(queue, 0, _PEEKED - 1) + client.lrange(queue, -_PEEKED, -1)
            if tasks := sorted({str(task) for task in _of_celery_beat(ends)}):
                yield f"messages of a celery beat wait in {queue} ({', '.join(tasks[:3])}); {_ADVICE}"


def _of_celery_beat(messages: Iterable[bytes]) -> Iterator[object]:
    """Yield the task of each message that a celery beat has sent."""
    for raw in messages:
        with suppress(ValueError, AttributeError):
            headers = json.loads(raw).get("headers", {})
            if headers.get(_HEADER) and _OURS not in headers:
                yield headers.get("task")
