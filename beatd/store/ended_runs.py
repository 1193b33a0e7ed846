"""Ended runs: a message that comes again after its run has ended is not run again.

The schedule sends the runs of an entry in the order of their due times, and a message says after which instant its run
is the first (header ``beatd-after``). So what has ended is a stretch of time: from that instant to the due time of the
run. Stretches that touch are one: an entry whose runs end one after the other has a single stretch, however many runs
it had, and one more for each run that others have overtaken. At most 100 are kept, the newest.

Runs that were asked for by hand, and runs whose message has no such header, are remembered by their ids, for a day.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

import redis

from beatd.exceptions import StoreUnavailable
from beatd.model import run_id
from beatd.store.client import store_error, translate_errors
from beatd.store.keys import Keys
from beatd.timestamps import to_ms


class SentRun(NamedTuple):
    """A run as its message describes it."""

    id: str
    entry: str
    due_at: str | None
    """ISO 8601."""
    after_ms: int | None = None
    """The instant (ms) after which it is the first run of its entry; None for a run that was asked for by hand."""
    redelivered: bool = False

    @property
    def due_ms(self) -> int | None:
        """Its due time (ms); None if it has no id of that due time."""
        due_ms = due_ms_of(self.due_at)
        return due_ms if due_ms is not None and run_id(self.entry, due_ms) == self.id else None


@functools.lru_cache(maxsize=1024)
def due_ms_of(due_at: str | None) -> int | None:
    """The due time (ms) in a message; None for a strange one. The runs of a herd share it."""
    try:
        return to_ms(datetime.fromisoformat(due_at or ""))
    except (ValueError, TypeError):
        return None


def covers(stretches: bytes | None, due_ms: int) -> bool:
    """True if the run of an entry that was due at that instant (ms) has ended."""
    if not stretches:
        return False
    last = stretches[stretches.rfind(b" ") + 1 :]
    if last.isdigit() and int(last) < due_ms:  # the usual case
        return False
    words = stretches.split()
    if not b"".join(words).isdigit():
        return False
    numbers = list(map(int, words))
    return any(after_ms < due_ms <= last_ms for after_ms, last_ms in zip(numbers[::2], numbers[1::2], strict=False))


def others_answer(client: redis.Redis, keys: Keys) -> bool:
    """True if some nodes of a cluster answer, so that work goes on without those that do not."""
    if keys.parts == 1:
        return False
    with client.pipeline(transaction=False) as pipeline:
        for part in keys.all_parts():
            pipeline.exists(part.lease)
        return any(isinstance(answer, int) for answer in pipeline.execute(raise_on_error=False))


class EndedRuns:
    """Raises :class:`~beatd.exceptions.StoreUnavailable` or :class:`~beatd.exceptions.StoreRefused`."""

    def __init__(self, client: redis.Redis, keys: Keys) -> None:
        self._client = client
        self._keys = keys

    def among(self, runs: Sequence[SentRun]) -> set[str]:
        """Return the ids of those that have ended; one round trip.

        A message that was delivered before may have been run by a worker that remembers runs by their ids only. In a
        cluster no run has ended whose node does not answer: it may be run again, and the others do not wait for it.
        """
        linked = [run for run in runs if run.after_ms is not None]
        by_id = [run for run in runs if run.after_ms is None or run.redelivered]
        if not by_id:
            return _covered(linked, self._stretches([run.entry for run in linked]))
        parts = [(part, set(names)) for part, names in self._keys.by_part([run.entry for run in (*by_id, *linked)])]
        ended: set[str] = set()
        with translate_errors(self._client), self._client.pipeline(transaction=False) as pipeline:
            asked = [
                (
                    [run for run in by_id if run.entry in names],
                    [run for run in linked if run.entry in names],
                )
                for _, names in parts
            ]
            for (part, _), (own, own_linked) in zip(parts, asked, strict=True):
                if own:
                    pipeline.mget([f"{part.finished}{run.id}" for run in own])
                if own_linked:
                    pipeline.hmget(part.ended, [run.entry for run in own_linked])
            answers = iter(self._answered(pipeline.execute(raise_on_error=False)))
        for own, own_linked in asked:
            if own:
                values = next(answers) or [None] * len(own)
                ended |= {run.id for run, value in zip(own, values, strict=True) if value is not None}
            if own_linked:
                ended |= _covered(own_linked, next(answers) or [None] * len(own_linked))
        return ended

    def _answered(self, answers: Sequence[Any]) -> list[Any]:
        """The answers, with None for those of nodes that are away, unless all are."""
        errors = [one for one in answers if isinstance(one, redis.RedisError)]
        away = [one for one in errors if isinstance(store_error(one, ""), StoreUnavailable)]
        if errors and (len(away) < len(errors) or not others_answer(self._client, self._keys)):
            raise errors[0]
        return [None if isinstance(one, Exception) else one for one in answers]

    def stretches(self, names: Sequence[str]) -> dict[str, bytes | None]:
        """The stretches of entries, as :func:`covers` takes them."""
        return dict(zip(names, self._stretches(names), strict=True))

    def _stretches(self, names: Sequence[str]) -> list[bytes | None]:
        if not names:
            return []
        found: dict[str, bytes | None] = {}
        parts = list(self._keys.by_part(names))
        with translate_errors(self._client), self._client.pipeline(transaction=False) as pipeline:
            for part, own in parts:
                pipeline.hmget(part.ended, own)
            answers = self._answered(pipeline.execute(raise_on_error=False))
        for (_, own), values in zip(parts, answers, strict=True):
            found |= zip(own, values or [None] * len(own), strict=True)
        return list(map(found.get, names))


def _covered(runs: Sequence[SentRun], stretches: Sequence[bytes | None]) -> set[str]:
    """The ids of runs that have ended, given the stretches of their entries."""
    ended = set()
    for run, text in zip(runs, stretches, strict=True):
        due_ms = due_ms_of(run.due_at)
        if text and due_ms is not None and covers(text, due_ms) and run.due_ms is not None:
            ended.add(run.id)
    return ended
