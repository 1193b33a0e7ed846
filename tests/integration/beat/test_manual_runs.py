"""Runs that are asked for, as a leader sends them: the whole way through a real store, by a clock that obeys."""

import itertools
from datetime import UTC, datetime

import pytest

from beatd.beat.delivery import DirectDelivery
from beatd.beat.dispatch_log import DispatchLog
from beatd.beat.manual_dispatch import ManualDispatcher
from beatd.beat.manual_runs import ManualRuns
from beatd.beat.message_builder import MessageBuilder
from beatd.beat.term import Term
from beatd.exceptions import StoreUnavailable, TermLost
from beatd.message.protocol import open_envelope
from beatd.model import Entry, Options, Policies, manual_run_id, run_id
from beatd.schedules import parse, parse_blackout
from beatd.store.claims import Claims, Gap
from beatd.store.client import connect
from beatd.store.entry_state import DispatchLookup, Running
from beatd.store.history_reader import Histories
from beatd.store.keys import Keys
from beatd.store.lease import Leases
from beatd.store.run_requests import Backfill, Requests, Trigger
from tests.chaos.ledger import due_ms_of
from tests.fakes import FakeClock

KEYS = Keys("beatd")
HOUR, DAY = 3_600_000, 86_400_000
NOW = 1_789_948_800_000 + HOUR // 2  # half past midnight, UTC


class Queues:
    """What the delivery asks of a broker."""

    def __init__(self, client):
        self._client = client

    def depth(self, queue):
        return self._client.llen(queue)


class UnheardRequests(Requests):
    """Requests of which the answers to some steps are lost after the store has taken them."""

    def __init__(self, client, keys, lost=()):
        super().__init__(client, keys)
        self._steps, self._lost = itertools.count(), lost

    def step(self, *args, **kwargs):
        taken = super().step(*args, **kwargs)
        if next(self._steps) in self._lost:
            raise StoreUnavailable("the answer was lost")
        return taken


class Rig:
    """A leader over a real store; ``start`` is another one, which knows nothing but the store."""

    def __init__(self, client):
        self.client, self.clock = client, FakeClock(NOW)
        self.leases = Leases(client, KEYS, daemon_id="d1", ttl_ms=600_000)
        self.requests = Requests(client, KEYS)
        self.entries = {}
        self.token = None
        self.start()

    def start(self, lost_answers=()):
        if self.token:
            self.leases.release({0: self.token})
        self.token = self.leases.take([0])[0]
        self.term = Term(self.token, self.leases.value(self.token), 1e18)
        self.claims = Claims(self.client, KEYS)
        messages, delivery = MessageBuilder("celery", origin="test"), DirectDelivery(Queues(self.client))
        requests, running = UnheardRequests(self.client, KEYS, lost_answers), Running(self.client, KEYS)
        manual_dispatcher = ManualDispatcher(
            requests, messages, delivery, running, report=DispatchLog(), clock=self.clock
        )
        self.manual = ManualRuns(manual_dispatcher, DispatchLookup(self.client, KEYS), owns=lambda _: True)

    def put(self, name="a", schedule="0 * * * *", *, first_seen_ms=NOW - HOUR // 4, options=None, **policies):
        entry = Entry(
            name=name,
            task="t",
            schedule=parse(schedule, name=name),
            options=options or Options(),
            policies=Policies(**policies),
        )
        self.entries[name] = entry
        pairs = [(name, entry.schedule.fingerprint)]
        list(self.claims.load_entries(pairs, lease_value=self.term.lease_value, now_ms=first_seen_ms))
        return entry

    def turn(self):
        return self.manual.turn(self.term, self.entries.get)

    def ask(self, request, request_id="r"):
        self.requests.ask(request_id, request, good_for_ms=60_000)
        self.manual.look_at_next_turn()
        self.turn()
        return self.requests.answer(request_id)

    def answer(self, request_id="r", seconds=100.0):
        """The last answer, after as many turns as it takes."""
        until = self.clock.mono + seconds
        while (answer := self.requests.answer(request_id)) is None or answer.state == "under_way":
            assert self.clock.mono < until, f"no end: {answer}"
            self.clock.advance(max(self.turn(), 0.001))
        return answer

    def fill(self, request_id="r", **given):
        self.ask(window(**given), request_id)
        return self.answer(request_id)

    def sent(self, queue="celery"):
        return [open_envelope(raw) for raw in reversed(self.client.lrange(queue, 0, -1))]

    def dues(self):
        """Due times (hours before midnight of the day) of what was sent, in its order."""
        return [(due_ms_of(one.headers["beatd-due-at"]) - NOW + HOUR // 2) / HOUR for one in self.sent()]


def window(entry="a", hours=24, **given):
    facts = {"from_ms": NOW - HOUR // 2 - hours * HOUR, "to_ms": NOW, "rate": 1_000.0, "at_most": 100}
    return Backfill(entry=entry, **facts | given)


@pytest.fixture
def rig(redis_url):
    with connect(redis_url) as client:
        yield Rig(client)


def test_a_triggered_run_leaves_at_once_and_moves_nothing(rig):
    rig.put()
    before = rig.client.hgetall(KEYS.shard().last_due), rig.client.hgetall(KEYS.shard().runs)
    answer = rig.ask(Trigger(entry="a", by="me@here"))
    [message] = rig.sent()
    assert answer.run_id == message.id == manual_run_id("a", "r")
    assert due_ms_of(message.headers["beatd-due-at"]) == NOW
    assert (rig.client.hgetall(KEYS.shard().last_due), rig.client.hgetall(KEYS.shard().runs)) == before
    [record] = Histories(rig.client, KEYS).of(["a"])
    assert (record.kind, record.run_id, record.due_ms) == ("triggered", message.id, NOW)
    assert not rig.client.exists(KEYS.shard().requests)


def test_it_may_have_other_arguments_and_another_queue(rig):
    rig.put(options=Options(exchange="events", routing_key="x", priority=3))
    rig.ask(Trigger(entry="a", args="[1, 2]", kwargs='{"x": 3}', queue="other"))
    [message] = rig.sent("other\x06\x163")
    assert message.body.startswith(b'[[1,2],{"x":3},')


def test_the_same_request_sends_once(rig):
    rig.put()
    first = rig.ask(Trigger(entry="a"))
    rig.start()
    assert rig.ask(Trigger(entry="a")) == first
    assert len(rig.sent()) == 1


def test_a_request_that_seemed_to_fail_is_not_carried_out_twice(rig):
    """The step was taken, and its answer lost on the way."""
    rig.put()
    requests = rig.requests
    requests.ask("r", Trigger(entry="a"), good_for_ms=60_000)
    [asked] = requests.open()
    rig.turn()
    rig.manual._trigger(asked, asked.request, rig.term, rig.entries.get)
    assert len(rig.sent()) == 1


def test_what_was_withdrawn_is_not_sent(rig):
    rig.put()
    rig.requests.ask("r", Trigger(entry="a"), good_for_ms=60_000)
    assert rig.requests.withdraw("r") == (True, None)
    assert rig.requests.withdraw("r") == (False, None)
    rig.turn()
    assert rig.sent() == []


def test_what_nobody_took_up_in_time_is_not_sent(rig):
    rig.put()
    rig.requests.ask("r", Trigger(entry="a"), good_for_ms=0)
    rig.turn()
    assert rig.sent() == []
    assert not rig.client.exists(KEYS.shard().requests)


def test_what_is_no_request_is_thrown_away(rig):
    rig.put()
    later = NOW * 2
    rig.client.hset(
        KEYS.shard().requests, mapping={"a": "nonsense", "b": f'{later} {{"what": "explode"}}', "c": b"\xff \xff"}
    )
    rig.ask(Trigger(entry="a"))
    assert len(rig.sent()) == 1
    assert not rig.client.exists(KEYS.shard().requests)


def refusals(caplog):
    """Who was refused, and why, as the log has it."""
    refused = [record for record in caplog.records if record.event == "request_refused"]
    assert all(record.getMessage() == f"Refused a request for {record.entry}: {record.reason}" for record in refused)
    return [(record.entry, record.request, record.reason) for record in refused]


def test_an_unknown_entry_is_refused_and_may_be_asked_for_again(rig, caplog):
    answer = rig.ask(Trigger(entry="a"))
    assert (answer.state, answer.unknown) == ("refused", True)
    assert refusals(caplog) == [("a", "r", answer.message)]
    rig.put()
    assert rig.ask(Trigger(entry="a")).state == "done"


@pytest.mark.parametrize(
    ("options", "request_", "words"),
    [
        (Options(), Trigger(entry="a", queue="foreign"), "WRONGTYPE"),
        (Options(), Trigger(entry="a", args="not JSON"), "not a JSON document"),
        (Options(), Trigger(entry="a", kwargs="17"), "failed at it"),
    ],
)
def test_what_is_wrong_with_one_request_hinders_no_other(rig, options, request_, words, caplog):
    rig.put(options=options)
    rig.client.set("foreign", "mine")
    rig.requests.ask("bad", request_, good_for_ms=60_000)
    rig.ask(Trigger(entry="a"))
    bad = rig.requests.answer("bad")
    assert bad.state == "refused"
    assert words in bad.message
    assert len(rig.sent()) == 1
    assert ("request_failed" in {record.event for record in caplog.records}) == (words == "failed at it")


def test_requests_that_cannot_be_read_keep_regular_runs_from_nothing(rig, caplog):
    rig.put()
    rig.client.set(KEYS.shard().requests, "mine")
    assert rig.turn() > 1
    assert [record.event for record in caplog.records] == ["requests_unreadable"]
    rig.client.delete(KEYS.shard().requests)
    assert rig.ask(Trigger(entry="a")).state == "done"


def test_many_triggers_are_no_reason_to_be_late(rig):
    rig.put()
    for number in range(120):
        rig.requests.ask(f"r{number}", Trigger(entry="a"), good_for_ms=60_000)
    assert (rig.turn(), len(rig.sent())) == (0.0, 50)
    rig.turn()
    assert rig.turn() > 0
    assert len({one.id for one in rig.sent()}) == 120


def test_a_leader_that_is_one_again_believes_the_store(rig):
    """Another has dealt with the rest while this one did not lead."""
    rig.put()
    rig.ask(window(rate=10.0, hours=5))
    rig.clock.advance(max(rig.turn(), 0.2))
    first = rig.manual
    rig.start()
    rig.answer()
    rig.manual = first
    rig.turn()
    assert rig.dues() == list(range(-5, 1))


def test_an_old_term_sends_nothing(rig):
    rig.put()
    rig.leases.release({0: rig.token})
    rig.requests.ask("r", Trigger(entry="a"), good_for_ms=60_000)
    with pytest.raises(TermLost):
        rig.turn()
    assert rig.sent() == []
    rig.token = None
    rig.start()
    assert rig.ask(Trigger(entry="a")).state == "done"


def test_a_window_is_sent_in_order_under_the_ids_that_its_runs_have(rig):
    rig.put()
    answer = rig.fill()
    assert (answer.state, answer.total, answer.sent) == ("done", 25, 25)
    assert rig.dues() == list(range(-24, 1))
    assert [one.id for one in rig.sent()] == [run_id("a", NOW - HOUR // 2 + n * HOUR) for n in range(-24, 1)]


def test_the_same_window_twice_sends_nothing_twice(rig):
    rig.put()
    rig.fill("r1")
    again = rig.fill("r2", hours=30)
    assert (again.sent, again.left_out) == (6, {"sent_before": 25})
    assert len(set(rig.dues())) == len(rig.dues()) == 31


@pytest.mark.parametrize("step", range(1, 8))
def test_a_leader_that_dies_leaves_the_rest_to_the_next(rig, step):
    """After any number of steps, and a rate that makes each of them one run."""
    rig.put()
    rig.requests.ask("r", window(rate=10.0, hours=5), good_for_ms=60_000)
    for _ in range(step):
        rig.clock.advance(max(rig.turn(), 0.001))
    rig.start()
    answer = rig.answer()
    assert (answer.total, answer.sent) == (6, 6)
    assert rig.dues() == list(range(-5, 1))


def test_a_step_of_which_nobody_heard_is_not_taken_again(rig):
    rig.put()
    rig.start(lost_answers={1, 2, 4})
    rig.requests.ask("r", window(rate=10.0, hours=5), good_for_ms=60_000)
    for _ in range(200):
        try:
            rig.clock.advance(max(rig.turn(), 0.001))
        except StoreUnavailable:
            rig.clock.advance(0.1)
    assert rig.requests.answer("r").sent == 6
    assert rig.dues() == list(range(-5, 1))


def test_the_pace_is_kept(rig, caplog):
    caplog.set_level("INFO")
    rig.put("a", "* * * * *", first_seen_ms=NOW)
    begun = rig.clock.mono
    rig.fill(rate=5.0, hours=1, at_most=1_000)
    assert len(rig.sent()) == 90
    assert 17.5 < rig.clock.mono - begun < 23.0  # with the sleep after the last one
    said = [record.event for record in caplog.records if record.event.startswith("backfill")]
    assert said == ["backfill_began", "backfill_done"]


def test_a_turn_sends_a_bounded_number_so_that_regular_runs_get_theirs(rig):
    rig.put("a", "* * * * *", first_seen_ms=NOW)
    rig.ask(window(rate=10_000.0, hours=24, at_most=5_000))
    seen = [0]
    while rig.requests.answer("r").state == "under_way":
        rig.clock.advance(max(rig.turn(), 0.01))
        seen.append(len(rig.sent()))
    assert max(later - earlier for earlier, later in itertools.pairwise(seen)) <= 100
    assert seen[-1] == 24 * 60 + 30


def test_too_large_a_window_is_refused_and_nothing_sent(rig):
    rig.put("a", "* * * * * *")
    answer = rig.fill(at_most=5_000)
    assert (answer.state, answer.sent) == ("refused", 0)
    assert "more than 5,000 runs" in answer.message
    assert rig.sent() == []


def test_what_the_schedule_sent_is_left_out(rig):
    """Seen for ten hours; claimed up to the last hour, but for a stretch that was missed."""
    rig.put(first_seen_ms=NOW - HOUR // 4 - 10 * HOUR)
    midnight = NOW - HOUR // 2
    claims, lease = rig.claims, {"lease_value": rig.term.lease_value}
    claims.pass_over([Gap("a", midnight - 5 * HOUR, midnight - 2 * HOUR)], **lease)
    rig.client.hset(KEYS.shard().last_due, "a", midnight - HOUR)
    answer = rig.fill(hours=12)
    assert answer.left_out == {"dispatched": 7, "to_come": 1}
    assert rig.dues() == [-12, -11, -10, -4, -3]


def test_what_comes_by_itself_is_left_out_unless_the_entry_is_off(rig):
    rig.put(first_seen_ms=NOW - 3 * HOUR)
    assert rig.fill("r1", hours=2).left_out == {"to_come": 3}
    rig.put(first_seen_ms=NOW - 3 * HOUR, enabled=False)
    assert rig.fill("r2", hours=2).sent == 3


def test_runs_that_catch_up_has_passed_over_do_not_come_by_themselves(rig):
    rig.put(first_seen_ms=NOW - HOUR // 4 - 10 * HOUR)
    last_due_ms = NOW - HOUR // 2 - 5 * HOUR
    rig.client.hset(KEYS.shard().last_due, "a", last_due_ms)
    rig.claims.pass_over([Gap("a", last_due_ms, last_due_ms + 3 * HOUR)], lease_value=rig.term.lease_value)
    assert rig.fill(hours=4).left_out == {"to_come": 3}
    assert rig.dues() == [-4, -3]


def test_runs_that_are_not_due_yet_are_not_sent_though_the_entry_is_off(rig):
    rig.put(enabled=False)
    assert rig.fill(hours=1, to_ms=NOW + 3 * HOUR).left_out == {"to_come": 3}
    assert rig.dues() == [-1, 0]


def test_runs_that_are_not_due_yet_are_not_sent_after_a_clock_was_ahead(rig):
    """It passed over them; now that it is set right they come by themselves."""
    rig.put(first_seen_ms=NOW - HOUR // 4 - 10 * HOUR)
    rig.claims.pass_over([Gap("a", NOW - HOUR // 2, NOW + 9 * HOUR)], lease_value=rig.term.lease_value)
    rig.client.hset(KEYS.shard().last_due, "a", NOW + 10 * HOUR)
    assert rig.fill(hours=0, to_ms=NOW + 3 * HOUR).left_out == {"dispatched": 1, "to_come": 3}
    assert rig.dues() == []


def test_force_sends_again_under_other_ids(rig):
    rig.put()
    rig.fill("r1", hours=3)
    again = rig.fill("r2", hours=3, force=True)
    assert again.sent == 4
    assert rig.dues() == [-3, -2, -1, 0] * 2
    assert len({one.id for one in rig.sent()}) == 8


def test_a_dry_run_sends_nothing_and_says_what_would_be(rig):
    rig.put()
    answer = rig.fill(dry_run=True)
    assert (answer.total, answer.sent, len(answer.dues_ms)) == (25, 25, 25)
    assert answer.dues_ms[0] == NOW - HOUR // 2 - DAY
    assert rig.sent() == []
    assert not rig.client.keys(KEYS.shard().sent + "*")


def test_a_blackout_is_a_reason(rig):
    rig.put(blackout=parse_blackout(["22:00-23:30"], timezone="UTC"))
    answer = rig.fill(hours=4)
    assert (answer.sent, answer.left_out) == (3, {"blackout": 2})
    assert rig.dues() == [-4, -3, 0]


def test_automatic_expiry_counts_from_now(rig):
    rig.put(options=Options(expires="auto"))
    rig.fill(hours=1)
    assert {due_ms_of(one.headers["expires"]) - NOW for one in rig.sent()} <= set(range(HOUR, HOUR + 5_000))
    rig.put("b", options=Options(expires=datetime(2020, 1, 1, tzinfo=UTC)))
    answer = rig.fill("r2", entry="b", hours=1)
    assert (answer.state, "which is past" in answer.message) == ("refused", True)


def test_one_after_the_other(rig):
    """queue_one waits for the end of the run before; here it ends when a worker says so."""
    rig.put(overlap="queue_one")
    rig.ask(window(hours=2))
    for number in range(3):
        for _ in range(20):
            rig.clock.advance(max(rig.turn(), 0.05))
        assert len(rig.sent()) == number + 1
        rig.client.set((KEYS.shard().finished + rig.sent()[-1].id), "SUCCESS 1")
    assert rig.answer().sent == 3


def test_skip_leaves_out_what_comes_too_early(rig):
    rig.put()
    answer = rig.fill(hours=2, overlap="skip")
    assert (answer.sent, answer.left_out) == (1, {"overlap": 2})


def test_a_full_queue_is_waited_for(rig):
    rig.put(max_queue_depth=2)
    rig.ask(window(hours=4))
    for _ in range(20):
        rig.clock.advance(max(rig.turn(), 0.05))
    assert rig.client.llen("celery") == 2
    rig.client.delete("celery")
    for _ in range(20):
        rig.clock.advance(max(rig.turn(), 0.05))
    assert rig.client.llen("celery") == 2
    rig.client.delete("celery")
    assert rig.answer().sent == 5


def test_windows_take_turns(rig):
    for name in "ab":
        rig.put(name)
        rig.requests.ask(name, window(entry=name, rate=20.0), good_for_ms=60_000)
    rig.answer("a")
    both = [one.headers["beatd-entry"] for one in rig.sent()]
    assert both.count("b") > 20


def test_an_entry_that_goes_away_ends_its_window(rig, caplog):
    rig.put()
    rig.ask(window(rate=1.0))
    for _ in range(10):
        rig.clock.advance(max(rig.turn(), 0.05))
    rig.entries.clear()
    answer = rig.answer()
    assert (answer.state, answer.unknown) == ("refused", True)
    assert 0 < answer.sent < 25
    assert refusals(caplog) == [("a", "r", answer.message)]


def test_a_changed_entry_goes_on_where_it_was(rig):
    rig.put()
    rig.ask(window(rate=1.0))
    while len(rig.sent()) < 5:
        rig.clock.advance(max(rig.turn(), 0.05))
    rig.put(options=Options(queue="other"))
    rig.answer()
    assert len(rig.sent()) + len(rig.sent("other")) == 25
    assert len(rig.sent("other")) >= 19
