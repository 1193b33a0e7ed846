"""Exporter: the process beside a worker that serves its metrics and health.

A process and not a thread, because the worker forks: a process with threads cannot fork safely. The exporter asks for
a snapshot when somebody asks it, so metrics cost nothing while nobody looks. It ends with its worker.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import signal
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple, NoReturn

from beatd import broker
from beatd.clock import Backoff, SystemClock, monotonic
from beatd.exceptions import BrokerError, StoreError
from beatd.listen_address import ListenAddress
from beatd.message.protocol import oldest_age_s
from beatd.process_signals import UNUSED
from beatd.store.client import connect, translate_errors
from beatd.worker.snapshot import Snapshot, decode, frame, frames

log = logging.getLogger("beatd.worker.metrics")

HUNG_S = 60.0
"""A loop that has not answered for this time hangs."""
ANSWER_S = 1.0
"""Time that an answer of the loop is waited for; after that the last one is shown."""
SERVERS_EVERY_S = 5.0
"""Time for which an answer of broker and store is shown."""
_STORE_TIMEOUT_MS = 1_000
_CHUNK = 1 << 16
_LOOK_S = 1.0
"""Time between two looks at the worker's process."""
_ASK = b"?"
_RESTART_FIRST, _RESTART_LONGEST = 1.0, 60.0
"""Seconds before an exporter that ended is started again."""


class ExporterSettings(NamedTuple):
    """Settings of the exporter of a worker."""

    address: ListenAddress
    broker_url: str
    store_url: str | None
    blocks: bool
    """The worker's loop stands still while a task runs (the solo pool): silence is no sign of a hang."""


class Exporter:
    """The worker's end: starts the process, answers it, and starts it again if it ends."""

    def __init__(self, settings: ExporterSettings) -> None:
        self._settings = settings
        self._link: socket.socket | None = None
        self._pid = 0
        self._unsent = bytearray()
        self._backoff = Backoff(_RESTART_FIRST, _RESTART_LONGEST)
        self._start_at = 0.0

    def start(self) -> None:
        """Fork the process."""
        ours, theirs = socket.socketpair()
        worker = os.getpid()
        try:
            self._pid = os.fork()
        except OSError as error:
            ours.close()
            theirs.close()
            self._retry_later(str(error))
            return
        if self._pid == 0:
            ours.close()
            _serve(self._settings, theirs, worker)
        theirs.close()
        ours.setblocking(False)
        self._link = ours

    def files(self) -> list[int]:
        """Return the descriptors that become readable when it asks."""
        return [self._link.fileno()] if self._link else []

    def turn(self, snapshot: Callable[[], bytes]) -> None:
        """Answer a question, if there is one; never waits."""
        if self._link is None:
            if monotonic() >= self._start_at:
                self.start()
            return
        try:
            if not self._link.recv(_CHUNK):
                self._lose()
                return
            self._unsent += frame(snapshot())
        except BlockingIOError:
            pass
        except OSError:
            self._lose()
            return
        with contextlib.suppress(OSError):  # the next turn goes on, or finds the end
            while self._unsent:
                del self._unsent[: self._link.send(self._unsent)]

    def stop(self) -> None:
        """End the process."""
        self._reap()

    def _lose(self) -> None:
        self._reap()
        self._retry_later("its process ended")

    def _reap(self) -> None:
        link, self._link = self._link, None
        if link is None:
            return
        link.close()
        self._unsent.clear()
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(self._pid, signal.SIGKILL)  # it has nothing to finish
            os.waitpid(self._pid, 0)

    def _retry_later(self, reason: str) -> None:
        pause = self._backoff.failed()
        self._start_at = monotonic() + pause
        extra = {"event": "metrics_exporter_lost", "reason": reason}
        log.error("No metrics and health checks: %s; starting it again in %g s", reason, pause, extra=extra)


def _serve(settings: ExporterSettings, link: socket.socket, worker: int) -> NoReturn:
    """Run the process; never returns. ``os._exit`` skips the worker's clean-up handlers."""
    code = 1
    try:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP, *UNUSED):
            signal.signal(number, signal.SIG_IGN)  # it ends with its worker
        multiprocessing.current_process().name = "MetricsExporter"
        from beatd.metrics.server import MetricsServer  # noqa: PLC0415 - a worker without an exporter does not load it
        from beatd.worker.endpoint import WorkerEndpoint  # noqa: PLC0415

        asking = Asking(link, worker)
        servers = Servers(settings)
        MetricsServer(settings.address, WorkerEndpoint(asking, servers, worker, blocks=settings.blocks)).start()
        asking.run()
        code = 0
    except BaseException:
        log.exception("The process that serves metrics failed", extra={"event": "metrics_failed"})
    finally:
        os._exit(code)


class Asking:
    """The exporter's end: asks for a snapshot on behalf of several threads."""

    def __init__(self, link: socket.socket, worker: int) -> None:
        link.settimeout(_LOOK_S)
        self._link = link
        self._worker = worker
        self._changed = threading.Condition()
        self._asked_at: float | None = None
        self._last: Snapshot | None = None

    def run(self) -> None:
        """Receive snapshots until the worker ends."""
        buffer = bytearray()
        while data := self._receive():
            buffer += data
            for payload in frames(buffer):
                with self._changed:
                    self._last, self._asked_at = decode(payload), None
                    self._changed.notify_all()

    def snapshot(self) -> Snapshot | None:
        """Return the state of now, or the last one that is known if the loop is busy."""
        with self._changed:
            if self._asked_at is None:
                self._asked_at = monotonic()
                with contextlib.suppress(OSError):  # the worker is gone, and this process will be
                    self._link.send(_ASK)
            self._changed.wait_for(lambda: self._asked_at is None, ANSWER_S)
            return self._last

    @property
    def silent_s(self) -> float:
        """Seconds for which a question has been waiting for its answer."""
        asked_at = self._asked_at
        return 0.0 if asked_at is None else monotonic() - asked_at

    def _receive(self) -> bytes:
        """Return what comes; nothing at the end of the worker, whose link other processes may hold open."""
        while os.getppid() == self._worker:
            try:
                return self._link.recv(_CHUNK)
            except TimeoutError:
                continue
            except OSError:
                break
        return b""


class ServerView(NamedTuple):
    """Answers of broker and store; None: not asked."""

    lengths: dict[str, int]
    ages: Mapping[str, float] = MappingProxyType({})
    """Seconds since the run of the oldest message was due, by queue."""
    broker_up: bool | None = None
    store_up: bool | None = None


class Servers:
    """Broker and store, asked in a thread of its own when metrics are asked for."""

    def __init__(self, settings: ExporterSettings) -> None:
        self._settings = settings
        self._wanted, self._looked = threading.Event(), threading.Event()
        self._looked_at = -SERVERS_EVERY_S
        self._queues: Sequence[str] = ()
        self._view = ServerView({})
        self._publisher = broker.open(settings.broker_url)
        self._thread = threading.Thread(target=self._run, name="servers", daemon=True)
        self._thread.start()

    def view(self, queues: Sequence[str]) -> ServerView:
        """Return their answers, some seconds old at most. A server that does not answer at once is not up."""
        self._queues = queues
        if monotonic() - self._looked_at > SERVERS_EVERY_S:
            self._looked.clear()
            self._wanted.set()
        return self._view if self._looked.wait(ANSWER_S) else ServerView({}, broker_up=False)

    def _run(self) -> None:
        while self._wanted.wait():
            self._wanted.clear()
            try:
                self._view = self._look()
            except Exception:
                self._view = ServerView({}, broker_up=False)
                log.exception("Broker or store cannot be asked", extra={"event": "metrics_failed"})
            self._looked_at = monotonic()
            self._looked.set()

    def _look(self) -> ServerView:
        lengths, ages, up = {}, {}, True
        try:
            for queue, waiting in zip(self._queues, self._publisher.waiting(self._queues), strict=True):
                lengths[queue] = waiting.messages
                age = oldest_age_s(waiting.next, SystemClock().now_ms()) if waiting.messages else 0.0
                if age is not None:
                    ages[queue] = age
        except BrokerError:
            up = False
        return ServerView(lengths, ages, broker_up=up, store_up=self._store_answers())

    def _store_answers(self) -> bool | None:
        if self._settings.store_url is None:
            return None
        try:
            with (
                connect(self._settings.store_url, timeout_ms=_STORE_TIMEOUT_MS, name="beatd-metrics") as client,
                translate_errors(client),
            ):
                return bool(client.ping())
        except StoreError:
            return False
