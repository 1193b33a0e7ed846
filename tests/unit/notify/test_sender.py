"""The sender of notices, when the process has no more threads."""

import threading
from types import SimpleNamespace

import pytest

from beatd.notify.sender import Sender
from beatd.store.notices import Notice, TakenNotice
from tests.fakes import FakeClock


def test_a_destination_is_not_busy_for_ever_with_a_notice_that_had_no_thread(monkeypatch):
    notice = TakenNotice("message:ops|1", Notice(kind="message", name="ops", body={}, created_ms=0))
    outbox = SimpleNamespace(take=lambda room, *, again_ms, busy: [] if busy else [notice])
    sender = Sender(outbox, None, FakeClock(), None, lambda: None)

    def no_thread(_thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", no_thread)
    for _ in range(2):
        with pytest.raises(RuntimeError):
            sender.send_due()
    assert not sender.is_busy
