"""What takes hold of a worker from outside its loop: signals, and in the solo pool a thread that keeps it alive."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from beatd.app import signals
from beatd.exceptions import StoreError
from beatd.worker.consumers import Consumer
from beatd.worker.ending import Ending, Phase
from beatd.worker.worker import Worker

log = logging.getLogger("celery.worker")

_BEAT_S = 2.5
_SAME_WISH_S = 0.3


@contextmanager
def stopped_by_signals(worker: Worker, *, sigterm_quits: bool = False) -> Iterator[None]:
    """SIGTERM and SIGINT: warm, the second time soft or cold. SIGQUIT: soft or cold, and so SIGTERM if it ``quits``.

    A signal that comes right after another is the same wish: whoever signals a process group and its members does that.
    """
    last = -_SAME_WISH_S
    quits = {signal.SIGQUIT, *([signal.SIGTERM] if sigterm_quits else [])}

    def stop(number: int, _frame: object) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last < _SAME_WISH_S:
            return
        last = now
        cold, was = number in quits, worker.ending.phase
        phase = worker.ending.next(cold=cold)
        if phase is not was:
            _say(phase, worker.ending.soft_s, signal.Signals(number).name)
            signals.worker_shutting_down.send(
                sender=worker.hostname, sig=signal.Signals(number).name, how=phase.value, exitcode=0
            )
        worker.stop(cold=cold)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = dict.fromkeys((signal.SIGTERM, signal.SIGINT, signal.SIGQUIT), stop)
    previous = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _say(phase: Phase, soft_s: float, name: str) -> None:
    extra = {"event": "worker_stopping", "signal": name, "how": phase.value}
    if phase is Phase.SOFT:
        log.warning("Initiating Soft Shutdown, terminating in %s seconds", soft_s, extra=extra)
    else:
        log.warning("worker: %s shutdown (MainProcess)", phase.value, extra=extra)


@contextmanager
def kept_alive(consumer: Consumer, ending: Ending, pool: str) -> Iterator[None]:
    """In the solo pool the loop stands still while a task runs: a thread sends heartbeats and keeps the time.

    The other pools need none, and prefork must have none: a process with threads cannot fork safely.
    """
    if pool != "solo":
        yield
        return
    over = threading.Event()

    def beat() -> None:
        while not over.wait(max(_SAME_WISH_S, min(_BEAT_S, ending.due_in()))):
            if ending.due_in() <= 0:
                os.kill(os.getpid(), signal.SIGQUIT)
            try:
                consumer.beat()
            except StoreError as error:
                log.warning("Heartbeat failed: %s", error, extra={"event": "heartbeat_failed"})

    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(_BEAT_S)
