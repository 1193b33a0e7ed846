"""A beatd worker and a Celery worker side by side, and clients of both makes: who sends and who runs is a parameter.

Both workers have the same tasks, written once and imported from ``beatd`` here and from ``celery`` there. Each consumes
a queue of its own, and a client's messages go to the queue of the worker that it is paired with.
"""

from __future__ import annotations

import gc
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import celery
import celery.exceptions
import pytest
import redis

import beatd
from tests.celery_process import celeries
from tests.forked import Forked, environment, start_python

TASKS = Path(__file__).with_name("celery_tasks.py")
"""The tasks, with ``celery`` in their imports."""

IMPORTS = {
    "from celery import Celery": "from beatd import App as Celery",
    "from celery.utils.log": "from beatd.log",
    "from celery": "from beatd",
}
"""What is changed in them for beatd, in this order."""

WARNINGS = [  # all of them about what Celery's client does with redis-py
    pytest.mark.filterwarnings("ignore:Call to deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::PendingDeprecationWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

PREFIXED = {
    "broker_transport_options": {"global_keyprefix": "env1:"},
    "result_backend_transport_options": {"global_keyprefix": "env1"},
}
"""Settings of apps that share a Redis with others. Celery puts an underscore behind a prefix of results that ends with
a letter."""

WAIT = 30.0
"""Seconds that a test waits for a result at most."""


class Pair:
    """A client of one make and a worker's queue."""

    def __init__(self, client: Any, package: Any, queue: str, backend: str, store: redis.Redis) -> None:
        self.app = client
        self.backend = backend
        self.canvas = package
        self.errors = package.exceptions
        self.queue = queue
        self.store = store
        self.log: Path | None = None

    def s(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """A signature of the task ``name``."""
        return self.app.signature(f"proj.{name}", args=args, kwargs=kwargs)

    def si(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """An immutable one."""
        return self.s(name, *args, **kwargs).set(immutable=True)

    def call(self, name: str, *args: Any, **options: Any) -> Any:
        """Send the task; returns its handle."""
        return self.app.send_task(f"proj.{name}", args, **options)

    def run(self, name: str, *args: Any, **options: Any) -> Any:
        """Send the task and wait for its value."""
        return self.call(name, *args, **options).get(timeout=WAIT)

    def await_line(self, pattern: str) -> None:
        """Wait until the worker's log has a line in which the regular expression is found."""
        assert self.log is not None
        deadline = time.monotonic() + WAIT
        while not re.search(pattern, self.log.read_text()):
            assert time.monotonic() < deadline, f"no line like {pattern!r}:\n{self.log.read_text()[-3000:]}"
            time.sleep(0.05)

    def noted(self, key: str, times: int = 1) -> list[Any]:
        """What tasks have noted under a key, once there is so much of it."""
        deadline = time.monotonic() + WAIT
        while self.store.llen(key) < times:
            assert time.monotonic() < deadline, f"only {self.store.lrange(key, 0, -1)} was noted under {key}"
            time.sleep(0.02)
        return [json.loads(raw) for raw in self.store.lrange(key, 0, -1)]


@contextmanager
def workers(
    directory: Path,
    broker: str,
    backend: str,
    python: str = sys.executable,
    settings: Mapping[str, Any] | None = None,
    *,
    tasks: Path = TASKS,
    pools: tuple[str, str] = ("-P threads -c 4", "-c 2"),
) -> Iterator[None]:
    """One worker of each make, ready, with these settings; ``python`` is the one that has Celery.

    ``tasks`` is their module, ``pools`` has the options of Celery's worker and of beatd's.
    """
    text = tasks.read_text().replace("BROKER", repr(broker)).replace("BACKEND", repr(backend))
    text = text.replace("MORE", repr(dict(settings or {})))
    ours = text
    for theirs, name in IMPORTS.items():
        assert theirs in ours
        ours = ours.replace(theirs, name)
    for name, module in {"ours": ours, "theirs": text}.items():
        (directory / name).mkdir()
        (directory / name / "proj.py").write_text(module.replace("QUEUE", repr(name)))
    with celeries(directory / "theirs", python) as start, (directory / "beatd.log").open("ab") as log:
        theirs = start.worker(*pools[0].split(), "-Q", "theirs", "-n", "theirs@%h", "-l", "info")
        words = ["-m", "beatd", "worker", "-A", "proj", *pools[1].split(), "-Q", "ours", "-n", "ours@%h"]
        process = start_python("beatd", words, cwd=directory / "ours", env=environment(), stdout=log)
        try:
            await_ready(directory / "beatd.log", process)
            await_ready(theirs.log, theirs.process)
            yield
        finally:
            process.terminate()
            process.wait(20)


def assert_all_prefixed(url: str) -> None:
    """Fail if a key of Celery's, of kombu's or of beatd's is without the prefix of :data:`PREFIXED`."""
    with redis.Redis.from_url(url, decode_responses=True) as store:
        keys = list(store.scan_iter(count=1000))
    assert [key for key in keys if key.startswith("env1_celery-task-meta-")]
    plain = ("celery", "chord-unlock", "_kombu", "unacked", "ours", "theirs", "{beatd}")
    assert [key for key in keys if key.startswith(plain)] == []


def await_ready(log: Path, process: Forked | subprocess.Popen[bytes]) -> None:
    """Wait until a worker's log says that it is ready."""
    deadline = time.monotonic() + 60
    while " ready." not in log.read_text():
        assert time.monotonic() < deadline, f"the worker did not get ready:\n{log.read_text()[-5000:]}"
        assert process.poll() is None, f"the worker ended:\n{log.read_text()[-5000:]}"
        time.sleep(0.05)


@contextmanager
def celery_client(broker: str, backend: str, queue: str, settings: Mapping[str, Any]) -> Iterator[Any]:
    client = celery.Celery("proj", broker=broker, backend=backend, set_as_current=False)
    client.conf.update(settings, task_default_queue=queue, broker_connection_retry_on_startup=True)
    try:
        yield client
    finally:
        gc.collect()  # Celery's results unsubscribe when they are collected: the server must still be there
        client.backend.result_consumer.stop()
        client.backend.result_consumer.cancel_for = lambda *_: None  # those that a failed test keeps, after that
        client.backend.client.close()
        client.close()


@contextmanager
def beatd_client(broker: str, backend: str, queue: str, settings: Mapping[str, Any]) -> Iterator[Any]:
    client = beatd.App("proj", broker=broker, backend=backend, task_default_queue=queue, set_as_current=False)
    client.conf.update(settings)
    try:
        yield client
    finally:
        client.close()


PAIRS = {
    "celery's client, celery's worker": (celery_client, celery, "theirs"),
    "celery's client, beatd's worker": (celery_client, celery, "ours"),
    "beatd's client, celery's worker": (beatd_client, beatd, "theirs"),
    "beatd's client, beatd's worker": (beatd_client, beatd, "ours"),
}

MIXED = [name for name in PAIRS if "beatd" in name]
"""Pairs in which beatd takes part."""

CLIENTS = {
    "celery": ("celery's client, beatd's worker", "celery's client, celery's worker"),
    "beatd": ("beatd's client, beatd's worker", "beatd's client, celery's worker"),
}
"""The pairs of each client."""


@contextmanager
def paired(name: str, broker: str, backend: str, settings: Mapping[str, Any] | None = None) -> Iterator[Pair]:
    """The pair of that name among :data:`PAIRS`, whose client has these settings."""
    connect, package, queue = PAIRS[name]
    with (
        connect(broker, backend, queue, settings or {}) as client,
        redis.Redis.from_url(backend, decode_responses=True) as store,
    ):
        yield Pair(client, package, queue, backend, store)


def is_idle(pair: Pair) -> bool:
    """True if the worker of a pair has nothing to do, and nothing waits for it."""
    if any(pair.store.llen(f"{pair.queue}{step}") for step in ("", "\x06\x163", "\x06\x166", "\x06\x169")):
        return False  # one of its lists, by priority
    asked = pair.app.control.inspect(timeout=10, limit=2)
    for answer in (asked.active(), asked.reserved(), asked.scheduled()):
        of_worker = [tasks for node, tasks in (answer or {}).items() if node.startswith(pair.queue)]
        if not of_worker or any(of_worker):
            return False
    return True


def await_idle(pairs: Sequence[Pair]) -> None:
    """Wait until the workers have done all: at several looks in a row, as a message is in no queue for moments."""
    deadline, looks = time.monotonic() + 3 * WAIT, 0
    while looks < 4:
        looks = looks + 1 if all(map(is_idle, pairs)) else 0
        assert time.monotonic() < deadline, "the workers have not done all"
