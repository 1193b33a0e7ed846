"""The audit: records are bounded and hide secrets, and a store that refuses them hinders no change."""

from beatd.store import audit
from beatd.store.audit import Audit, audit_record
from beatd.store.keys import Keys

KEYS = Keys("beatd")


def record(action="pause", subjects=("a",), at_ms=1_000, **more):
    return audit_record(at_ms, action, subjects, by="anna@host", via="command", **more)


def test_changes_are_read_newest_first_and_by_pattern(client):
    book = Audit(client, KEYS)
    assert book.note(record(), record("resume", ["b", "ab"], 2_000))
    assert [one.action for one in book.read(10)] == ["resume", "pause"]
    assert [one.action for one in book.read(1)] == ["resume"]
    assert [one.action for one in book.read(10, subject="a")] == ["pause"]
    assert [one.action for one in book.read(10, subject="a*", action="res*")] == ["resume"]
    assert book.read(10, since_ms=2_001) == []


def test_only_the_newest_are_kept_and_what_is_no_record_is_left_out(client, monkeypatch):
    monkeypatch.setattr(audit, "RECORDS_MAX", 3)
    book = Audit(client, KEYS)
    book.note(*(record(at_ms=ms) for ms in range(5)))
    client.lpush(KEYS.audit, b"{", b"[]")
    assert [one.at_ms for one in book.read(10)] == [4, 3, 2]
    assert client.llen(KEYS.audit) == 5
    book.note(record())
    assert client.llen(KEYS.audit) == 3


def test_a_record_is_bounded_and_hides_secrets():
    made = record(
        subjects=[f"e{n}" for n in range(1_000)],
        before={"kwargs": {"password": "hunter2"}, "url": "redis://:hunter2@h/0"},
        after={"args": ["x" * 100_000]},
        detail="token=hunter2",
    )
    assert (made.count, len(made.subjects)) == (1_000, audit.NAMES_MAX)
    assert "hunter2" not in str(made)
    assert len(str(made.after)) <= audit.VALUE_MAX + 1
    assert record(after={1: object()}).after is not None


def test_a_change_that_cannot_be_recorded_is_logged(client, caplog):
    client.set(KEYS.audit, "of another type")
    assert Audit(client, KEYS).note(record()) is False
    assert [one.event for one in caplog.records] == ["audit_unwritten"]


def test_the_digest_of_the_schedule_is_swapped(client):
    book = Audit(client, KEYS)
    assert [book.swap_digest(digest) for digest in ("a", "a", "b")] == [None, "a", "a"]
