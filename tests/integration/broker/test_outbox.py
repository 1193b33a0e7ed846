"""From the outbox to the broker: in order, in batches, once; and nothing in it can stand in the way of the rest."""

import json

import pytest

from beatd.beat.delivery import FLUSH_AT_MOST, LOOK_AGAIN, DirectDelivery, OutboxDelivery
from beatd.beat.dispatch_log import ONE_BY_ONE, DispatchLog
from beatd.beat.message_builder import MessageBuilder
from beatd.beat.term import Term
from beatd.broker import Refused
from beatd.broker.redis import RedisPublisher
from beatd.exceptions import BrokerError, StoreUnavailable, TermLost
from beatd.message.protocol import envelope, open_envelope
from beatd.metrics.counters import REFUSED, SENT, DaemonCounters, Outcome
from beatd.model import Entry, Options, Policies, Run, manual_run_id
from beatd.schedules import parse
from beatd.store import history
from beatd.store.client import connect
from beatd.store.entry_state import DispatchLookup, Running
from beatd.store.history_reader import Histories
from beatd.store.keys import Keys
from beatd.store.outbox import Outbox, holds
from beatd.store.outcomes import Ended
from beatd.store.worker_state import FinishedRuns
from tests.fakes import NOW, FakeClock
from tests.integration.broker.conftest import parcel

KEYS = Keys("beatd")
ENTRY = Entry(name="tick", task="t", schedule=parse(30.0), options=Options(), policies=Policies())


class Broker:
    """Takes everything, unless told otherwise; remembers batches."""

    batch = 100

    def __init__(self):
        self.batches = []
        self.away = False
        self.refuses = set()
        self.then = lambda: None

    def publish_many(self, parcels):
        if self.away:
            raise BrokerError("broker away")
        self.batches.append(parcels)
        self.then()
        return [Refused(n, "no queue gets it") for n, one in enumerate(parcels) if one.message.id in self.refuses]

    @property
    def ids(self):
        return [one.message.id for batch in self.batches for one in batch]


class FragileOutbox(Outbox):
    """An outbox from which nothing can be removed while ``strike_fails``."""

    strike_fails = False

    def strike(self, *args, **kwargs):
        if self.strike_fails:
            raise StoreUnavailable("the store went away before the messages were removed")
        return super().strike(*args, **kwargs)


class Rig:
    def __init__(self, url):
        self.client = connect(url)
        self.clock, self.broker, self.counters = FakeClock(waits=False), Broker(), DaemonCounters()
        self.report = DispatchLog(self.counters)
        self.outbox = FragileOutbox(self.client, KEYS)
        self.win(1)

    def win(self, token):
        self.term = Term(token, f"d:{token}", 1e18)
        self.client.set(KEYS.shard(0).lease, self.term.lease_value)
        self.delivery = OutboxDelivery(self.outbox, self.broker, self.clock)

    def put(self, *raws):
        self.client.lpush(self.outbox.key, *raws)

    def flush(self):
        return self.delivery.flush(self.term, self.report)

    @property
    def left(self):
        return self.client.llen(self.outbox.key)

    @property
    def dead(self):
        return [json.loads(raw) for raw in self.client.lrange(KEYS.named("dead_letters"), 0, -1)]


@pytest.fixture
def rig(redis_url):
    rig = Rig(redis_url)
    yield rig
    rig.client.close()


def raw(task_id, queue="q", **options):
    return envelope(parcel(task_id, queue, **options).message, queue=queue)


def test_the_oldest_go_first_and_in_batches(rig):
    ids = [f"id-{number}" for number in range(110)]
    rig.put(*map(raw, ids))
    rig.flush()
    assert rig.broker.ids == ids
    assert [len(batch) for batch in rig.broker.batches] == [100, 10]
    assert rig.left == 0


def test_a_slow_broker_is_left_after_a_while_so_that_the_loop_goes_on_turning(rig):
    rig.put(*(raw(f"id-{number}") for number in range(310)))
    rig.broker.then = lambda: rig.clock.advance(FLUSH_AT_MOST * 0.6)
    assert not rig.flush()
    assert rig.left == 110
    assert rig.flush()
    assert (rig.left, len(rig.broker.ids)) == (0, 310)


def test_an_outbox_that_was_empty_is_not_asked_again_for_a_while(rig):
    rig.flush()
    rig.put(raw("unseen"))
    rig.flush()
    assert rig.left == 1
    rig.clock.advance(LOOK_AGAIN)
    rig.flush()
    assert rig.broker.ids == ["unseen"]
    rig.put(raw("another"))
    rig.delivery.list_key(parcel("x", "q").to, None)  # something is about to be claimed
    rig.flush()
    assert rig.left == 0


def test_while_more_comes_a_batch_is_waited_for(rig):
    rig.flush()
    rig.delivery.list_key(parcel("x", "q").to, None)
    rig.put(raw("a"))
    assert rig.delivery.flush(rig.term, rig.report, more_comes=True)
    assert rig.broker.ids == []
    runs = [Run(ENTRY, NOW + number, NOW, ENTRY.schedule) for number in range(rig.broker.batch)]
    rig.delivery.claimed(runs, rig.report, NOW)
    assert rig.delivery.flush(rig.term, rig.report, more_comes=True)
    assert rig.broker.ids == ["a"]


def test_what_was_published_and_not_struck_off_is_not_published_again(rig):
    rig.put(raw("a"), raw("bad"))
    rig.broker.refuses = {"bad"}
    rig.outbox.strike_fails = True
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            rig.flush()
    rig.outbox.strike_fails = False
    rig.put(raw("b"))
    rig.flush()
    assert rig.broker.ids == ["a", "bad", "b"]
    assert rig.left == 0
    assert len(rig.dead) == rig.counters.totals[REFUSED] == 1


def test_a_strike_that_comes_late_takes_out_nothing_that_was_not_published(rig):
    """Its sender had given up, struck off the same once more, and claimed others under the same term."""
    late, lease_value = [raw("a"), raw("b")], rig.term.lease_value
    rig.put(*late)
    rig.flush()
    rig.put(raw("c"), raw("d"))
    assert rig.outbox.strike(late, lease_value=lease_value) == 2
    rig.delivery.list_key(parcel("x", "q").to, None)
    rig.flush()
    assert rig.broker.ids == ["a", "b", "c", "d"]


def test_what_is_taken_over_while_a_batch_is_on_its_way_is_published_too(rig):
    """As by a call to take over a former shard's outbox that comes late: it puts what is older before the batch."""
    rig.put(raw("a"), raw("b"))
    rig.broker.then = lambda: (rig.client.rpush(rig.outbox.key, raw("older")), setattr(rig.broker, "then", list))
    rig.flush()
    assert set(rig.broker.ids) == {"a", "b", "older"}
    assert rig.left == 0


def test_a_broker_that_is_away_leaves_everything_where_it_is(rig):
    rig.put(raw("a"), raw("b"))
    rig.broker.away = True
    with pytest.raises(BrokerError):
        rig.flush()
    assert rig.left == 2
    rig.broker.away = False
    rig.flush()
    assert rig.broker.ids == ["a", "b"]


def test_a_new_leader_sends_what_one_that_died_left_behind_with_the_same_ids(rig, caplog):
    caplog.set_level("INFO")
    rig.put(raw("a"), raw("b"))
    rig.broker.then = lambda: rig.client.set(KEYS.shard(0).lease, "another:9")
    with pytest.raises(TermLost):
        rig.flush()
    assert rig.left == 2, "a leader that lost its term strikes nothing off"
    rig.broker.then = lambda: None
    rig.win(10)
    rig.flush()
    assert rig.broker.ids == ["a", "b", "a", "b"]
    assert rig.left == 0
    assert "leftovers_dispatched" in [record.event for record in caplog.records]


def test_what_expired_in_the_outbox_is_not_sent_and_what_is_left_is_told_to_the_broker(rig):
    rig.put(
        raw("gone", expires="2026-09-21T14:13:20.000+00:00", expiration_ms=5_000),
        raw("left", expires="2026-09-21T14:13:28.000+00:00", expiration_ms=60_000),
        raw("for ever"),
    )
    rig.flush()
    assert rig.broker.ids == ["left", "for ever"]
    assert rig.broker.batches[0][0].message.properties["expiration"] == "8000"
    assert rig.counters.totals[Outcome("skipped", "expired")] == 1
    assert rig.left == 0


@pytest.mark.parametrize(
    "poison",
    [
        b"",
        b"\xff\xfe",
        b"not json",
        b"[]",
        b"{}",
        b'{"body": ""}',
        b'{"body": "", "headers": {"id": "x"}, "properties": {"delivery_info": 5}}',
        b'{"body": "", "headers": {"id": "x"}, "properties": {"delivery_info": {}}}',
        b'{"body": "", "headers": {}, "properties": {"delivery_info": {"routing_key": "q"}}}',
        b'{"body": "", "headers": {"id": []}, "properties": {"delivery_info": {"routing_key": "q"}}}',
        b'{"body": "", "headers": {"id": "\\udcff"}, "properties": {"delivery_info": {"routing_key": "q"}}}',
        b'{"body": "", "headers": {"id": "x"}, "properties": {"delivery_info": {"routing_key": "\\udcff"}}}',
        b'{"body": "", "headers": {"id": "x", "expires": ""}, "properties": {"delivery_info": {"exchange": "x"}}}',
        b'{"body": "", "headers": {"id": "x", "expires": "no"}, "properties": {"delivery_info": {"routing_key": "q"}}}',
        b'{"body": "", "headers": {"id": "x", "expires": 7}, "properties": {"delivery_info": {"routing_key": "q"}}}',
    ],
)
def test_what_is_no_message_becomes_a_dead_letter(rig, poison, caplog):
    rig.put(raw("a"), poison, raw("b"))
    rig.flush()
    assert rig.broker.ids == ["a", "b"]
    assert rig.left == 0
    [letter] = rig.dead
    assert letter["reason"]
    assert letter["at"] == "2026-09-21T14:13:20.000+00:00"
    assert "message" in letter or letter["message_base64"] == "//4="
    assert "outbox_corrupt" in [record.event for record in caplog.records]


def test_what_the_broker_refuses_becomes_a_dead_letter(rig, caplog):
    rig.put(raw("a"), raw("bad", "reports"), raw("b"))
    rig.broker.refuses = {"bad"}
    rig.flush()
    assert rig.left == 0
    [letter] = rig.dead
    assert (letter["reason"], letter["queue"]) == ("no queue gets it", "reports")
    assert json.loads(letter["message"])["headers"]["id"] == "bad"
    assert [record.event for record in caplog.records] == ["run_refused"]
    assert "message bad (tasks.t) to queue 'reports'" in caplog.text


def test_many_refusals_for_one_reason_are_one_line_of_the_log(rig, caplog):
    names = [f"bad{number}" for number in range(ONE_BY_ONE + 1)]
    rig.put(*(raw(name, "reports") for name in names))
    rig.broker.refuses = set(names)
    rig.flush()
    assert len(rig.dead) == len(names)
    [record] = caplog.records
    assert (record.event, record.count, record.reason) == ("runs_refused", len(names), "no queue gets it")
    assert "message bad0 (tasks.t) to queue 'reports'" in caplog.text


def test_a_run_is_dispatched_when_the_broker_has_it(rig, caplog):
    caplog.set_level("INFO")
    run = Run(ENTRY, NOW, NOW, ENTRY.schedule)
    messages = MessageBuilder("celery")
    key = rig.delivery.list_key(messages.address_of(ENTRY), None)
    rig.client.lpush(key, messages.render(run, None))
    rig.delivery.claimed([run], rig.report, NOW)
    rig.broker.away = True
    with pytest.raises(BrokerError):
        rig.flush()
    assert rig.counters.totals[SENT] == 0
    rig.broker.away = False
    rig.clock.advance(2.5)
    rig.flush()
    assert rig.counters.totals[SENT] == 1
    [record] = [record for record in caplog.records if record.event == "run_dispatched"]
    assert (record.entry, record.lateness_ms) == ("tick", 2_500)


def test_what_a_former_shard_left_behind_goes_first(rig):
    rig.client.lpush(KEYS.shard(3).outbox, raw("left behind"))
    rig.put(raw("new"))
    rig.flush()
    assert rig.broker.ids == ["left behind", "new"]


def test_what_was_left_when_the_store_became_the_broker_goes_to_its_queues(rig, redis_url):
    """The fleet had another broker, and was moved: the outbox is emptied all the same, under the same ids."""
    rig.put(raw("a"), raw("b", "other"))
    rig.client.lpush(KEYS.shard(3).outbox, raw("of a former shard"))
    publisher = RedisPublisher(redis_url)
    delivery = DirectDelivery(publisher, OutboxDelivery(rig.outbox, publisher, rig.clock))
    assert delivery.flush(rig.term, rig.report)
    assert rig.left == 2  # the first runs of a term do not wait for it
    assert delivery.flush(rig.term, rig.report)
    publisher.close()
    assert [open_envelope(one).id for one in rig.client.lrange("q", 0, -1)] == ["a", "of a former shard"]
    assert [open_envelope(one).id for one in rig.client.lrange("other", 0, -1)] == ["b"]
    assert rig.left == 0


def run_message(due_ms, own_id=None):
    run = Run(ENTRY, due_ms, due_ms, ENTRY.schedule, own_id)
    return run.id, MessageBuilder("celery").render(run, None)


def test_a_refused_run_is_in_the_history_with_the_reason(rig):
    own_id = manual_run_id("tick", "request")
    (scheduled, first), (_, second), (_, third) = [
        run_message(NOW),
        run_message(NOW + 1, own_id),
        run_message(NOW + 30_000),
    ]
    cells = history.run_cell(history.SENT, NOW, NOW, NOW), history.by_hand(history.TRIGGERED, NOW + 1, NOW + 1, own_id)
    last = history.run_cell(history.SENT, NOW + 30_000, NOW + 30_000, NOW + 30_000)
    rig.client.append(KEYS.history("tick"), b"".join((*cells, last)))
    rig.client.hset(KEYS.shard().running, "tick", f"{scheduled} {NOW + 3_600_000}")
    rig.put(first, second, third)
    rig.broker.refuses = {scheduled, own_id}
    assert holds(rig.client, rig.outbox.key, own_id)
    running = Running(rig.client, KEYS)
    assert running.unfinished({"tick": 3_600_000}, now_ms=NOW)
    rig.flush()
    assert not holds(rig.client, rig.outbox.key, own_id)
    assert not running.unfinished({"tick": 3_600_000}, now_ms=NOW), "it does not run, and holds no other back"
    histories = Histories(rig.client, KEYS)
    records = histories.completed(list(histories.of(["tick"])))
    assert [(one.kind, one.outcome, one.reason) for one in records] == [
        ("scheduled", None, None),
        ("triggered", "REFUSED", "no queue gets it"),
        ("scheduled", "REFUSED", "no queue gets it"),
    ]
    past = DispatchLookup(rig.client, KEYS).read_past(ENTRY)
    assert (past.sent, past.unsent) == ({NOW + 30_000}, {NOW, NOW + 1})
    assert 0 < rig.client.pttl(KEYS.shard().refused + own_id) <= 86_400_000
    rig.client.delete(KEYS.shard().refused + own_id)
    assert histories.completed(list(histories.of(["tick"])))[1][-3:-1] == ("no queue gets it", "REFUSED")
    rig.client.delete(KEYS.outcomes("tick"))
    assert histories.completed(list(histories.of(["tick"])))[1][-3:-1] == (None, "REFUSED")


def test_a_refused_run_of_the_schedule_leaves_no_key_of_its_own(rig):
    run = Run(ENTRY, NOW, NOW, ENTRY.schedule, None, NOW - 30_000)
    rig.client.append(KEYS.history("tick"), history.run_cell(history.SENT, NOW, NOW, NOW))
    rig.client.hset(KEYS.shard().running, "tick", f"{run.id} {NOW + 3_600_000}")
    rig.put(MessageBuilder("celery").render(run, None))
    rig.broker.refuses = {run.id}
    rig.flush()
    assert rig.client.keys(f"*{run.id}*") == []
    assert not Running(rig.client, KEYS).unfinished({"tick": 3_600_000}, now_ms=NOW)
    assert not rig.client.exists(KEYS.shard().ended), "it may be sent again, out of the dead letters"
    histories = Histories(rig.client, KEYS)
    assert histories.completed(list(histories.of(["tick"])))[0].reason == "no queue gets it"


def test_totals_tell_runs_that_were_sent_from_runs_that_were_refused(rig):
    """Also when it takes two attempts to strike them off: each run is counted once."""
    shard, histories = KEYS.shard(0), Histories(rig.client, KEYS)
    (sent, sent_raw), (refused, refused_raw) = run_message(NOW), run_message(NOW + 30_000)
    by_hand, by_hand_raw = run_message(NOW + 1, manual_run_id("tick", "r1"))
    cells = [history.run_cell(history.SENT, due_ms, due_ms, due_ms) for due_ms in (NOW, NOW + 30_000)]
    cells.append(history.by_hand(history.TRIGGERED, NOW + 1, NOW + 1, by_hand))
    rig.client.append(KEYS.history("tick"), b"".join(cells))
    rig.client.hset(shard.runs, "tick", 2)
    rig.client.hset(shard.fingerprints, "tick", f"{NOW} every")
    rig.client.hset(shard.tally, "tick", "triggered 2 late 1")
    rig.broker.refuses = {refused, by_hand}
    rig.put(sent_raw, refused_raw, by_hand_raw)
    rig.client.set(shard.lease, "d:another")  # the first attempt is refused after it has noted what was refused
    with pytest.raises(TermLost):
        rig.flush()
    rig.client.set(shard.lease, rig.term.lease_value)
    rig.flush()
    assert rig.client.hget(shard.tally, "tick") == b"refused_trigger 1 refused 1 triggered 2 late 1"
    totals = histories.totals(["tick"])["tick"]
    assert (totals.scheduled, dict(totals.counts)) == (1, {"triggered": 1, "refused": 2, "late": 1})
    assert rig.broker.ids.count(sent) == 1


def test_a_refused_run_that_was_sent_again_has_the_end_of_that(rig, redis_url):
    task_id, raw = run_message(NOW)
    rig.client.append(KEYS.history("tick"), history.run_cell(history.SENT, NOW, NOW, NOW))
    rig.put(raw)
    rig.broker.refuses = {task_id}
    rig.flush()
    due_at = open_envelope(raw).headers["beatd-due-at"]
    FinishedRuns(redis_url, KEYS).remember([Ended(task_id, "tick", due_at, "SUCCESS", 0.1)])
    histories = Histories(rig.client, KEYS)
    [record] = histories.completed(list(histories.of(["tick"])))
    assert (record.outcome, record.reason, record.runtime_ms) == ("SUCCESS", None, 100)
    assert histories.endings([task_id])[0].state == "SUCCESS"


@pytest.mark.parametrize(
    "change", [{"id": 5}, {"beatd-entry": None}, {"beatd-due-at": [1]}, {"beatd-due-at": "x"}, {"id": "no uuid"}]
)
def test_a_refused_message_with_strange_headers_is_a_dead_letter_all_the_same(rig, change):
    message = open_envelope(run_message(NOW)[1])
    message.headers.update(change)
    raw = envelope(message, queue="q")
    rig.broker.refuses = {open_envelope(raw).id}
    rig.put(raw)
    rig.flush()
    assert (rig.left, len(rig.dead)) == (0, 1)


def test_a_long_outbox_is_looked_through(rig):
    rig.put(*(raw(f"id-{number:04}") for number in range(1_200)))
    assert holds(rig.client, rig.outbox.key, "id-0000")
    assert holds(rig.client, rig.outbox.key, "id-1199")
    assert not holds(rig.client, rig.outbox.key, "id-1200")
    rig.client.delete(rig.outbox.key)
    rig.client.set(rig.outbox.key, "no list")
    assert not holds(rig.client, rig.outbox.key, "id-0000")


def test_a_refused_message_of_an_entry_that_the_store_cannot_name_stands_in_nobodys_way(rig):
    odd = json.loads(raw("bad"))
    odd["headers"] |= {"beatd-entry": "\udcff", "beatd-due-at": "\udcff"}
    rig.put(json.dumps(odd).encode(), raw("a"))
    rig.broker.refuses = {"bad"}
    rig.flush()
    assert rig.left == 0
    assert rig.broker.ids == ["bad", "a"]
    assert len(rig.dead) == 1


def test_former_shards_that_are_still_led_are_looked_at_now_and_then(rig, monkeypatch):
    """There may be a thousand, and a flush after each turn."""
    looks = []
    monkeypatch.setattr(rig.outbox, "inherit", lambda **_: looks.append(1))

    def flush_some():
        for _ in range(5):
            rig.delivery.list_key(parcel("x", "q").to, None)
            rig.flush()
        return len(looks)

    assert flush_some() == 1
    rig.clock.advance(LOOK_AGAIN)
    assert flush_some() == 2
    rig.win(2)
    assert flush_some() == 3
