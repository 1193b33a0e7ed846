"""Results as messages (``rpc://``): workers send them to the client's own queue, as Celery's RPC backend does.

The client's message names the queue (``reply_to``); the result's ``correlation_id`` is the task id. Only the client
that has sent a task can read its result. Every broker that kombu knows will do; nothing is stored, and there are no
chords.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import kombu as _kombu
from amqp.exceptions import AMQPError
from kombu.exceptions import KombuError
from redis.exceptions import RedisError, ResponseError

from beatd.clock import Backoff, monotonic, sleep
from beatd.exceptions import MessageError, StoreUnavailable
from beatd.message.protocol import JSON
from beatd.states import FAILURE, READY_STATES
from beatd.store.groups import GroupStore, NoGroups
from beatd.store.result_document import exception_payload
from beatd.store.results import Meta, Stored, Watch, decode

log = logging.getLogger(__name__)

kombu: Any = _kombu  # only half of it is typed

MOST_KEPT = 10_000
"""Results that a client keeps until somebody asks for them."""
_DECLARE_S = 60.0
"""Period at which a client that only sends declares its queue again: the broker deletes unused ones."""
_LOOK_S = 0.02
"""Time to receive what has arrived already."""
_ATTEMPTS = 30
"""Failed attempts in a row before a waiting client gives up."""


class RpcResults:
    """Results of the tasks that this process sends, and answers to other clients. Thread-safe, usable after a fork."""

    keeps_runs = True

    def __init__(self, connect: Callable[[], Any], address: str, *, keep_s: int, place: str) -> None:
        """``connect`` makes a ``kombu.Connection``; ``address`` names the queue of this client's results."""
        self.groups: GroupStore = NoGroups("results by rpc:// are messages: chords and saved groups need a store")
        self._connect = connect
        self._own_address = address
        self._owner, self._declared = 0, 0.0
        self._keep_s = keep_s
        self._place = place
        self._forget_all()

    def expect(self) -> str | None:
        self._check_process()
        with self._sending, self._translate_errors(self._stop_sending):
            producer = self._open_producer()
            if monotonic() - self._declared >= _DECLARE_S:
                self._queue()(producer.channel).declare()
                self._declared = monotonic()
        return self._address

    def store(self, results: Sequence[Stored]) -> None:
        """Send the results that a client waits for. Those of other clients have no address."""
        wanted = [result for result in results if result.reply_to]
        if not wanted:
            return
        self._check_process()
        with self._sending, self._translate_errors(self._stop_sending):
            producer = self._open_producer()
            for result in wanted:
                try:
                    self._send(producer, result)
                except ResponseError as error:
                    if "WRONGTYPE" not in str(error):
                        raise
                    extra = {"event": "result_refused", "task_id": result.task_id}
                    text = "Result of task %s is not sent: %s is no queue: %s"
                    log.warning(text, result.task_id, result.reply_to, error, extra=extra)

    @staticmethod
    def _send(producer: Any, result: Stored) -> None:
        producer.publish(
            result.document,
            exchange="",
            routing_key=result.reply_to,
            correlation_id=result.task_id,
            content_type=JSON,
            content_encoding="utf-8",
            delivery_mode=1,
            retry=False,
        )

    def get(self, task_id: str) -> Meta | None:
        self._receive_all()
        return self._known.get(task_id)

    def get_many(self, task_ids: Sequence[str]) -> dict[str, Meta]:
        self._receive_all()
        return {task_id: meta for task_id in task_ids if (meta := self._known.get(task_id)) is not None}

    def forget(self, task_id: str) -> None:
        self._known.pop(task_id, None)

    def wait(
        self,
        task_id: str,
        *,
        timeout: float | None = None,
        interval: float = 0.5,
        on_message: Callable[[Meta], None] | None = None,
        on_interval: Callable[[], None] | None = None,
    ) -> Meta:
        self._check_process()
        watch, backoff = Watch(timeout, interval, on_message, on_interval), Backoff(0.1, 1.0)
        while True:
            meta = self._known.get(task_id)
            if meta is not None and watch.ends_with(meta):
                return meta
            pause = watch.check_time()
            try:
                if not self._receive(pause):
                    watch.on_interval()
                backoff.succeeded()
            except StoreUnavailable as error:
                pause = backoff.failed()
                if backoff.attempts >= _ATTEMPTS:
                    raise
                log.warning("Waiting for a result, broker away: %s", error, extra={"event": "result_wait_retrying"})
                sleep(pause)

    def close(self) -> None:
        if self._owner == os.getpid():
            with self._sending:
                self._stop_sending()
            with self._receiving:
                self._stop_receiving()

    def _forget_all(self) -> None:
        """Begin anew: at first, and in a forked process, to which neither connections nor results belong."""
        self._address = f"{self._own_address}.{os.getpid()}" if self._owner else self._own_address
        self._owner = os.getpid()
        self._sending, self._receiving = threading.Lock(), threading.Lock()
        self._known: OrderedDict[str, Meta] = OrderedDict()
        self._producer: Any = None
        self._consumer: Any = None
        self._declared = -_DECLARE_S

    def _check_process(self) -> None:
        if self._owner != os.getpid():
            self._forget_all()

    def _queue(self) -> Any:
        return kombu.Queue(
            self._address,
            kombu.Exchange(""),
            self._address,
            durable=True,
            auto_delete=True,
            expires=self._keep_s or None,
        )

    # -- sending ------------------------------------------------------------------------------------------------------

    def _open_producer(self) -> Any:
        if self._producer is None:
            self._producer = kombu.Producer(self._connect(), auto_declare=False)
        return self._producer

    def _stop_sending(self) -> None:
        producer, self._producer, self._declared = self._producer, None, -_DECLARE_S
        if producer is not None:
            with suppress(Exception):  # it is broken, or was closed by the broker
                producer.connection.release()

    # -- receiving ----------------------------------------------------------------------------------------------------

    def _receive_all(self) -> None:
        while self._receive(_LOOK_S):
            pass

    def _receive(self, seconds: float) -> bool:
        """Take the next messages, or wait for another thread that does; returns False if there were none."""
        self._check_process()
        if not self._receiving.acquire(timeout=seconds):
            return False
        try:
            with self._translate_errors(self._stop_receiving):
                connection = self._open_consumer()
                try:
                    connection.drain_events(timeout=seconds)
                except TimeoutError:
                    return False
            return True
        finally:
            self._receiving.release()

    def _open_consumer(self) -> Any:
        if self._consumer is None:
            channel = self._connect().default_channel
            consumer = kombu.Consumer(channel, [self._queue()], no_ack=True, on_message=self._learn)
            consumer.consume()
            self._consumer = consumer
        return self._consumer.channel.connection.client

    def _stop_receiving(self) -> None:
        consumer, self._consumer, self._declared = self._consumer, None, -_DECLARE_S
        if consumer is not None:
            with suppress(Exception):  # it is broken, or was closed by the broker
                consumer.channel.connection.client.release()

    def _learn(self, message: Any) -> None:
        """Keep a result that has come in. A final one stays, whatever comes later."""
        task_id = str(message.properties.get("correlation_id") or "")
        try:
            meta = _read(message)
        except MessageError as error:
            log.warning("Result of task %s cannot be read: %s", task_id, error, extra={"event": "result_unreadable"})
            meta = {"status": FAILURE, "result": exception_payload(error), "task_id": task_id}
        task_id = str(meta.get("task_id") or task_id)
        known = self._known.get(task_id)
        if known is None or known["status"] not in READY_STATES:
            self._known[task_id] = meta
        while len(self._known) > MOST_KEPT:
            self._known.popitem(last=False)

    @contextmanager
    def _translate_errors(self, stop: Callable[[], None]) -> Iterator[None]:
        """Close a broken connection, and raise beatd's error."""
        try:
            yield
        except Exception as error:
            if not isinstance(error, (OSError, KombuError, AMQPError, RedisError)):
                raise
            stop()
            raise StoreUnavailable(f"result backend {self._place}: {error or type(error).__name__}") from error


def _read(message: Any) -> Meta:
    if message.content_type != JSON:
        raise MessageError(f"the result is of type {message.content_type}, and only {JSON} is read")
    return decode(message.body)
