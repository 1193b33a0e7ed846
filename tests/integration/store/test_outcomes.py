"""Records, summaries and marks of runs: what is kept, within which bounds, and what is made of it."""

import random
import string

import pytest

from beatd.client.outcomes import OutcomeReader, word_of
from beatd.exceptions import StoreUnavailable, TaskRevokedError
from beatd.model import run_id
from beatd.store import history
from beatd.store.client import connect
from beatd.store.history import Record
from beatd.store.keys import Keys
from beatd.store.outcomes import BYTES_MAX, RECORDS_MAX, Ended, Outcomes, Started
from beatd.store.run_record import EXPIRED, MESSAGE_MAX, OUTPUT_MAX, RunRecord, decoded, encoded, error_texts, tail
from beatd.timestamps import iso_ms
from beatd.worker.builtin.command import CommandFailed

KEYS, NOW = Keys("beatd"), 1_790_000_000_000


@pytest.fixture
def outcomes(client):
    return Outcomes(client, KEYS)


def ended(name, due_ms, state="SUCCESS", at_ms=None, **more):
    record = RunRecord(run_id=run_id(name, due_ms), state=state, end_ms=at_ms or due_ms, **more)
    end_ms = at_ms or due_ms
    return Ended(record.run_id, name, iso_ms(due_ms), state, 0.1, encoded(record), record.mark, end_ms=end_ms)


def test_a_summary_follows_the_outcomes(outcomes):
    steps = [
        ("SUCCESS", (None, 1, 0, "success")),
        ("FAILURE", (2, 1, 1, "failure")),
        ("RETRY", (2, 1, 1, "retry")),
        ("LOST", (2, 1, 2, "lost")),
        ("REVOKED", (2, 1, 2, "revoked")),
        ("REJECTED", (2, 1, 3, "failure")),
        ("SUCCESS", (None, 7, 0, "success")),
    ]
    for number, (state, expected) in enumerate(steps, 1):
        outcomes.note([ended("a", NOW + number, state)])
        summary = outcomes.summaries()["a"]
        since = summary.failing_since_ms and summary.failing_since_ms - NOW
        assert (since, summary.last_success_ms - NOW, summary.failures, summary.word) == expected
        assert summary.end_ms == NOW + number
    assert outcomes.summaries(["a", "nobody"]).keys() == {"a"}


def test_an_expired_run_counts_as_a_failure_and_a_revoked_one_does_not(outcomes):
    outcomes.note([ended("a", NOW, "REVOKED", message="revoked")])
    assert outcomes.summaries()["a"].failures == 0
    outcomes.note([ended("a", NOW + 1, "REVOKED", message=EXPIRED)])
    assert outcomes.summaries()["a"].failing_since_ms == NOW + 1


def test_what_is_noted_twice_counts_once(outcomes, client):
    for _ in range(2):
        outcomes.note([ended("a", NOW, "FAILURE")])
    assert outcomes.summaries()["a"].failures == 1
    client.set(KEYS.history("a"), history.run_cell(history.SENT, NOW, NOW, NOW))
    [run] = OutcomeReader(client, KEYS).find(run_id("a", NOW), ["a"], NOW)
    assert len(run.attempts) == 1


@pytest.mark.parametrize("fault", ["full", "read-only"])
def test_an_end_that_the_server_cannot_write_is_an_error_and_is_noted_later(start_server, fault):
    """Its message would be acknowledged, and the run count as running for as long as it may."""
    server = start_server()
    with connect(server.url) as client:
        outcomes, one = Outcomes(client, KEYS), ended("a", NOW)._replace(after_ms=NOW - 1)
        client.config_set("maxmemory", 1) if fault == "full" else client.replicaof("127.0.0.1", 1)
        with pytest.raises(StoreUnavailable):
            outcomes.note([one])
        assert outcomes.records("a") == []
        client.config_set("maxmemory", 0) if fault == "full" else client.replicaof("NO", "ONE")
        outcomes.note([one])
        assert [record.run_id for record in outcomes.records("a")] == [one.run_id]
        assert client.hget(KEYS.shard().ended, "a") == b"%d %d" % (NOW - 1, NOW)
        assert client.keys(f"{KEYS.shard().finished}*") == []


def test_records_are_bounded_in_number(outcomes, client):
    outcomes.note([ended("a", NOW + n) for n in range(3 * RECORDS_MAX)])
    ends = [one.end_ms - NOW for one in outcomes.records("a")]
    assert ends == list(range(3 * RECORDS_MAX - 1, 3 * RECORDS_MAX - 1 - len(ends), -1))
    assert RECORDS_MAX <= client.llen(KEYS.outcomes("a")) <= RECORDS_MAX + 10


def test_records_are_bounded_in_bytes(outcomes, client):
    noise = random.Random(7)
    for n in range(30):
        output = "".join(noise.choices(string.printable, k=OUTPUT_MAX))
        outcomes.note([ended("a", NOW + n, "FAILURE", output=output)])
    kept = client.lrange(KEYS.outcomes("a"), 0, -1)
    assert 0 < len(kept) < 30
    assert sum(map(len, kept)) <= BYTES_MAX
    assert outcomes.records("a")[0].end_ms == NOW + 29


def test_texts_are_bounded_and_hide_secrets():
    error = ValueError("redis://u:geheim@h/0 " + "x" * 10_000)
    texts = error_texts(error, "Traceback\n" + "line password='geheim'\n" * 5_000)
    assert texts["type"] == "ValueError"
    assert len(texts["message"]) <= MESSAGE_MAX
    assert len(texts["traceback"]) < 9_000
    assert "geheim" not in str(texts)
    assert len(tail("first\n" + "y" * 200 + "\n" * OUTPUT_MAX)) <= OUTPUT_MAX + 2
    assert "geheim" not in tail("token=geheim")


def test_an_error_of_a_builtin_task_is_its_own_text():
    texts = error_texts(CommandFailed("/bin/false ended with exit code 1"), "Traceback\n  File beatd/…")
    assert (texts["type"], texts["message"]) == ("CommandFailed", "/bin/false ended with exit code 1")
    assert texts["traceback"] == ""


class Unprintable(Exception):
    def __str__(self):
        raise RuntimeError


def test_an_exception_that_cannot_be_printed_has_a_record():
    assert error_texts(Unprintable())["message"] == "its text cannot be shown"
    assert error_texts(TaskRevokedError("revoked"))["type"] == "TaskRevokedError"


@pytest.mark.parametrize("raw", [b"", b"{", b"x\x9c broken", b"[1]", b'{"run_id": 1}', b"\xff\xfe"])
def test_what_is_no_record_is_left_out(client, outcomes, raw):
    client.rpush(KEYS.outcomes("a"), raw)
    assert decoded(raw) is None
    assert outcomes.records("a") == []
    client.hset(KEYS.shard().last_outcome, "a", raw)
    assert outcomes.summaries() == {}
    outcomes.note([ended("a", NOW)])
    assert outcomes.summaries()["a"].word == "success"


def test_keys_of_other_types_hinder_no_end(client, outcomes):
    client.set(KEYS.outcomes("a"), "mine")
    client.set(KEYS.shard().last_outcome, "mine")
    outcomes.note([ended("a", NOW), ended("b", NOW)])
    assert client.get(KEYS.shard().finished + run_id("b", NOW)) == b"SUCCESS 100"
    assert len(outcomes.records("b")) == 1


def test_a_run_that_is_tried_again_is_not_finished(client, outcomes):
    client.set(KEYS.history("a"), history.run_cell(history.SENT, NOW, NOW, NOW))
    outcomes.note([ended("a", NOW, "RETRY", attempt=1)._replace(is_over=False)])
    assert client.get(KEYS.shard().finished + run_id("a", NOW)) is None
    [run] = OutcomeReader(client, KEYS).find(run_id("a", NOW)[:8], ["a"], NOW)
    assert (run.word, [one.attempt for one in run.attempts]) == ("retry", [1])
    outcomes.note([ended("a", NOW, attempt=2)])
    [run] = OutcomeReader(client, KEYS).find(run_id("a", NOW), ["a"], NOW)
    assert (run.word, [one.word for one in run.attempts]) == ("success", ["retry", "success"])


def test_a_run_is_queued_then_running_then_lost(client, outcomes):
    client.set(KEYS.history("a"), history.run_cell(history.SENT, NOW, NOW, NOW))
    reader, identity = OutcomeReader(client, KEYS), run_id("a", NOW)

    def word(now_ms):
        return reader.of(["a"], now_ms)["a"].word

    assert word(NOW) == "queued"
    outcomes.began({identity: Started(NOW, NOW + 2_000, 1, "celery@one two")})
    assert word(NOW + 3_000) == "running"
    assert outcomes.started([identity])[identity].worker == "celery@one two"
    assert word(NOW + 300_000) == "lost"
    assert reader.of(["a"], NOW)["a"].while_held(True).word == "held"


def test_words_of_records():
    def word(kind="scheduled", outcome=None):
        return word_of(Record("a", kind, NOW, NOW, outcome=outcome), {}, NOW)

    outcomes = ["SUCCESS", "IGNORED", "FAILURE", "REJECTED", "REFUSED", "REVOKED", "RETRY", "LOST", None]
    assert [word(outcome=outcome) for outcome in outcomes] == [
        *["success"] * 2,
        *["failure"] * 3,
        "revoked",
        "retry",
        "lost",
        "queued",
    ]
    assert word("skipped") == "skipped"


def test_overdue_entries_come_and_go(outcomes, client):
    outcomes.set_overdue({"a": NOW, "b": NOW + 1}, [])
    outcomes.set_overdue({}, ["b"])
    assert outcomes.overdue() == {"a": NOW}
    assert client.pttl(KEYS.shard().overdue) > 0
