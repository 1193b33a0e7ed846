"""Consumer for Redis: unsettled messages are in a hash of the worker, under a heartbeat.

So a worker may be killed at any moment: its heartbeat runs out within :data:`LIFETIME_MS`, another worker sees that and
puts the messages back at the head of their queues. There is no visibility timeout that a long task could outlast.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from beatd.broker.bindings import Binding
from beatd.broker.redis import bind
from beatd.broker.redis_keys import SEPARATOR, RedisKeys
from beatd.clock import Clock, monotonic
from beatd.store.client import connect, place_of, translate_errors
from beatd.store.dead_letters import BOUNDS, Bounds, encode
from beatd.store.keys import Keys
from beatd.store.script import Script
from beatd.timestamps import iso_ms
from beatd.worker.consumers.base import is_due, never
from beatd.worker.consumers.envelope import count_death, mark_received, mark_redelivered
from beatd.worker.consumers.queues_watch import QueueWatcher
from beatd.worker.messages import Delivery

log = logging.getLogger(__name__)

LIFETIME_MS = 9_000
"""Time after its last heartbeat for which a worker counts as alive."""
BEAT_MS = 2_500
_SWEEP_MS = 3_000
"""Period of the check for dead workers; messages are back after 12 s at the latest."""
_PARKED_CHECK_MS = 1_000
"""Period of the check for messages that other workers have parked."""
_BATCH = 200
_REPORT_AGAIN_S = 60.0


class RedisConsumer:
    """Consumer of the worker ``name``. A unique id distinguishes it from earlier workers of the same name."""

    def __init__(
        self,
        url: str,
        queues: Sequence[str],
        *,
        name: str,
        clock: Clock,
        keys: Keys,
        dead_letters: Bounds = BOUNDS,
        bindings: Sequence[Binding] = (),
    ) -> None:
        self._clock = clock
        self._bounds = dead_letters
        self._bindings = bindings
        self._client = connect(url, name="beatd-worker", role="broker")
        self._names = RedisKeys.of(url)
        self._keys = keys
        self._shared = keys.workers()
        self._id = f"{name}:{uuid.uuid4().hex[:8]}"
        self._unacked = keys.worker(self._id, "unacked")
        self._queues = list(queues)
        self._sources: list[tuple[str, ...]] = []
        """The lists of all queues, by priority."""
        self._first = 0
        """The place of the queue whose lists come first in their priority."""
        self._watcher = QueueWatcher(self._client)
        self._came_short = False
        """True if the last takes have emptied the queues: their lists are to be watched."""
        self._is_waiting = False
        """True if the last take has asked no queue: a message that arrives after it is for the next one."""
        self._listen_to_queues()
        self.place = place_of(self._client)
        self._take, self._return, self._park, self._wake = (
            Script(self._client, f"{verb}_messages") for verb in ("take", "return", "park", "wake")
        )
        self._bury = Script(self._client, "bury_messages")
        self._held: set[int] = set()
        """Tags of unsettled messages."""
        self._last_tag = 0
        """The largest tag so far: a server that has lost its data must not reuse any of them."""
        self._lost: list[int] = []
        self._uncertain = False
        self._report_again: dict[str, float] = {}
        self._beat_due = self._sweep_due = self._wake_due = 0

    def queues(self) -> list[str]:
        return list(self._queues)

    def add_queue(self, name: str) -> None:
        if name not in self._queues:
            self._queues.append(name)
            self._listen_to_queues()

    def cancel_queue(self, name: str) -> None:
        if name in self._queues:
            self._queues.remove(name)
            self._listen_to_queues()

    def _listen_to_queues(self) -> None:
        """Order the lists of all queues by priority, as kombu does."""
        self._sources = list(zip(*map(self._names.queues, self._queues), strict=True))
        self._watcher.change([key for step in self._sources for key in step])

    def _lists(self) -> list[str]:
        """Return all lists in the order in which they are asked. Queues take turns: none starves another."""
        first = self._first % len(self._queues)
        self._first = first + 1
        return [key for step in self._sources for key in (*step[first:], *step[:first])]

    def start(self, stopping: Callable[[], bool] = never) -> None:  # noqa: ARG002 - bounded by its timeout
        bind(self._client, self._bindings, self._names)
        self.beat()
        self.tend()

    def take(self, at_most: int) -> list[Delivery]:
        if self._uncertain:
            return self._recover()
        if not self._sources or self._watcher.is_silent():
            self._is_waiting = True
            return []
        keys = [self._unacked, self._shared.workers, self._shared.tag, *self._lists()]
        self._uncertain = True  # until there is an answer: the server may have moved messages anyway
        found, refused = self._take(keys, [at_most, self._id, self._last_tag])
        self._uncertain = False
        self._report_refused("Nothing is taken from", _pairs(refused))
        deliveries = [Delivery(int(found[i]), self._name(found[i + 1]), found[i + 2]) for i in range(0, len(found), 3)]
        self._came_short = self._came_short or len(deliveries) < at_most
        self._hold(deliveries)
        return deliveries

    def _recover(self) -> list[Delivery]:
        """Take messages that a call with a lost answer has moved to this worker."""
        found = self._forgotten()
        self._uncertain, self._came_short = False, True
        self._hold(found)
        return found

    def _forgotten(self) -> list[Delivery]:
        """The unsettled messages of this worker, as the server has them, that it does not know."""
        with translate_errors(self._client):
            held: dict[Any, Any] = self._client.hgetall(self._unacked)
        return sorted(Delivery(int(tag), *self._split(raw)) for tag, raw in held.items() if int(tag) not in self._held)

    def _hold(self, deliveries: Sequence[Delivery]) -> None:
        self._held.update(one.tag for one in deliveries)
        self._last_tag = max([self._last_tag, *(one.tag for one in deliveries)])

    def files(self) -> list[int]:
        if not self._is_waiting:  # here, and not before a take: the messages are on their way to the pool now
            self._watcher.answer()
        self._is_waiting = False
        if self._came_short:
            self._came_short = False
            self._watcher.listen()
        return self._watcher.files()

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        if deliveries:
            with translate_errors(self._client):
                self._client.hdel(self._unacked, *(str(delivery.tag) for delivery in deliveries))
            self._forget(deliveries)

    reject = ack  # Redis has no dead-letter exchanges

    def give_back(self, deliveries: Sequence[Delivery]) -> None:
        self._give_back(self._unacked, [(one.tag, one.queue, one.raw) for one in deliveries])
        self._forget(deliveries)

    def park(self, deliveries: Sequence[tuple[Delivery, int]]) -> None:
        if deliveries:
            words = [
                word
                for one, due_ms in deliveries
                for word in (one.tag, due_ms, b"%b\0%b" % (self._key(one.queue).encode(), mark_received(one.original)))
            ]
            self._park([self._unacked, self._shared.parked], words)
            self._forget([one for one, _ in deliveries])
            self._wake_due = min(self._wake_due, *(due_ms for _, due_ms in deliveries))

    def bury(self, deliveries: Sequence[tuple[Delivery, str]]) -> None:
        now = iso_ms(self._clock.now_ms())
        words = [
            word
            for one, reason in deliveries
            for word in (one.tag, encode(one.original, reason=reason, queue=one.queue, at=now, worker=self._id))
        ]
        if words:
            keys = [self._unacked, self._shared.dead_letters, self._shared.dead_letters_size]
            self._bury(keys, [self._bounds.kept, self._bounds.kept_bytes, *words])
            self._forget([one for one, _ in deliveries])

    def _forget(self, deliveries: Sequence[Delivery]) -> None:
        self._held.difference_update(one.tag for one in deliveries)

    def tend(self) -> None:
        now = self._clock.now_ms()
        if is_due(now, self._beat_due, BEAT_MS):
            self._beat_due = now + BEAT_MS
            self.beat()
        if is_due(now, self._wake_due, _PARKED_CHECK_MS):
            self._wake_due = self._wake_parked(now)
        if is_due(now, self._sweep_due, _SWEEP_MS):
            self._sweep_due = now + _SWEEP_MS
            self._sweep()

    def waiting(self, at_most: int) -> list[tuple[Delivery, int]]:
        with translate_errors(self._client):
            found: Any = self._client.zrange(self._shared.parked, 0, at_most - 1, withscores=True)
        split = ((member.partition(b"\0"), due) for member, due in found)
        return [(Delivery(int(tag), *self._split(held)), int(due)) for (tag, _, held), due in split]

    def lost(self) -> list[int]:
        lost, self._lost = self._lost, []
        return lost

    def others(self) -> list[str]:
        """Return the ids of the other consumers whose messages have not been given back yet."""
        with translate_errors(self._client):
            members: Any = self._client.smembers(self._shared.workers)
        return sorted(name for member in members if (name := member.decode()) != self._id)

    def idle_for(self) -> float:
        soonest = min(self._beat_due, self._wake_due, self._sweep_due)
        return max(0.0, (soonest - self._clock.now_ms()) / 1000)

    def beat(self) -> None:
        with translate_errors(self._client), self._client.pipeline(transaction=False) as pipeline:
            pipeline.set(self._keys.worker(self._id, "alive"), self._clock.now_ms(), px=LIFETIME_MS)
            pipeline.sadd(self._shared.workers, self._id)  # idle ones, too: status shows them
            pipeline.execute()

    def stop(self) -> None:
        self._watcher.close()
        self._rescue(self._id)
        with translate_errors(self._client):
            self._client.delete(self._keys.worker(self._id, "alive"))
        self._client.close()

    def _wake_parked(self, now: int) -> int:
        """Move due messages back to their queues; returns the time of the next check (ms)."""
        looked_at, next_due, *refused = self._wake([self._shared.parked], [now, _BATCH, now + _SWEEP_MS])
        self._report_refused("Messages wait for", _pairs(refused))
        if looked_at == _BATCH:
            return now
        return min(now + _PARKED_CHECK_MS, int(float(next_due))) if next_due else now + _PARKED_CHECK_MS

    def _sweep(self) -> None:
        """Requeue the messages of workers whose heartbeat has expired."""
        others = self.others()
        with translate_errors(self._client):
            alive = self._client.mget([self._keys.worker(one, "alive") for one in others]) if others else []
            mine = int(self._client.hlen(self._unacked))
        if mine < len(self._held):
            self._notice_losses()
        elif mine > len(self._held) and not self._uncertain:  # their queues took none when they were given back
            self.give_back(self._forgotten())
        for worker, heartbeat in zip(others, alive, strict=True):
            if heartbeat is None and (count := self._rescue(worker)):
                log.warning(
                    "Worker %s is gone: gave back the %d messages that it held",
                    worker,
                    count,
                    extra={"event": "messages_rescued", "worker": worker, "count": count},
                )

    def _notice_losses(self) -> None:
        """Handle a lost heartbeat: the worker was stopped for too long, or the server has lost its data.

        What it thought it held it cannot acknowledge, park or bury any more: each of these asks its hash first.
        """
        with translate_errors(self._client):
            tags: Any = self._client.hkeys(self._unacked)
        gone = self._held - set(map(int, tags))
        self._held -= gone
        self._lost += sorted(gone)
        text = "%d messages that this worker had taken are not its own any more; others may run them"
        log.warning(text, len(gone), extra={"event": "messages_lost", "count": len(gone)})

    def _rescue(self, worker: str) -> int:
        """Requeue all messages of ``worker`` and remove it; returns their number."""
        unacked = self._keys.worker(worker, "unacked")
        with translate_errors(self._client):
            held: dict[Any, Any] = self._client.hgetall(unacked)
        messages = [(int(tag), *self._split(value)) for tag, value in held.items()]
        if worker != self._id:
            messages = [(tag, queue, count_death(raw)) for tag, queue, raw in messages]
        count = self._give_back(unacked, messages)
        with translate_errors(self._client), self._client.pipeline(transaction=True) as pipeline:
            pipeline.srem(self._shared.workers, worker)
            pipeline.hlen(unacked)
            if pipeline.execute()[1]:  # it is alive after all, and has taken messages meanwhile
                self._client.sadd(self._shared.workers, worker)
        return count

    def _give_back(self, unacked: str, messages: list[tuple[int, str, bytes]]) -> int:
        """Requeue the oldest message last: it is the next to be taken."""
        count = 0
        ordered = sorted(messages, reverse=True)
        for start in range(0, len(ordered), _BATCH):
            batch = ordered[start : start + _BATCH]
            words = [word for tag, _, raw in batch for word in (tag, mark_redelivered(raw))]
            answers = self._return([unacked, *(self._key(queue) for _, queue, _ in batch)], words)
            count += answers.count(1)
            pairs = zip(batch, answers, strict=True)
            refused = {self._key(queue).encode(): why for (_, queue, _), why in pairs if isinstance(why, bytes)}
            self._report_refused("Messages wait for", refused)
        return count

    def _report_refused(self, what: str, reasons: Mapping[bytes, bytes]) -> None:
        """Log the queues, by the keys of their lists, that cannot be read or written to, each once a minute."""
        for key, reason in reasons.items():
            queue = self._name(key).partition(SEPARATOR)[0]  # one for all priorities
            if monotonic() >= self._report_again.get(queue, 0.0):
                self._report_again[queue] = monotonic() + _REPORT_AGAIN_S
                extra = {"event": "queue_refuses", "queue": queue, "reason": reason.decode()}
                log.error("%s queue %s, which is tried again: %s", what, queue, reason.decode(), extra=extra)

    def _key(self, queue: str) -> str:
        """Return the list of a delivery, whose queue is without the broker's prefix."""
        return self._names.prefix + queue

    def _name(self, key: bytes) -> str:
        return key.decode().removeprefix(self._names.prefix)

    def _split(self, held: bytes) -> tuple[str, bytes]:
        key, _, raw = held.partition(b"\0")
        return self._name(key), raw


def _pairs(words: Sequence[bytes]) -> dict[bytes, bytes]:
    """Read a list of a key, its value, the next key, …"""
    return dict(zip(words[::2], words[1::2], strict=True))
