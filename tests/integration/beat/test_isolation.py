"""Whatever one entry is, says, holds or points at, the others run on time; the bad one is named, and tried again.

A beat over a real Redis and under a clock that moves when told: a healthy entry beside hundreds of bad ones.
"""

import logging
import random

import pytest
import redis
from msgspec import structs

from beatd.beat.active_schedule import SWEEP_EVERY_MS
from beatd.beat.delivery import DirectDelivery, OutboxDelivery
from beatd.beat.dispatcher import Dispatcher
from beatd.beat.heap import DueHeap
from beatd.beat.held import Held
from beatd.beat.loop import ShardLoop
from beatd.beat.manual_dispatch import ManualDispatcher
from beatd.beat.manual_runs import ManualRuns
from beatd.beat.message_builder import MessageBuilder
from beatd.beat.term import Leadership, Term
from beatd.broker.redis import RedisPublisher
from beatd.exceptions import StoreRefused
from beatd.message.protocol import open_envelope
from beatd.model import Entry, Options, Policies
from beatd.schedules import parse
from beatd.store.claims import Claims
from beatd.store.client import connect
from beatd.store.entry_state import DispatchLookup, Running
from beatd.store.held_back import HeldBack
from beatd.store.keys import Keys
from beatd.store.lease import Leases
from beatd.store.outbox import Outbox
from beatd.store.results import result_key
from beatd.store.run_requests import Requests
from beatd.store.server_check import foreign_by_entry, foreign_keys
from beatd.timestamps import LAST_MS
from tests.chaos.ledger import due_ms_of
from tests.fakes import FakeClock

KEYS = Keys("t")
SHARD = KEYS.shard()
START_MS = 1_790_000_000_000
GOOD = Entry(name="good", task="t", schedule=parse(1.0), options=Options(queue="good"))


class Raising:
    """A schedule that is none."""

    notation, fingerprint = "raising", "raising"

    def __init__(self, after=0, error=ZeroDivisionError):
        self.calls, self.after, self.error = 0, after, error

    def next_after_ms(self, t_ms, /):
        self.calls += 1
        if self.calls > self.after:
            raise self.error("no such time")
        return t_ms + 500


class Odd:
    """A schedule whose answers are of no use."""

    notation, fingerprint = "odd", "odd"

    def __init__(self, answer):
        self.answer = answer

    def next_after_ms(self, t_ms, /):
        return self.answer(t_ms) if callable(self.answer) else self.answer


class WithoutFingerprint:
    """A schedule for which the store can be told nothing."""

    notation = "none"

    @property
    def fingerprint(self):
        raise ValueError("no fingerprint")


class Hostile:
    def __repr__(self):
        raise RuntimeError("no repr")

    def __eq__(self, other):
        raise RuntimeError("no comparison")

    __hash__ = None


class Bench:
    """A beat of one shard, over a real store."""

    def __init__(self, url):
        self.clock = FakeClock(START_MS)
        self.client = connect(url, timeout_ms=120_000)  # a machine under load is not what is tested here
        self.admin = redis.Redis.from_url(url)
        self.leases = Leases(self.client, KEYS, daemon_id="d", ttl_ms=3_600_000)
        self.held_back = HeldBack(self.client, KEYS)
        self.begin()

    def begin(self):
        seat = Leadership(self.clock, 0)
        token = self.leases.take([0])[0]
        seat.begin(Term(token, self.leases.value(token), 1e18))
        claims, messages, running = Claims(self.client, KEYS), MessageBuilder("celery"), Running(self.client, KEYS)
        publisher = RedisPublisher(self.admin_url)
        outbox = Outbox(self.client, KEYS)
        delivery = DirectDelivery(publisher, OutboxDelivery(outbox, publisher, self.clock))
        held = Held(self.held_back)
        self.dispatcher = Dispatcher(claims, messages, delivery, running, self.clock, held=held)
        requests = Requests(self.client, KEYS)
        manual_dispatcher = ManualDispatcher(
            requests, messages, delivery, running, report=self.dispatcher.report, clock=self.clock
        )
        self.beat = ShardLoop(
            clock=self.clock,
            leadership=seat,
            claims=claims,
            dispatcher=self.dispatcher,
            heap=DueHeap(),
            manual=ManualRuns(manual_dispatcher, DispatchLookup(self.client, KEYS), owns=lambda name: True),
        )

    @property
    def admin_url(self):
        options = self.admin.connection_pool.connection_kwargs
        return f"redis://{options['host']}:{options['port']}/{options['db']}"

    def run_for(self, seconds):
        until = self.clock.mono + seconds
        while self.clock.mono < until:
            pause = self.beat.turn()
            self.clock.advance(min(max(pause, 0.001), until - self.clock.mono))

    def dues(self, queue="good"):
        raws = self.admin.lrange(queue, 0, -1)[::-1]
        return [due_ms_of(open_envelope(raw).headers["beatd-due-at"]) - START_MS for raw in raws]

    def runs(self, queue="good"):
        messages = [open_envelope(raw).headers for raw in self.admin.lrange(queue, 0, -1)[::-1]]
        return [(due_ms_of(one["beatd-due-at"]) - START_MS, one["beatd-entry"]) for one in messages]

    def assert_good_ran(self, seconds):
        assert self.dues() == [1_000 * number for number in range(1, seconds + 1)]

    def noted(self):
        """The entries that are held back, once the store has been told of all of them."""
        for _ in range(20):
            self.run_for(0.01)
            held = self.held_back.all()
            if len(held) == self.beat.held:
                return held
            self.run_for(0.25)
        raise AssertionError(f"{self.beat.held} entries are held back, and {len(held)} are noted")


class AsciiRecord(logging.LogRecord):
    """A log record whose text can be reported: test runners refuse the surrogates that some names here have."""

    def getMessage(self):
        return super().getMessage().encode("ascii", "backslashreplace").decode()


@pytest.fixture(autouse=True)
def ascii_log():
    before = logging.getLogRecordFactory()
    logging.setLogRecordFactory(AsciiRecord)
    yield
    logging.setLogRecordFactory(before)


@pytest.fixture
def bench(redis_url):
    bench = Bench(redis_url)
    yield bench
    bench.client.close()
    bench.admin.close()


def bad_fields(random_one):
    """One entry whose fields are each as bad as can be."""
    odd = [
        None,
        5,
        -1,
        "x",
        "\udcff",
        b"\xff",
        10**30,
        -(10**30),
        float("nan"),
        [],
        {},
        object(),
        Hostile(),
        "x" * 10**6,
    ]
    pick = random_one.choice
    schedules = [
        Raising(),
        Raising(3),
        Raising(0, RecursionError),
        Odd("x"),
        Odd(0),
        Odd(lambda t: t),
        Odd(10**30),
        Odd(-5),
        Odd(LAST_MS + 1_000),
        None,
        5,
        parse(1.0),
        parse(0.5),
    ]
    field = pick(["schedule", "schedule", "name", "task", "args", "kwargs", "options", "policies", "option", "policy"])
    changes = {"schedule": pick([parse(1.0), parse(0.5)])}
    if field == "schedule":
        changes["schedule"] = pick(schedules)
    elif field == "name":
        changes["name"] = f"odd \udcff {random_one.random()}"
    elif field == "option":
        changes["options"] = structs.replace(Options(), **{pick(Options.__struct_fields__): pick(odd)})
    elif field == "policy":
        which = pick([name for name in Policies.__struct_fields__ if name != "enabled"])
        changes["policies"] = structs.replace(Policies(), **{which: pick(odd)})
    else:
        changes[field] = pick(odd)
    return changes


@pytest.mark.parametrize("seed", range(3))
def test_hundreds_of_random_bad_entries_beside_a_healthy_one(bench, seed):
    drawn = random.Random(seed)
    bench.admin.hset("badq", "a", "1")
    bad = []
    for number in range(250):
        entry = structs.replace(GOOD, name=f"bad{number}", options=Options(queue=drawn.choice(["q", "badq"])))
        bad.append(structs.replace(entry, **bad_fields(drawn)))
    bad += [
        structs.replace(GOOD, name="wrong queue", options=Options(queue="badq")),
        structs.replace(GOOD, name="raises", schedule=Raising()),
        structs.replace(GOOD, name="no options", options=None),
        structs.replace(GOOD, name="no policies", policies=None),
    ]
    for number in range(60):
        name = f"state{number}"
        minds = Policies(overlap=drawn.choice(["skip", "queue_one", "allow"]))
        bad.append(structs.replace(GOOD, name=name, options=Options(queue="q"), policies=minds))
        key = drawn.choice([SHARD.last_due, SHARD.fingerprints, SHARD.runs, SHARD.gaps, SHARD.running, SHARD.tally])
        bench.admin.hset(
            key, name, drawn.choice([b"\xff", "x", "-1", "nan", "9" * 5_000, "1 2 3", "9" * 15, "y " * 99])
        )
        if drawn.random() < 0.3:
            bench.admin.hset(KEYS.history(name), "a", "1")
    entries = [*bad, GOOD]
    drawn.shuffle(entries)
    bench.beat.schedule.replace(entries)
    bench.run_for(12.5)
    bench.assert_good_ran(12)
    held = bench.noted()
    assert "good" not in held
    assert "badq" in held["wrong queue"].reason
    assert "ZeroDivisionError" in held["raises"].reason
    assert held.keys() >= {"no options", "no policies"}
    assert bench.beat.oldest_due_ms > bench.clock.ms - 1_500


def test_many_entries_of_one_bad_queue_come_back_together(bench):
    bench.admin.hset("badq", "a", "1")
    bad = [structs.replace(GOOD, name=f"bad{number}", options=Options(queue="badq")) for number in range(1_200)]
    bench.beat.schedule.replace([*bad, GOOD])
    bench.run_for(40)
    bench.assert_good_ran(40)
    assert bench.beat.held == bench.held_back.count() == 1_200
    note = bench.held_back.read(["bad7"])["bad7"]
    assert "WRONGTYPE" in note.reason
    assert "badq" in note.reason
    assert (note.since_ms - START_MS) // 1_000 == 1
    assert note.attempts > 3
    bench.admin.delete("badq")
    bench.run_for(62)
    assert (bench.beat.held, bench.held_back.count()) == (0, 0)
    bench.admin.delete("badq")
    bench.run_for(5)
    assert bench.admin.llen("badq") == 5 * 1_200
    bench.assert_good_ran(107)
    bench.admin.delete("badq")


def test_a_bad_entry_that_is_taken_out_during_an_outage_is_held_back_no_more(bench):
    bench.admin.hset("badq", "a", "1")
    bench.beat.schedule.replace([structs.replace(GOOD, name="bad", options=Options(queue="badq")), GOOD])
    bench.run_for(5)
    assert bench.noted().keys() == {"bad"}
    bench.beat.schedule.replace([GOOD])
    bench.clock.advance(60)  # nothing left for so long that catch-up decides about all entries anew
    bench.run_for(2)
    assert bench.noted() == {}
    assert bench.dues()[-1] >= 66_000


def test_it_is_tried_again_with_growing_pauses_and_said_seldom(bench, caplog):
    caplog.set_level("INFO", "beatd.beat")
    bench.beat.schedule.replace([structs.replace(GOOD, name="bad", schedule=Raising()), GOOD])
    bench.run_for(600)
    failed = [record for record in caplog.records if getattr(record, "event", "") == "entry_failed"]
    assert [record.attempts for record in failed] == [1, 4]
    assert "ZeroDivisionError: no such time" in failed[0].getMessage()
    assert 12 <= bench.held_back.read(["bad"])["bad"].attempts <= 17
    bench.beat.schedule.amend({"bad": structs.replace(GOOD, name="bad", options=Options(queue="q"))}, ())
    bench.run_for(2.5)
    assert [record.entry for record in caplog.records if getattr(record, "event", "") == "entry_recovered"] == ["bad"]
    assert bench.held_back.all() == {}
    bench.assert_good_ran(602)


def test_an_entry_without_state_does_not_hide_one_that_left_the_schedule(bench):
    bench.beat.schedule.replace([structs.replace(GOOD, name="left"), GOOD])
    bench.run_for(2)
    bench.beat.schedule.replace([structs.replace(GOOD, name="bad", schedule=WithoutFingerprint()), GOOD])
    bench.run_for(2)
    assert bench.beat.held == 1
    bench.clock.advance(SWEEP_EVERY_MS / 1000)
    bench.run_for(2)
    assert bench.admin.zrange(SHARD.gone, 0, -1) == [b"left"]


def test_for_an_entry_that_is_held_back_and_has_state_no_names_are_read(bench):
    bench.admin.hset("badq", "a", "1")
    bench.beat.schedule.replace([structs.replace(GOOD, name="bad", options=Options(queue="badq")), GOOD])
    bench.run_for(2)
    assert bench.beat.held == 1
    before = bench.admin.info("commandstats").get("cmdstat_hkeys", {"calls": 0})["calls"]
    bench.clock.advance(SWEEP_EVERY_MS / 1000)
    bench.run_for(2)
    assert bench.admin.info("commandstats").get("cmdstat_hkeys", {"calls": 0})["calls"] == before


@pytest.mark.parametrize(
    "result", [b"\x80\x04K\x01.", "[1]", "{}", '{"status": []}', "x", '{"status": {}}', "[" * 10_000]
)
def test_a_result_that_nobody_can_read_counts_as_ended(bench, caplog, result):
    bench.beat.schedule.replace([structs.replace(GOOD, policies=Policies(overlap="skip"))])
    bench.run_for(1.5)
    [raw] = bench.admin.lrange("good", 0, -1)
    bench.admin.set(result_key(open_envelope(raw).headers["id"]), result)
    bench.run_for(1)
    assert bench.dues() == [1_000, 2_000]
    said = [record for record in caplog.records if getattr(record, "event", "") == "running_unreadable"]
    assert [record.entry for record in said] == ["good"]


@pytest.mark.parametrize("key", ["last_due", "runs", "claims"])
def test_a_refusal_of_everything_holds_nobody_back_and_is_seen(bench, key):
    bench.beat.schedule.replace([structs.replace(GOOD, name=f"other{number}") for number in range(50)] + [GOOD])
    bench.run_for(2.5)
    bench.admin.rename(getattr(SHARD, key), "kept") if bench.admin.exists(getattr(SHARD, key)) else None
    bench.admin.lpush(getattr(SHARD, key), "mine")
    bench.run_for(10)
    assert bench.beat.oldest_due_ms <= bench.clock.ms - 9_000
    assert bench.beat.held == 0
    bench.admin.delete(getattr(SHARD, key))
    bench.admin.rename("kept", getattr(SHARD, key)) if bench.admin.exists("kept") else None
    bench.run_for(3)
    assert bench.beat.oldest_due_ms > bench.clock.ms - 1_500
    assert len(bench.admin.get(KEYS.history("good"))) <= 20 * 20


@pytest.mark.parametrize("key", ["gaps", "limits", "outbox", "tally", "running", "held", "gone"])
@pytest.mark.parametrize("kind", ["string", "list or hash"])
def test_a_key_that_no_run_needs_keeps_none_back(bench, caplog, key, kind):
    """What is remembered for people, for clocks that were ahead, or for another broker."""
    key = getattr(SHARD, key)
    missing = structs.replace(GOOD, name="missing", policies=Policies(catch_up="none"))
    others = [structs.replace(GOOD, name=f"other{number}") for number in range(50)]
    bench.beat.schedule.replace([*others, missing, GOOD])
    bench.run_for(2.5)
    bench.admin.delete(key)
    if kind == "string":
        bench.admin.set(key, "mine")
    elif key == SHARD.outbox:
        bench.admin.hset(key, "mine", "1")
    else:
        bench.admin.lpush(key, "mine")
    bench.run_for(3)  # as it is
    bench.begin()  # another leader, and entries that are changed, resumed and new
    changed = [structs.replace(GOOD, name=f"other{number}", schedule=parse(2.0)) for number in range(9)]
    bench.beat.schedule.replace([*changed, structs.replace(GOOD, name="new"), missing, GOOD])
    bench.clock.advance(60)  # nobody led, so that runs were missed
    bench.run_for(13.5)
    good = [due for due, name in bench.runs() if name == "good"]
    assert sorted(set(good)) == good
    assert {*range(1_000, 6_000, 1_000), *range(66_000, 79_000, 1_000)} <= {*good}
    assert {due for due, name in bench.runs() if name == "new"} >= {*range(66_500, 79_000, 1_000)}
    assert bench.beat.held == 0
    assert bench.beat.problem is None
    if key in (SHARD.gaps, SHARD.outbox):
        assert foreign_keys(bench.client, KEYS, shards=1, by_entry=foreign_by_entry)[0].startswith(
            f"the key {key} is a "
        )
        assert key in caplog.text
    if key == SHARD.gaps:
        assert "gaps_unwritten" in {getattr(record, "event", None) for record in caplog.records}


def test_a_former_outbox_that_is_none_keeps_no_run_back(bench):
    bench.admin.set(KEYS.shard(3).outbox, "mine")
    bench.admin.lpush(KEYS.shard(5).outbox, "no message")
    bench.beat.schedule.replace([GOOD])
    bench.run_for(5.5)
    bench.assert_good_ran(5)
    assert bench.admin.llen(KEYS.named("dead_letters")) == 1
    assert not bench.admin.exists(KEYS.shard(5).outbox)


@pytest.mark.parametrize("value", [b"garbage", b"", b"d:", b"\xff"])
def test_a_lease_that_is_garbage_ends_the_term_and_no_more(bench, value):
    bench.beat.schedule.replace([GOOD])
    bench.run_for(2.5)
    bench.admin.set(SHARD.lease, value)
    bench.run_for(2)
    assert bench.dues() == [1_000, 2_000]
    bench.admin.delete(SHARD.lease)
    bench.begin()
    bench.beat.schedule.replace([GOOD])
    bench.run_for(3)
    bench.assert_good_ran(7)


class Refusing:
    """Claims that a store refuses without a reason of its own, if one of some entries is in the batch."""

    def __init__(self, claims, bad):
        self._claims, self._bad, self.calls = claims, bad, 0

    def __getattr__(self, name):
        return getattr(self._claims, name)

    def claim(self, batches, *, lease_value):
        def counted():
            for batch in batches:
                self.calls += 1
                if any(one.name in self._bad for one in batch):
                    raise StoreRefused("no reason at all")
                yield batch

        return self._claims.claim(counted(), lease_value=lease_value)


@pytest.mark.parametrize("bad", [{"e77"}, {"e0", "e1999"}, {"e3", "e500", "e501", "e1200"}])
def test_an_unexplained_refusal_is_found_in_few_calls(bench, bad):
    entries = [structs.replace(GOOD, name=f"e{number}") for number in range(2_000)]
    bench.dispatcher._claims = claims = Refusing(bench.dispatcher._claims, bad)
    bench.beat.schedule.replace(entries)
    bench.run_for(1.5)
    assert bench.admin.llen("good") == 2_000 - len(bad)
    assert set(bench.held_back.all()) == bad
    assert claims.calls <= 30 + len(bad) * 2 * 10
