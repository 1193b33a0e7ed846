"""The watch over late runs: bounds are learned, entries come into the store and leave it, and few are read."""

import pytest

from beatd.beat.overdue import OverdueWatch
from beatd.client.outcomes import OutcomeReader
from beatd.config import entry
from beatd.model import run_id
from beatd.store.client import connect
from beatd.store.entry_state import EntryStates, Fingerprints
from beatd.store.history import SENT, run_cell
from beatd.store.history_reader import Histories
from beatd.store.keys import Keys
from beatd.store.outcomes import Ended, Outcomes, Started
from beatd.store.run_record import RunRecord, encoded
from beatd.timestamps import iso_ms

KEYS, NOW, MINUTE = Keys("beatd"), 1_790_000_040_000, 60_000
HOURLY = entry("report", {"task": "t", "schedule": "@hourly"})
START = NOW - NOW % (60 * MINUTE) - 24 * 60 * MINUTE


class Hours:
    """An hourly entry whose runs start after a second and take ten."""

    def __init__(self, client):
        self.client = client
        self.outcomes = Outcomes(client, KEYS)
        self.reads = []
        states, histories = EntryStates(client, KEYS), Histories(client, KEYS)
        self.watch = OverdueWatch(self.outcomes, histories, states, KEYS, self.batches)

    def batches(self, items):
        self.reads.append([one.name for one in items])
        yield items

    def send(self, hour, late_ms=0):
        due_ms, shard = START + hour * 60 * MINUTE, KEYS.shard()
        self.client.append(KEYS.history("report"), run_cell(SENT, due_ms, due_ms, due_ms + late_ms))
        self.client.hset(shard.last_due, "report", due_ms)
        self.client.hset(shard.fingerprints, "report", f"{START - 1} {Fingerprints().of(HOURLY)}")
        return due_ms

    def end(self, due_ms):
        record = RunRecord(
            run_id=run_id("report", due_ms), state="SUCCESS", start_ms=due_ms + 1_000, end_ms=due_ms + 11_000
        )
        at = (record.run_id, "report", iso_ms(due_ms), "SUCCESS", 10.0, encoded(record), "s")
        self.outcomes.note([Ended(*at, end_ms=record.end_ms)])

    def look_at_others(self, now_ms, *, is_led):
        """Look after the entry has gone: from the schedule, or with its shard to another daemon."""
        self.watch.look({}, now_ms, lambda _name: is_led)
        return self.outcomes.overdue()

    def look(self, now_ms, made=HOURLY):
        self.watch.ran(["report"])
        self.watch.look({"report": made}, now_ms)
        return self.outcomes.overdue(), self.outcomes.too_long()


@pytest.fixture
def hours(redis_url):
    with connect(redis_url) as client:
        yield Hours(client)


def test_bounds_are_learned_and_late_runs_noted(hours):
    for hour in range(19):
        hours.end(hours.send(hour))
    waiting = hours.send(19)
    assert hours.look(waiting + 50 * MINUTE) == ({}, {}), "19 runs teach nothing"
    hours.end(waiting)
    due_ms = hours.send(20)
    hours.look(due_ms)
    assert OutcomeReader(hours.client, KEYS).bounds(HOURLY) == (62_000, None, 80_000, 20)
    assert hours.look(due_ms + MINUTE) == ({}, {})
    assert hours.look(due_ms + 2 * MINUTE) == ({"report": due_ms + 62_000}, {})
    hours.outcomes.began({run_id("report", due_ms): Started(due_ms + 2 * MINUTE, due_ms + 3 * MINUTE, 1, "w")})
    assert hours.look(due_ms + 3 * MINUTE) == ({}, {})
    assert hours.look(due_ms + 4 * MINUTE - 1) == ({}, {"report": due_ms + 200_000})
    hours.end(due_ms)
    assert hours.look(due_ms + 5 * MINUTE) == ({}, {})


def test_never_switches_bounds_off_and_another_leader_goes_on(hours):
    for hour in range(20):
        hours.end(hours.send(hour))
    due_ms = hours.send(20)
    never = entry("report", {"task": "t", "schedule": "@hourly", "overdue_after": "never", "expect_within": "never"})
    assert hours.look(due_ms + 30 * MINUTE, never) == ({}, {})
    assert hours.look(due_ms + 30 * MINUTE)[0] == {"report": due_ms + 62_000}
    hours.watch.forget()
    hours.end(due_ms)
    assert hours.look(due_ms + 31 * MINUTE) == ({}, {}), "the last leader's overdue entry is taken out"


def test_a_late_entry_that_another_daemon_leads_now_stays_late_and_is_logged_once(hours, caplog):
    caplog.set_level("INFO")
    for hour in range(20):
        hours.end(hours.send(hour))
    due_ms = hours.send(20)
    late = {"report": due_ms + 62_000}
    assert hours.look(due_ms + 2 * MINUTE)[0] == late
    assert hours.look_at_others(due_ms + 3 * MINUTE, is_led=False) == late
    assert hours.look(due_ms + 4 * MINUTE)[0] == late
    assert [record.event for record in caplog.records] == ["entry_overdue"]
    assert hours.look_at_others(due_ms + 5 * MINUTE, is_led=True) == {}
    assert [record.event for record in caplog.records] == ["entry_overdue", "entry_overdue_over"]


def test_an_entry_that_cannot_be_late_is_not_read(hours):
    for hour in range(20):
        hours.end(hours.send(hour))
    due_ms = hours.send(20)
    hours.end(due_ms)
    hours.look(due_ms + MINUTE)
    hours.look(due_ms + 2 * MINUTE)
    assert hours.reads[-2:] == [["report"], []]


@pytest.mark.parametrize(("overlap", "since"), [("allow", 5), ("queue_one", 45)])
def test_a_run_that_waits_for_the_one_before_counts_from_when_it_leaves(hours, overlap, since):
    made = entry(
        "report", {"task": "t", "schedule": "@hourly", "overlap": overlap, "max_runtime": "2h", "overdue_after": "5m"}
    )
    before, next_ms = hours.send(0), START + 60 * MINUTE
    overdue = {"report": next_ms + since * MINUTE}
    hours.outcomes.began({run_id("report", before): Started(before, next_ms + 60 * MINUTE, 1, "w")})
    assert hours.look(next_ms + 39 * MINUTE, made)[0] == ({} if overlap == "queue_one" else overdue)
    hours.end(before)
    hours.send(1, late_ms=40 * MINUTE)
    assert hours.look(next_ms + 44 * MINUTE, made)[0] == ({} if overlap == "queue_one" else overdue)
    assert hours.look(next_ms + 46 * MINUTE, made)[0] == overdue
