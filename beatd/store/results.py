"""Task results in Redis, as Celery's Redis backend keeps them: a Celery client reads beatd's, and the reverse.

Each result is a string under ``celery-task-meta-<task id>``, kept for a day by default, and published on a channel of
the same name when it changes. Workers store results before they acknowledge the message
(:mod:`beatd.worker.settlement`).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

from beatd.clock import Backoff, monotonic, sleep
from beatd.exceptions import (
    MessageError,
    StoreRefused,
    StoreUnavailable,
    TimeoutError,  # noqa: A004 - Celery's name, kept
)
from beatd.message import json_codec
from beatd.states import READY_STATES
from beatd.store.client import connect, is_cluster, is_of_foreign_type, translate_errors
from beatd.store.groups import Groups, GroupStore, NoGroups
from beatd.store.result_channels import Channel, ResultChannels
from beatd.store.script import Script
from beatd.url_keyprefix import result_prefix

log = logging.getLogger(__name__)

DAY_S = 86_400
_RECHECK_S = 1.0
"""How often a waiting client also reads the key: pub/sub forgets what it could not deliver."""
_ATTEMPTS = 30
"""Failed attempts in a row before a waiting client gives up."""

Meta = dict[str, Any]
"""A result document, decoded; see :mod:`beatd.store.result_document`."""


class Stored(NamedTuple):
    """One result on its way to the store."""

    task_id: str
    document: bytes
    reply_to: str = ""
    """The client's queue, for a result backend that sends results as messages."""


class Results(Protocol):
    """Result backend: results are written by workers, read by clients."""

    groups: GroupStore
    """What is kept of groups and chords."""
    keeps_runs: bool
    """True: results of the schedule's runs are stored like all others. False: only where somebody asks for them, as
    they would fill a server's memory."""

    def expect(self) -> str | None:
        """Get ready for the result of a task that is about to be sent; returns its queue, None if it needs none."""

    def store(self, results: Sequence[Stored]) -> None:
        """Write and publish all of them in one call; a SUCCESS already stored stays. Later ones win over earlier."""

    def get(self, task_id: str) -> Meta | None:
        """The document of one task, None while there is none."""

    def get_many(self, task_ids: Sequence[str]) -> dict[str, Meta]:
        """The documents of those that have one."""

    def forget(self, task_id: str) -> None:
        """Delete the result."""

    def wait(
        self,
        task_id: str,
        *,
        timeout: float | None = None,
        interval: float = 0.5,
        on_message: Callable[[Meta], None] | None = None,
        on_interval: Callable[[], None] | None = None,
    ) -> Meta:
        """The document once its state is a ready one.

        ``on_message`` sees every change of state on the way, ``on_interval`` is called about every ``interval``
        seconds. Raises :class:`~beatd.exceptions.TimeoutError` after ``timeout`` seconds, and
        :class:`StoreUnavailable` when the server stays away.
        """

    def close(self) -> None:
        """Close the connections; the next call opens new ones."""


class NoResults:
    """No result backend: workers throw results away, and asking for one raises an error that says so."""

    groups: GroupStore = NoGroups()
    keeps_runs = False

    def expect(self) -> str | None:
        return None

    def store(self, results: Sequence[Stored]) -> None:
        """Nothing is kept."""

    def get(self, task_id: str) -> Meta | None:
        raise StoreRefused(f"the result of {task_id} is not stored: {_NO_BACKEND}")

    def get_many(self, task_ids: Sequence[str]) -> dict[str, Meta]:  # noqa: ARG002
        raise StoreRefused(f"results are not stored: {_NO_BACKEND}")

    def forget(self, task_id: str) -> None:
        """There is nothing to delete."""

    def wait(self, task_id: str, **_: Any) -> Meta:
        raise StoreRefused(f"the result of {task_id} is not stored: {_NO_BACKEND}")

    def close(self) -> None:
        """There is nothing to close."""


_NO_BACKEND = "give the app a result backend, for example App(backend='redis://localhost/1')"


class RedisResults:
    """The results on one server, or in a cluster, where each has a slot of its own.

    Safe to share between threads, and usable after a fork.
    """

    keeps_runs = False

    def __init__(self, url: str, *, keep_s: int = DAY_S, ordered: bool | None = None) -> None:
        self._client = connect(url, name="beatd-results", role="result backend")
        self._prefix = result_prefix(url)
        self._store = Script(self._client, "store_results")
        self._keep_s = keep_s
        self.groups: GroupStore = Groups(self._client, keep_s, ordered=ordered, prefix=self._prefix)
        self._channels = ResultChannels(self._client)

    def expect(self) -> str | None:
        return None

    def store(self, results: Sequence[Stored]) -> None:
        if is_cluster(self._client):
            self._store_each(results)
        elif results:
            keys = [self._key(result.task_id) for result in results]
            try:
                self._store(keys, [self._keep_s, *(result.document for result in results)])
            except StoreRefused as error:
                if not is_of_foreign_type(error):
                    raise
                self._store_each(results)

    def _store_each(self, results: Sequence[Stored]) -> None:
        """Store each by a call of its own; one whose key is of another type is logged and left out."""
        calls = [([self._key(result.task_id)], [self._keep_s, result.document]) for result in results]
        for result, answer in zip(results, self._store.each(calls), strict=True):
            if is_of_foreign_type(answer):
                extra = {"event": "result_refused", "task_id": result.task_id}
                log.error("Result of task %s is not stored: %s", result.task_id, answer, extra=extra)
            elif isinstance(answer, Exception):
                raise answer

    def get(self, task_id: str) -> Meta | None:
        with translate_errors(self._client):
            raw = self._client.get(self._key(task_id))
        return None if raw is None else decode(raw)

    def get_many(self, task_ids: Sequence[str]) -> dict[str, Meta]:
        with translate_errors(self._client):
            found: Any = self._client.mget([self._key(task_id) for task_id in task_ids]) if task_ids else []
        return {task_id: decode(raw) for task_id, raw in zip(task_ids, found, strict=True) if raw is not None}

    def forget(self, task_id: str) -> None:
        with translate_errors(self._client):
            self._client.delete(self._key(task_id))

    def wait(
        self,
        task_id: str,
        *,
        timeout: float | None = None,
        interval: float = 0.5,
        on_message: Callable[[Meta], None] | None = None,
        on_interval: Callable[[], None] | None = None,
    ) -> Meta:
        watch = Watch(timeout, interval, on_message, on_interval)
        backoff = Backoff(0.1, 1.0)
        while True:
            try:
                with self._channels.listen(self._key(task_id)) as channel:
                    backoff.succeeded()
                    return self._follow(task_id, channel, watch)
            except StoreUnavailable as error:
                pause = backoff.failed()
                if backoff.attempts >= _ATTEMPTS:
                    raise
                log.warning("Waiting for a result, store away: %s", error, extra={"event": "result_wait_retrying"})
                sleep(pause)
                watch.check_time()

    def close(self) -> None:
        self._channels.close()
        self._client.close()

    def _key(self, task_id: str) -> str:
        return result_key(task_id, self._prefix)

    def _follow(self, task_id: str, channel: Channel, watch: Watch) -> Meta:
        """Look at what is there, then at what is published; subscribed before, so that nothing falls between."""
        checked = -_RECHECK_S
        while True:
            now = monotonic()
            if now - checked >= _RECHECK_S:
                checked = now
                if (meta := self.get(task_id)) and watch.ends_with(meta):
                    return meta
            raw = channel.message(watch.check_time())
            if raw is None:
                watch.on_interval()
            elif watch.ends_with(found := decode(raw)):
                return found


class Watch:
    """One caller's wait: until when, and whom to tell."""

    def __init__(
        self,
        timeout: float | None,
        interval: float,
        on_message: Callable[[Meta], None] | None,
        on_interval: Callable[[], None] | None,
    ) -> None:
        self._deadline = math.inf if timeout is None else monotonic() + timeout
        self._interval = interval
        self._on_message = on_message
        self.on_interval = on_interval or (lambda: None)
        self._last: Meta | None = None

    def check_time(self) -> float:
        """Seconds to listen before looking around again; raises TimeoutError when there are none left."""
        left = self._deadline - monotonic()
        if left <= 0:
            raise TimeoutError("The operation timed out.")
        return min(self._interval, left)

    def ends_with(self, meta: Meta) -> bool:
        """Tell the caller about a change; true if it is the last one."""
        if meta != self._last:
            self._last = meta
            if self._on_message is not None:
                self._on_message(meta)
        return meta["status"] in READY_STATES


def result_key(task_id: str, prefix: str = "") -> str:
    """Return the key of a result; ``prefix``: see :func:`beatd.url_keyprefix.result_prefix`."""
    return f"{prefix}celery-task-meta-{task_id}"


def decode(raw: bytes | str) -> Meta:
    """The document; raises :class:`~beatd.exceptions.MessageError` for what is none."""
    decoded: Any = json_codec.loads(raw if isinstance(raw, bytes) else raw.encode())
    if not isinstance(decoded, dict) or not isinstance(decoded.get("status"), str):
        raise MessageError("what is stored as the result of this task is not a result document")
    return {"result": None, **decoded}
