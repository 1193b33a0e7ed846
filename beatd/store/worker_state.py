"""State that workers share: ids of revoked tasks, delayed messages of another broker, and finished runs.

Delayed messages wait here for their ETA: they cost no worker memory and outlive every worker. They are lent to whoever
publishes them to their queue, and struck off when the broker has confirmed; at worst one is published twice, under the
same task id. Finished runs are remembered (:mod:`beatd.store.ended_runs`), so that a message sent twice does not run
twice.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import redis

from beatd.clock import monotonic
from beatd.store.client import Role, connect, translate_errors
from beatd.store.ended_runs import SentRun
from beatd.store.keys import Keys
from beatd.store.outcomes import Ended, Outcomes, Started
from beatd.store.script import Script
from beatd.store.server_check import keys_in

log = logging.getLogger("beatd.store")

LIMIT = 50_000
"""The oldest are forgotten first."""
KEPT_MS = 24 * 3600 * 1000
"""How long an id is remembered; as long as a result. A task with an ETA beyond that has to be revoked again."""


class RevokedStore:
    """The memory that all workers share in the server at ``url``; without one each has only its own."""

    def __init__(self, url: str | None, keys: Keys, role: Role = "state store") -> None:
        self._client = connect(url, name="beatd-worker", timeout_ms=2_000, role=role) if url else None
        self._key = keys.workers().revoked

    @property
    def is_configured(self) -> bool:
        """True if there is a store."""
        return self._client is not None

    def remember(self, ids: Iterable[str], now_ms: int) -> None:
        """Add these; raises :class:`~beatd.exceptions.StoreError`."""
        since = dict.fromkeys(ids, now_ms)
        if self._client is None or not since:
            return
        with translate_errors(self._client), self._client.pipeline(transaction=False) as pipeline:
            pipeline.zadd(self._key, since)
            pipeline.zremrangebyscore(self._key, "-inf", now_ms - KEPT_MS)
            pipeline.zremrangebyrank(self._key, 0, -LIMIT - 1)
            pipeline.pexpire(self._key, KEPT_MS)
            pipeline.execute()

    def since(self, moment_ms: int) -> list[tuple[str, int]]:
        """Return the ids added since then, each with its instant (ms), the oldest first."""
        if self._client is None:
            return []
        with translate_errors(self._client):
            found: Any = self._client.zrangebyscore(self._key, moment_ms, "+inf", withscores=True)
        return [(member.decode(errors="replace"), int(score)) for member, score in found]

    def close(self) -> None:
        """Disconnect."""
        if self._client is not None:
            self._client.close()


_LENT_MS = 60_000
_OWED_RETRY_S = 1.0
"""Seconds between attempts to note the ends that wait for their node. There may be thousands."""
OWED_MAX = 10_000
"""Ends that wait for their node of a cluster; beyond that the oldest are forgotten, and their runs are never said to
have ended."""


class DelayedMessage(NamedTuple):
    """A message and the queue that it belongs to."""

    queue: str
    raw: bytes

    @property
    def member(self) -> bytes:
        return self.queue.encode() + b"\0" + self.raw


class DelayedMessages:
    """The messages that wait in one store. Raises the errors of :mod:`beatd.store.client`."""

    def __init__(self, client: redis.Redis, keys: Keys) -> None:
        self._client = client
        self._waiting, self._lent = keys.workers().waiting, keys.workers().lent
        self._lend = Script(client, "lend_messages")

    def add(self, messages: Sequence[tuple[DelayedMessage, int]]) -> None:
        """Keep messages until their time (ms). The same one again is still one."""
        with translate_errors(self._client):
            self._client.zadd(self._waiting, {message.member: due_ms for message, due_ms in messages})

    def borrow(self, now_ms: int, at_most: int) -> tuple[list[DelayedMessage], int | None]:
        """Messages whose time has come, and when the next one's comes (ms), if any."""
        next_due, *members = self._lend([self._waiting, self._lent], [now_ms, now_ms + _LENT_MS, at_most])
        return list(map(_read, members)), int(float(next_due)) if next_due else None

    def soonest(self, at_most: int) -> list[tuple[DelayedMessage, int]]:
        """Return the messages that are due first, each with its due time (ms)."""
        with translate_errors(self._client):
            found: Any = self._client.zrange(self._waiting, 0, at_most - 1, withscores=True)
        return [(_read(member), int(due)) for member, due in found]

    def remove(self, messages: Sequence[DelayedMessage]) -> None:
        """Remove messages that are in their queues now."""
        with translate_errors(self._client):
            self._client.zrem(self._lent, *(message.member for message in messages))

    def count(self) -> int:
        """Return the number of messages that wait or are lent."""
        with translate_errors(self._client):
            return int(self._client.zcard(self._waiting)) + int(self._client.zcard(self._lent))


def _read(member: bytes) -> DelayedMessage:
    queue, _, raw = member.partition(b"\0")
    return DelayedMessage(queue.decode(), raw)


class FinishedRuns:
    """The memory that all workers share in the server at ``url``; without one nothing is remembered."""

    def __init__(self, url: str | None, keys: Keys, role: Role = "state store") -> None:
        self._client = connect(url, name="beatd-worker", role=role) if url else None
        self._prefix = keys.prefix
        self._holds_schedule = False
        self._owed: list[Ended] = []
        """Ends that are to be noted when their node of a cluster is back."""
        self._owed_again = 0.0
        """When it is tried to note them again (monotonic seconds)."""

    def remember(self, ended: Sequence[Ended]) -> None:
        """Remember runs that have ended, in one call of the store.

        Ends of runs whose node of a cluster is away are noted later, unless the worker ends before: others go on.
        """
        if self._outcomes is None or not (left := self._outcomes.note(ended)):
            return
        if not self._owed:
            text = "A node of the cluster is away: the ends of its runs are noted when it is back"
            log.warning(text, extra={"event": "ends_wait"})
            self._owed_again = monotonic() + _OWED_RETRY_S
        self._owed += left
        del self._owed[:-OWED_MAX]

    def remember_owed(self) -> None:
        """Remember the runs whose node was away, if it is time to try again; to be called in each turn."""
        if self._outcomes is None or not self._owed or monotonic() < self._owed_again:
            return
        self._owed_again = monotonic() + _OWED_RETRY_S
        self._owed = self._outcomes.note(self._owed)
        if not self._owed:
            log.info("The ends of all runs are noted again", extra={"event": "ends_wait_over"})

    def began(self, runs: Mapping[str, Started]) -> None:
        """Note runs that are running; to be repeated while they run."""
        if self._outcomes is not None:
            self._outcomes.began(runs)

    def among(self, runs: Sequence[SentRun]) -> set[str]:
        """Return the ids of the runs that have ended."""
        return self._outcomes.ended_runs.among(runs) if runs and self._outcomes is not None else set()

    def holds_schedule(self) -> bool:
        """True if a daemon keeps its state in this store, and so finds here how runs ended; asked until it is true."""
        if not self._holds_schedule and self._client is not None:
            with translate_errors(self._client), self._client.pipeline(transaction=False) as pipeline:
                for part in keys_in(self._client, self._prefix).all_parts():
                    pipeline.exists(part.fingerprints)
                answers = pipeline.execute(raise_on_error=False)
                self._holds_schedule = 1 in answers
                if errors := [one for one in answers if isinstance(one, Exception)] if not self._holds_schedule else []:
                    raise errors[0]
        return self._holds_schedule

    @functools.cached_property
    def _outcomes(self) -> Outcomes | None:
        """Ends of runs in the store; made when it is first needed: the names of keys in a cluster are asked for."""
        return Outcomes(self._client, keys_in(self._client, self._prefix)) if self._client else None
