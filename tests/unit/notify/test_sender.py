"""The sender: a defect counts as a failed attempt, and says no address; and a process without more threads."""

from __future__ import annotations

import logging
import threading
from collections.abc import Container, Sequence
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from beatd import config
from beatd.metrics.counters import DaemonCounters
from beatd.model import Entry
from beatd.notify.sender import ATTEMPTS_MAX, Directory, Sender
from beatd.store.notices import Notice, TakenNotice
from tests.conftest import wait_for
from tests.fakes import NOW, FakeClock


class Outbox:
    """One notice for a ping."""

    def __init__(self) -> None:
        self.waiting = [
            TakenNotice("ping:x:0|1", Notice(kind="ping", name="a", body={"what": "start"}, created_ms=NOW))
        ]
        self.attempts = [0]

    def take(self, count: int, *, again_ms: int, busy: Container[str]) -> list[TakenNotice]:
        taken = [one for one in self.waiting if one.destination not in busy]
        self.waiting = [one for one in self.waiting if one not in taken]
        return taken

    def put_back(self, taken: TakenNotice, pause_ms: int) -> None:
        self.attempts.append(taken.notice.attempts)
        self.waiting = [taken]

    def remove(self, id_: str) -> None:
        self.attempts.append(-1)


class Undelivered:
    """Forgets everything but the last error."""

    error = ""

    def failed(self, name: str, error: str, now_ms: int, *, given_up: bool) -> None:
        self.error = error


def entry_with_a_defect() -> Entry:
    """An entry whose address no check has let through."""
    entry = config.entry("a", {"task": "t", "schedule": 30})
    policies = msgspec.structs.replace(entry.policies, ping="http://[SECRET")
    return msgspec.structs.replace(entry, policies=policies)


def test_a_defect_is_bounded_like_other_failures(caplog: pytest.LogCaptureFixture) -> None:
    outbox, undelivered, clock, entry = Outbox(), Undelivered(), FakeClock(), entry_with_a_defect()
    directory = Directory({}, lambda _: entry)
    sender = Sender(outbox, undelivered, clock, DaemonCounters(), lambda: directory)  # type: ignore[arg-type]
    most = ATTEMPTS_MAX["ping"]
    with caplog.at_level(logging.INFO):
        for _ in range(most):
            sender.send_due()
            wait_for(lambda: not sender.is_busy, 10, "the attempt")
            clock.advance(120.0)
    assert outbox.attempts == [*range(most), -1]
    assert undelivered.error == "ValueError; the log of the daemon has more"
    assert events(caplog.records).count("notify_error") == most
    assert "SECRET" not in caplog.text


def events(records: Sequence[logging.LogRecord]) -> list[str]:
    return [getattr(record, "event", "") for record in records]


def test_a_destination_is_not_busy_for_ever_with_a_notice_that_had_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    notice = TakenNotice("message:ops|1", Notice(kind="message", name="ops", body={}, created_ms=0))
    outbox: Any = SimpleNamespace(take=lambda room, *, again_ms, busy: [] if busy else [notice])
    sender = Sender(outbox, None, FakeClock(), None, lambda: None)  # type: ignore[arg-type, return-value]

    def no_thread(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", no_thread)
    for _ in range(2):
        with pytest.raises(RuntimeError):
            sender.send_due()
    assert not sender.is_busy
