"""The notifier against a real store and real receivers: herds, failovers, hangs, a fleet without a leader."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from beatd import config
from beatd.beat.conditions import Conditions
from beatd.beat.notifier import FleetSight, Notifier
from beatd.beat.pings import PingPlanner
from beatd.beat.term import Leadership, Term
from beatd.clock import SystemClock
from beatd.exceptions import StoreError, StoreUnavailable
from beatd.metrics.counters import DaemonCounters
from beatd.model import NotifyTarget, run_id
from beatd.notify import sender
from beatd.notify.sender import Sender
from beatd.states import FAILURE, SUCCESS
from beatd.store.client import connect
from beatd.store.daemon_registry import FleetView, Member, Status
from beatd.store.held_back import HeldBack
from beatd.store.history import SENT, run_cell
from beatd.store.history_reader import Histories
from beatd.store.keys import Keys, shard_of
from beatd.store.notices import NOTICES_MAX, Notice, Notices
from beatd.store.outcomes import Ended, Outcomes, Started
from beatd.store.recoveries import Recoveries
from beatd.store.run_record import RunRecord, encoded
from beatd.store.server_check import NodeCheck
from beatd.store.topology import slot_of
from beatd.store.undelivered import Undelivered
from tests.conftest import wait_for
from tests.fakes import FakeClock
from tests.receivers import Receiver, receiver

KEYS = Keys("beatd")
TTL_S = 10.0
"""Twice as long may pass between two looks of different leaders, by the clock of the server, without being told."""


class Daemon:
    """A notifier with a leadership that the test gives and takes."""

    def __init__(
        self, url: str, name: str, entries: dict[str, Any], targets: list[NotifyTarget], clock: Any, keys: Keys = KEYS
    ) -> None:
        client, keys = connect(url, timeout_ms=30_000), keys.without({})
        self.client, self.name, self.clock = client, name, clock
        self.leadership = Leadership(SystemClock(), 0)
        self.fleet: FleetView | None = None
        self.outcomes, self.notices = Outcomes(client, keys), Notices(client, keys)
        self.counters = DaemonCounters()
        made = {entry: config.entry(entry, {"task": "t", "schedule": 30, **more}) for entry, more in entries.items()}
        self.notifier = Notifier(
            FleetSight(name, self.leadership, lambda: self.fleet, keys.parts, TTL_S),
            Conditions(
                self.outcomes,
                Recoveries(client, keys),
                HeldBack(client, keys, shards=keys.parts),
                self.notices,
                clock=clock,
                fleet=lambda: self.fleet,
            ),
            PingPlanner(Histories(client, keys), self.outcomes, self.notices, keys, clock),
            self.notices,
            lambda directory: Sender(self.notices, Undelivered(client, keys), clock, self.counters, directory),
            entry=made.get,
            place="beatd",
            clock=clock,
            check_nodes=NodeCheck(client, keys),
        )
        self.notifier.set_targets(targets)
        self.notifier.set_entries(made.values())

    def lead(self, token: int) -> None:
        value = f"{self.name}:{token}"
        self.client.set(KEYS.shard(0).lease, value)
        self.leadership.begin(Term(token, value, SystemClock().monotonic() + 3600))

    def look(self, times: int = 3) -> None:
        """Look as the thread does; the settled change leaves with the second look, and is sent with the third."""
        for _ in range(times):
            self.notifier.look()
            wait_for(self.is_quiet, 10, "the notices that are being sent")
            self.clock.advance(2.0)

    def is_quiet(self) -> bool:
        """Whether nothing is being sent but what hangs."""
        return self.notifier._sender._busy <= {"message:hang"}

    def ended(self, names: list[str], state: str, end_ms: int | None = None) -> None:
        for start in range(0, len(names), 1_000):
            self.outcomes.note([self.end(name, state, end_ms) for name in names[start : start + 1_000]])

    def end(self, name: str, state: str, end_ms: int | None) -> Ended:
        run_id = f"00000000-0000-0000-0000-{abs(hash((name, end_ms))) % 10**12:012}"
        record = RunRecord(run_id=run_id, state=state, end_ms=end_ms or 1, type="ValueError", message="no")
        return Ended(run_id, name, None, state, 1.0, encoded(record), end_ms=end_ms)


@pytest.fixture
def web() -> Iterator[Receiver]:
    with receiver() as made:
        yield made


@pytest.fixture
def daemon(redis_url: str) -> Iterator[Callable[..., Daemon]]:
    made: list[Daemon] = []

    def make(name: str, entries: Any, *targets: NotifyTarget, clock: Any = None, **more: Any) -> Daemon:
        entries = entries if isinstance(entries, dict) else {entry: {} for entry in entries}
        made.append(Daemon(more.pop("url", redis_url), name, entries, list(targets), clock or FakeClock(), **more))
        return made[-1]

    yield make
    for one in made:
        one.notifier._sender.stop()
        one.client.close()


def hook(web: Receiver, path: str = "/hook", **more: Any) -> NotifyTarget:
    return NotifyTarget(name=more.pop("name", "ops"), webhook=f"{web.url}{path}", interval_ms=0, **more)


def test_ten_thousand_failures_are_one_message(daemon, web, wait_until):
    names = [f"entry-{number:05}" for number in range(10_000)]
    one = daemon("one", names, hook(web))
    one.lead(1)
    one.ended(names, FAILURE)
    one.look()
    wait_until(lambda: web.requests)
    one.look(2)
    [got] = web.requests
    assert got.json["title"] == "beatd: 10,000 entries fail"
    one.ended(names, SUCCESS)
    one.look()
    wait_until(lambda: len(web.requests) == 2)
    assert web.requests[1].json["recovered_count"] == 10_000
    assert one.client.hkeys(KEYS.alerts("ops")) == [b"recovered"]


def test_failures_that_still_grow_are_waited_for(daemon, web, wait_until):
    one = daemon("one", ["a", "b", "c", "d"], hook(web))
    one.lead(1)
    for name in "abc":
        one.ended([name], FAILURE)
        one.look(1)
    assert one.notices.count() == 0
    one.look(2)
    wait_until(lambda: web.requests)
    assert web.requests[0].json["problems_count"] == 3


def test_a_failure_that_is_over_before_anybody_looks_is_told_with_its_end(daemon, web, wait_until):
    one = daemon("one", ["a", "b"], hook(web, on=("failure",)))
    one.lead(1)
    one.look(1)
    one.ended(["a"], FAILURE, 1_790_000_000_000)
    one.ended(["a"], SUCCESS, 1_790_000_001_000)
    one.ended(["b"], SUCCESS, 1_790_000_001_000)
    one.look()
    wait_until(lambda: web.requests)
    one.look(5)
    [got] = web.requests
    assert got.json["title"] == "beatd: a failed and succeeded again"
    text = "a failed at 2026-09-21 14:13:20 UTC and succeeded at 2026-09-21 14:13:21 UTC: ValueError: no"
    assert got.json["text"] == text
    assert (got.json["kind"], got.json["problems"], got.json["recovered_count"]) == ("recovery", [], 1)
    [item] = got.json["recovered"]
    assert (item["subject"], item["failures"], item["reason"]) == ("a", 1, "ValueError: no")


def test_a_failure_that_ends_while_its_message_waits_is_one_message(daemon, web, wait_until):
    one = daemon("one", ["a"], hook(web))
    one.lead(1)
    one.ended(["a"], FAILURE)
    one.look(1)  # seen, and waited for: it may still grow
    one.ended(["a"], SUCCESS)
    one.look(5)
    wait_until(lambda: web.requests)
    assert [got.json["title"] for got in web.requests] == ["beatd: a failed and succeeded again"]


def test_failures_that_were_told_and_are_over_are_told_once(daemon, web, wait_until):
    one = daemon("one", ["a"], hook(web))
    one.lead(1)
    one.look(1)
    one.ended(["a"], FAILURE)
    one.look()
    wait_until(lambda: web.requests)
    one.ended(["a"], SUCCESS)
    one.look(5)
    wait_until(lambda: len(web.requests) == 2)
    one.look(5)
    assert [got.json["title"] for got in web.requests] == ["beatd: a fails", "beatd: a succeeded"]


def test_after_holds_for_failures_that_are_over(daemon, web, wait_until):
    one = daemon("one", ["a", "b", "c"], hook(web, after=2, match=("a", "b")))
    one.lead(1)
    one.look(1)
    fails, succeeds = FAILURE, SUCCESS
    ends = {"a": [fails, succeeds], "b": [fails, fails, succeeds], "c": [fails, fails, succeeds]}
    for name, states in ends.items():
        for number, state in enumerate(states):
            one.ended([name], state, 1_790_000_000_000 + number)
    one.look(5)
    wait_until(lambda: web.requests)
    assert [got.json["title"] for got in web.requests] == ["beatd: b failed and succeeded again"]
    assert "b failed 2 times in a row" in web.requests[0].json["text"]


def test_the_next_leader_tells_of_failures_that_were_over_in_between_and_of_none_twice(daemon, web, wait_until):
    one, two, three = (daemon(name, ["a", "b"], hook(web)) for name in ("one", "two", "three"))
    one.lead(1)
    one.look(1)
    one.ended(["a"], FAILURE)
    one.ended(["a"], SUCCESS)  # the leader dies before it looks
    two.lead(2)
    two.look(3)
    wait_until(lambda: web.requests)
    three.lead(3)
    three.look(3)
    three.ended(["b"], FAILURE)
    three.ended(["b"], SUCCESS)
    three.look(3)
    wait_until(lambda: len(web.requests) == 2)
    titles = [got.json["title"] for got in web.requests]
    assert titles == [f"beatd: {name} failed and succeeded again" for name in "ab"]


def test_ten_thousand_failures_that_are_over_at_once_are_one_message(daemon, web, wait_until):
    names = [f"entry-{number:05}" for number in range(10_000)]
    one = daemon("one", names, hook(web))
    one.lead(1)
    one.look(1)
    one.ended(names, FAILURE)
    one.ended(names, SUCCESS)
    one.look(3)
    wait_until(lambda: web.requests)
    one.look(1)
    [got] = web.requests
    assert got.json["title"] == "beatd: 10,000 entries failed and succeeded again"
    assert one.client.zcard(KEYS.shard().recovered) == 10_000
    one.ended(names[:1], FAILURE)
    one.ended(names[:1], SUCCESS)
    assert one.client.zcard(KEYS.shard().recovered) == 10_000


def test_a_leader_that_dies_before_it_sends_loses_nothing_and_nothing_comes_twice(daemon, web, wait_until):
    one, two = (daemon(name, ["a"], hook(web)) for name in ("one", "two"))
    one.lead(1)
    one.ended(["a"], FAILURE)
    one.look(1)  # it has seen the failure, and dies
    two.lead(2)
    two.look()
    wait_until(lambda: web.requests)
    two.look(5)
    assert len(web.requests) == 1


def test_a_message_in_the_outbox_is_sent_by_the_next_leader(daemon, web, wait_until, monkeypatch):
    one, two = (daemon(name, ["a"], hook(web)) for name in ("one", "two"))
    one.lead(1)
    one.ended(["a"], FAILURE)
    with monkeypatch.context() as patched:
        patched.setattr(Sender, "send_due", lambda _: None)  # it dies before
        one.look()
    assert one.notices.count() == 1
    two.lead(2)
    two.look()
    wait_until(lambda: web.requests)
    two.look(3)
    assert len(web.requests) == 1
    assert two.notices.count() == 0


def test_a_message_whose_sender_died_comes_again(daemon, web, wait_until, monkeypatch):
    monkeypatch.setattr(sender, "AGAIN_MS", 50)
    one = daemon("one", ["a"], hook(web))
    one.lead(1)
    one.ended(["a"], FAILURE)
    with monkeypatch.context() as patched:
        patched.setattr(Sender, "_send", lambda self, taken: self._busy.discard(taken.destination))
        one.look()
    two = daemon("two", ["a"], hook(web))
    two.lead(2)

    def sent() -> bool:
        two.look(1)
        return bool(web.requests)

    wait_until(sent)


def test_an_old_leader_cannot_tell(daemon, web):
    one, two = (daemon(name, ["a"], hook(web)) for name in ("one", "two"))
    one.lead(1)
    two.lead(2)
    one.ended(["a"], FAILURE)
    with pytest.raises(Exception, match="term one:1 is over"):
        one.look()
    assert one.notices.count() == 0


def test_a_target_that_hangs_or_fails_does_not_delay_another(daemon, web, wait_until):
    bad = [hook(web, "/hang", name="hang", timeout_ms=60_000), hook(web, "/status/500", name="bad")]
    one = daemon("one", ["a"], *bad, hook(web))
    one.lead(1)
    one.ended(["a"], FAILURE)
    one.look()
    wait_until(lambda: web.of("/hook") and web.of("/hang") and web.of("/status/500"))
    one.ended(["a"], SUCCESS)
    one.look()
    wait_until(lambda: len(web.of("/hook")) == 2)
    assert len(web.of("/hang")) == 1
    wait_until(lambda: one.notices.destinations() == {"message:hang": 1, "message:bad": 1})  # news are collected


def test_a_failed_message_is_tried_again_when_the_receiver_says(daemon, web, wait_until, caplog):
    web.answers, web.retry_after = [429, 503], "0"
    sender_pauses = []
    one = daemon("one", ["a"], hook(web))
    one.lead(1)
    one.ended(["a"], FAILURE)
    original = one.notices.put_back
    one.notices.put_back = lambda taken, ms: (sender_pauses.append(ms), original(taken, 0))[1]

    def sent() -> bool:
        one.look(1)
        one.clock.advance(10)
        return len(web.requests) == 3

    wait_until(sent)
    wait_until(lambda: one.counters.notices == {("ops", "failed"): 2, ("ops", "sent"): 1})
    assert not one.notices.count()
    assert sender_pauses == [2_000, 4_000]


def test_a_message_is_given_up_at_last(daemon, web, wait_until, caplog):
    one = daemon("one", ["a"], hook(web, "/status/500"))
    one.lead(1)
    notice = Notice(
        kind="message", name="ops", body={"text": "x", "title": "x", "kind": "test"}, created_ms=0, attempts=15
    )
    one.notices.put([("message:ops|1", notice)], "ops", {}, lease_value="one:1")
    one.look(1)
    wait_until(lambda: not one.notices.count())
    assert "is given up: 127.0.0.1 answered 500" in caplog.text


def test_a_target_that_is_not_reached_is_noted_until_it_is(daemon, web, wait_until):
    web.answers = [500, 410, 200]
    one = daemon("one", ["a"], hook(web))
    one.lead(1)
    undelivered = Undelivered(one.client, KEYS)
    put_back = one.notices.put_back
    one.notices.put_back = lambda taken, _: put_back(taken, 3_600_000)  # not before the test has it due

    def problems(now_ms):
        return {name: one for name, one in undelivered.read().items() if one.is_problem(now_ms)}

    one.ended(["a"], FAILURE)
    one.look()
    wait_until(lambda: one.counters.notices[("ops", "failed")] == 1)
    now_ms = one.clock.now_ms()
    assert problems(now_ms) == {}, "it may be reached at once"
    wait_until(lambda: problems(now_ms + 60_000))
    one.clock.advance(30)
    for waiting in one.client.zrange(KEYS.notices_due, 0, -1):
        one.client.zadd(KEYS.notices_due, {waiting: 0})
    wait_until(lambda: one.look(1) or one.counters.notices[("ops", "failed")] == 2)
    wait_until(lambda: problems(now_ms))  # it was given up
    noted = problems(now_ms)["ops"]
    assert (noted.attempts, noted.given_up, noted.error) == (2, 1, "127.0.0.1 answered 410 Gone")
    assert problems(now_ms + 3 * 86_400_000) == {}, "long ago"
    two = daemon("two", ["a"], hook(web))
    two.lead(2)
    two.look(1)
    two.ended(["a"], SUCCESS)
    two.look()
    wait_until(lambda: two.counters.notices[("ops", "sent")] == 1)
    wait_until(lambda: not one.client.exists(KEYS.undelivered))


def test_the_outbox_is_bounded(daemon, web):
    one = daemon("one", ["a"], hook(web))
    one.lead(1)
    notice = Notice(kind="ping", name="a", body={}, created_ms=0)
    notices = [(f"ping:host:0|{number:06}", notice) for number in range(NOTICES_MAX + 7)]
    assert one.notices.put(notices, "", {}, lease_value="one:1") == 7
    assert one.notices.count() == one.client.hlen(KEYS.notices) == NOTICES_MAX


def test_what_the_outbox_has_no_room_for_is_counted_in_the_log(daemon, web, wait_until, caplog):
    """A target does not answer; many messages wait for it when another target is told something."""
    one = daemon("one", ["a"], hook(web, "/hang", name="hang", on=("overdue",)), hook(web))
    one.lead(1)
    waiting = Notice(kind="message", name="hang", body={}, created_ms=0)
    one.notices.put([(f"message:hang|{n:06}", waiting) for n in range(NOTICES_MAX)], "", {}, lease_value="one:1")
    one.ended(["a"], FAILURE)
    one.look()
    wait_until(lambda: any(request.path == "/hook" for request in web.requests), what="the message to the other target")
    (dropped,) = [record for record in caplog.records if getattr(record, "event", "") == "notices_dropped"]
    assert (dropped.count, dropped.levelno) == (1, logging.ERROR)
    assert dropped.getMessage() == "Notices dropped, as too many wait for their targets: 1"


def test_what_the_clock_does_tells_nothing_twice(daemon, web, wait_until):
    one = daemon("one", ["a"], hook(web))
    one.lead(1)
    one.ended(["a"], FAILURE)
    one.look()
    wait_until(lambda: web.requests)
    for step_s in (86_400, -2 * 86_400, 10 * 365 * 86_400):
        one.clock.step(step_s)
        one.look(2)
    assert len(web.requests) == 1


def member(name: str, **more: Any) -> Member:
    return Member(Status(id=name, **more), 0)


def test_a_fleet_without_a_leader_is_told_by_one_of_its_daemons(daemon, web, wait_until):
    clock = FakeClock()
    one, two = (daemon(name, ["a"], hook(web), clock=clock) for name in ("one", "two"))
    nobody = FleetView(0, {name: member(name) for name in ("one", "two")}, {})
    one.fleet = two.fleet = nobody
    for _ in range(4):
        one.look(1)
        two.look(1)
    wait_until(lambda: web.requests)
    assert [got.json["title"] for got in web.requests] == ["beatd: nobody leads shard 0"]
    two.lead(5)
    two.look()
    wait_until(lambda: len(web.requests) == 2)
    assert web.requests[1].json["title"] == "beatd: shard 0 has a leader"


def test_the_next_leader_tells_for_how_long_nobody_led(daemon, web, wait_until):
    one, two = (daemon(name, ["a"], hook(web)) for name in ("one", "two"))
    one.lead(1)
    one.look(1)
    one.client.pexpire(KEYS.led, one.client.pttl(KEYS.led) - 60_000)
    two.lead(2)
    two.look(4)
    wait_until(lambda: web.requests)
    assert len(web.requests) == 1
    text = web.requests[0].json["text"]
    assert re.search(r"it had no leader for 1 min( \d+ s)?; two leads now", text), text


@pytest.mark.parametrize("steps_down", [False, True])
def test_a_store_that_is_away_is_told_directly(daemon, web, wait_until, start_server, steps_down):
    server = start_server()
    clock = FakeClock()
    one = Daemon(server.url, "one", {"a": {}}, [hook(web)], clock)
    one.lead(1)
    one.look(1)
    server.kill()
    for turn in range(20):
        if turn == 5 and steps_down:
            one.leadership.end(1, "the store is away")
        with pytest.raises(StoreError) as caught:
            one.notifier.look()
        one.notifier._store_is_away(caught.value)
        clock.advance(2)
    wait_until(lambda: web.requests)
    assert len(web.requests) == 1
    assert web.requests[0].json["title"] == "beatd: nobody leads shard 0"
    one.client.close()


def test_a_daemon_that_another_has_relieved_leaves_an_absent_store_to_it(daemon, web, start_server):
    server = start_server()
    one, two = (Daemon(server.url, name, {"a": {}}, [hook(web)], FakeClock()) for name in ("one", "two"))
    one.lead(1)
    one.look(1)
    one.leadership.end(1, "the store is away")
    one.clock.advance(60)
    two.lead(2)
    two.look(1)
    one.look(1)
    server.kill()
    one.look(1)  # asks no store
    before = set(threading.enumerate())
    one.notifier._store_is_away(StoreUnavailable("away"))
    assert [each.name for each in set(threading.enumerate()) - before if each.name == "notice"] == []
    assert web.requests == []
    one.client.close()
    two.client.close()


def test_a_run_that_takes_too_long_is_told_until_it_is_over(daemon, web, wait_until):
    one = daemon("one", ["a", "b"], hook(web, on=("too_long", "recovery")))
    one.lead(1)
    one.outcomes.set_too_long({"a": 1_790_000_000_000}, [])
    one.outcomes.set_overdue({"b": 1_790_000_000_000}, [])
    one.look()
    wait_until(lambda: web.requests)
    two = daemon("two", ["a", "b"], hook(web, on=("too_long", "recovery")))
    one.outcomes.set_too_long({}, ["a"])
    two.lead(2)
    two.look(4)
    assert two.notices.count() == 0, "a new leader has not looked for late runs yet"
    two.clock.advance(20)
    two.look()
    wait_until(lambda: len(web.requests) == 2)
    titles = ["beatd: a runs too long", "beatd: a does not run too long any more"]
    assert [got.json["title"] for got in web.requests] == titles


def test_broken_files_and_different_schedules_are_told(daemon, web, wait_until):
    one = daemon("one", ["a"], hook(web))
    one.lead(1)
    daemons = {"one": member("one", config="broken", digest="x"), "two": member("two", digest="y")}
    one.fleet = FleetView(0, daemons, {})
    one.look()
    wait_until(lambda: web.requests)
    assert "one has a configuration problem" in web.requests[0].json["text"]
    one.look(40)
    wait_until(lambda: any("2 different schedules" in got.json["text"] for got in web.requests))


def test_pings_follow_a_run_and_begin_with_the_next_one(daemon, web, wait_until, redis_url):
    entries = {"a": {"ping": f"{web.url}/ping", "sentry": {"dsn": web.url.replace("://", "://key@") + "/1"}}}
    clock = FakeClock()
    one = daemon("one", entries, clock=clock)
    one.lead(1)
    history = KEYS.history("a")

    def run(due_ms: int, outcome: int) -> str:
        cell = bytearray(run_cell(SENT, due_ms, due_ms, due_ms))
        cell[15] = outcome
        one.client.append(history, bytes(cell))
        return run_id("a", due_ms)

    now_ms = clock.now_ms()
    run(now_ms - 5_000, 1)
    one.look(2)
    assert one.notices.count() == 0, "it was over before it was looked at"
    began = run(now_ms, 0)
    one.outcomes.began({began: Started(now_ms, now_ms, 1, "w")})
    one.look(2)
    wait_until(lambda: web.of("/ping/start") and web.of("/api/1/cron/a/key/"))
    one.client.setrange(history, one.client.strlen(history) - 5, b"\x02")
    one.look(2)
    wait_until(lambda: web.of("/ping/fail") and len(web.of("/api/1/cron/a/key/")) == 2)
    one.look(3)
    assert len(web.requests) == 4
    assert [got.json["status"] for got in web.of("/api/1/cron/a/key/")] == ["in_progress", "error"]
    one.notifier.change_entries({}, ["a"])
    one.look(1)
    one.notifier.set_targets([hook(web)])
    one.look(1)
    assert one.client.hgetall(KEYS.pinged) == {}


def test_a_value_of_somebody_else_is_not_over(daemon, web, wait_until):
    one = daemon("one", ["a"], hook(web))
    one.lead(1)
    one.ended(["a"], FAILURE)
    one.look()
    wait_until(lambda: web.requests)
    one.client.set(KEYS.shard().last_outcome, "a string")
    one.look(4)
    assert len(web.requests) == 1


@pytest.mark.slow
def test_a_node_of_a_cluster_that_is_away_concerns_only_its_entries(cluster, daemon, web, wait_until):
    """Failures and late runs of the others are told; those of its entries neither end nor begin anew."""
    keys = Keys(parts=3)
    names = entry_of_each_shard(3)
    entries = {name: {"ping": f"{web.url}/ping/{name}"} for name in names}
    one = daemon("one", entries, hook(web, on=("failure", "overdue", "recovery")), url=cluster.url, keys=keys)
    one.lead(1)
    one.clock.advance(60)
    one.ended([names[1]], FAILURE)
    one.outcomes.set_overdue({names[1]: 1_790_000_000_000}, [])
    one.look()
    wait_until(lambda: told(web))
    assert {problem["subject"] for problem in told(web)[0]["problems"]} == {names[1]}
    dead = cluster.owner(slot_of(keys.shard(1).lease))
    dead.kill()
    one.ended([names[2]], FAILURE)
    one.outcomes.set_overdue({names[0]: 1_790_000_001_000}, [])
    one.look(6)
    wait_until(lambda: len(told(web)) > 1)
    assert [sorted(problem["subject"] for problem in each["problems"]) for each in told(web)[1:]] == [
        sorted([names[0], names[2]])
    ]
    dead.start()
    wait_until(cluster.settled, 30, "the cluster to be settled")
    one.client.delete(keys.shard(1).overdue)  # it has expired while nobody wrote it
    one.look()
    one.outcomes.set_overdue({names[1]: 1_790_000_000_000}, [])
    one.look()
    assert len(told(web)) == 2
    one.ended(names[1:], SUCCESS)
    one.look()
    wait_until(lambda: len(told(web)) == 3)
    assert told(web)[2]["recovered_count"] == 2


def entry_of_each_shard(shards: int) -> list[str]:
    """Names of entries: the first is in shard 0, and so on."""
    names = [f"e{number}" for number in range(50)]
    return [next(name for name in names if shard_of(name, shards) == shard) for shard in range(shards)]


def told(web: Receiver) -> list[Any]:
    """The messages that the target got, without pings."""
    return [request.json for request in web.requests if request.path == "/hook"]
