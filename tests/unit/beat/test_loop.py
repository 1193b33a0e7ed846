"""The loop: what leaves when, and what a failure changes."""

import itertools
import logging
import threading
from datetime import timedelta

import pytest

from beatd.beat.dispatcher import FIRST_BATCH
from beatd.beat.loop import RETRY_MAX, STEP_S, DaemonLoop
from beatd.beat.term import Leadership, Term
from beatd.exceptions import StoreUnavailable
from beatd.model import EntryState, Options
from beatd.schedules import parse_blackout
from beatd.timestamps import from_ms
from tests.fakes import NOW, FakeClock
from tests.unit.beat.conftest import Rig


def names_at(rig):
    return [when for _, when in rig.sent]


def test_a_new_entry_first_runs_one_period_after_it_was_seen(rig, entry):
    rig.beat.schedule.replace([entry(schedule=10.0)])
    rig.run_for(31)
    assert rig.sent == [("a", 10.0), ("a", 20.0), ("a", 30.0)]


def test_nothing_leaves_without_a_term(rig, entry):
    rig.elector.current = None
    rig.beat.schedule.replace([entry()])
    rig.run_for(5)
    assert rig.sent == []


def test_entries_with_runs_are_told_once_and_all_of_them_in_a_new_term(rig, entry):
    """Those of a new term may have had runs of the leader before."""
    rig.beat.schedule.replace([entry(schedule=10.0), entry("b", schedule="1d")])
    rig.run_for(5)
    assert list(rig.beat.ran_since()) == ["a", "b"]
    rig.run_for(10)
    assert list(rig.beat.ran_since()) == ["a"]
    assert list(rig.beat.ran_since()) == []
    rig.elector.current = rig.elector.current._replace(token=rig.elector.current.token + 1)
    rig.turn()
    assert list(rig.beat.ran_since()) == ["a", "b"]


def test_the_sleep_ends_at_the_next_due(rig, entry):
    rig.beat.schedule.replace([entry(schedule=0.3)])
    assert next(filter(None, (rig.turn() for _ in range(9)))) == 0.3  # a turn of 0 s makes messages ready


def test_the_sleep_ends_with_the_millisecond_of_the_next_due(rig, entry):
    rig.beat.schedule.replace([entry(schedule=0.3)])
    assert next(filter(None, (rig.turn() for _ in range(9)))) == 0.3
    rig.clock.advance(0.0004)
    assert rig.turn() == pytest.approx(0.2996)


class CountingClock(FakeClock):
    """A clock that notes at each wait how late (ms) runs left, and stops the loop when a time has passed."""

    def __init__(self, rig, seconds):
        super().__init__()
        self.rig, self.until, self.loop = rig, self.mono + seconds, None
        self.turns, self.late_ms = 0, []

    def wait(self, event, seconds):
        self.turns += 1
        self.late_ms += [self.ms - due_ms for _, due_ms in self.rig.claims.pushed[len(self.late_ms) :]]
        super().wait(event, seconds)
        if self.mono >= self.until:
            self.loop.stop()


def test_runs_that_are_due_one_after_the_other_leave_together(rig, entry):
    rig.clock = clock = CountingClock(rig, seconds=3)
    rig.start()
    clock.loop = DaemonLoop([rig.beat], clock, threading.Event())
    each_ms = [{"every": "1s", "anchor": from_ms(NOW + ms)} for ms in range(1000)]
    clock.loop.replace([entry(f"e{ms}", schedule) for ms, schedule in enumerate(each_ms)])
    clock.loop.run()
    assert len(clock.late_ms) >= 2_000
    assert clock.turns <= 0.5 * len(clock.late_ms) + 1
    assert max(clock.late_ms) <= 1


def test_a_failed_claim_changes_nothing_and_is_repeated(rig, entry):
    rig.beat.schedule.replace([entry(schedule=1.0)])
    rig.run_for(1.5)
    rig.claims.down = True
    rig.run_for(2)
    rig.claims.down = False
    rig.run_for(1)
    assert names_at(rig) == [1.0, 2.0, 3.0, 4.0]


def test_a_store_that_fails_half_way_has_what_it_confirmed_and_gets_the_rest_later(
    rig, entry, monkeypatch, claimed_before
):
    rig.beat.schedule.replace([entry(f"e{number}") for number in range(3 * FIRST_BATCH)])
    rig.turn()
    rig.clock.advance(1)
    claim = rig.claims.claim

    def fails_after_the_first(batches, *, lease_value):
        yield next(claim(batches, lease_value=lease_value))
        raise StoreUnavailable("gone")

    with monkeypatch.context() as patched:
        patched.setattr(rig.claims, "claim", fails_after_the_first)
        rig.turn()
    assert len(rig.sent) == FIRST_BATCH
    rig.run_for(0.9)
    assert sorted(rig.sent) == sorted((f"e{number}", 1.0) for number in range(3 * FIRST_BATCH))
    assert claimed_before() == 0, "what was confirmed is not claimed again"


def test_a_store_that_fails_during_a_resume_leaves_no_silence(rig, entry):
    rig.claims.down = True
    rig.beat.schedule.replace([entry(schedule=1.0)])
    rig.run_for(30)
    rig.claims.down = False
    rig.run_for(5)
    assert len(rig.sent) >= 2


def test_a_long_failure_is_down_time_and_catch_up_decides(rig, entry):
    rig.beat.schedule.replace([entry("latest"), entry("all", catch_up="all"), entry("none", catch_up="none")])
    rig.run_for(1.5)
    rig.claims.down = True
    rig.run_for(30)
    rig.claims.down = False
    rig.run_for(3.2)
    sent = rig.sent
    assert [when for name, when in sent if name == "all"] == [float(n) for n in range(1, 35)]
    latest = [when for name, when in sent if name == "latest"]
    assert latest[0] == 1.0
    assert latest[1] >= 31.0
    assert len([when for name, when in sent if name == "none"]) <= 5


def test_a_claim_whose_answer_was_lost_is_not_sent_again(rig, entry, claimed_before):
    rig.beat.schedule.replace([entry(schedule=1.0)])
    real, lost = rig.claims.claim, []

    def claim_and_lose_the_answer(batches, *, lease_value):
        lost.extend(real(batches, lease_value=lease_value))
        rig.claims.claim = real
        rig.claims.down = True
        rig.claims._check(lease_value)
        yield

    rig.claims.claim = claim_and_lose_the_answer
    rig.run_for(1.02)
    rig.claims.down = False
    rig.run_for(1.5)
    assert lost
    assert names_at(rig) == [1.0, 2.0]
    assert claimed_before() == 1


def stretches(rig, name="a"):
    """From when on each run was the first of its entry, and when it was due, in seconds."""
    dues, afters = rig.claims.stretches[name]
    return [((after - NOW) / 1000, (due - NOW) / 1000) for after, due in zip(afters, dues, strict=True)]


def test_a_message_says_after_which_instant_its_run_is_the_first(rig, entry):
    rig.beat.schedule.replace([entry(schedule=10.0)])
    rig.run_for(31)
    assert stretches(rig) == [(0, 10), (10, 20), (20, 30)]
    rig.start()
    rig.beat.schedule.replace([entry(schedule=10.0)])
    rig.run_for(11)
    assert stretches(rig)[3:] == [(30, 40)], "a restart leaves no gap"


def test_a_skipped_run_belongs_to_the_stretch_of_the_next_and_a_missed_one_to_none(rig, entry):
    rig.beat.schedule.replace([entry(schedule=10.0, max_queue_depth=5)])
    rig.run_for(11)
    rig.queues.depths["celery"] = 5
    rig.run_for(10)
    rig.queues.depths["celery"] = 0
    rig.run_for(10)
    assert stretches(rig) == [(0, 10), (10, 30)]
    rig.clock.advance(60)
    rig.run_for(10)
    assert stretches(rig)[2:] == [(89.999, 90), (90, 100)], "40 to 80 may be sent by hand, or when a clock is set right"


def test_a_run_that_was_sent_after_all_is_in_no_stretch_but_its_own(rig, entry, claimed_before):
    """The answer to its claim is lost; when it is decided again, it is skipped."""
    rig.beat.schedule.replace([entry(schedule=10.0, max_queue_depth=5)])
    rig.run_for(1)
    real = rig.claims.claim

    def claim_and_lose_the_answer(batches, *, lease_value):
        if sum(len(batch) for batch in batches if list(real([batch], lease_value=lease_value))):
            rig.claims.claim, rig.queues.depths["celery"] = real, 5
            raise StoreUnavailable("the answer is lost")
        return iter(())

    rig.claims.claim = claim_and_lose_the_answer
    rig.run_for(13)
    rig.queues.depths["celery"] = 0
    rig.run_for(10)
    assert claimed_before() == 1
    assert stretches(rig) == [(0, 10), (10, 20)]


def test_a_fenced_daemon_stops_and_goes_on_under_a_new_term(rig, entry):
    rig.beat.schedule.replace([entry(schedule=1.0)])
    rig.run_for(1.5)
    rig.claims.lease_value = "another:9"
    rig.run_for(2)
    assert names_at(rig) == [1.0]
    rig.elector.win()
    rig.run_for(1)
    assert names_at(rig) == [1.0, 2.0, 3.0, 4.0]


def test_a_restart_neither_shifts_nor_repeats(rig, entry):
    rig.beat.schedule.replace([entry(schedule=10.0)])
    rig.run_for(14)
    rig.start()
    rig.beat.schedule.replace([entry(schedule=10.0)])
    rig.run_for(20)
    assert names_at(rig) == [10.0, 20.0, 30.0]


def test_a_reload_keeps_the_phase_of_what_did_not_change(rig, entry):
    rig.beat.schedule.replace([entry("kept", 10.0), entry("changed", 10.0), entry("removed", 10.0)])
    rig.run_for(14)
    rig.beat.schedule.replace([entry("kept", 10.0), entry("changed", 20.0), entry("added", 1.0)])
    rig.run_for(8)
    assert [when for name, when in rig.sent if name == "kept"] == [10.0, 20.0]
    rig.run_for(14)
    assert [when for name, when in rig.sent if name == "changed"] == [10.0, 34.0]
    assert [when for name, when in rig.sent if name == "removed"] == [10.0]
    assert next(when for name, when in rig.sent if name == "added") == 15.0


def test_a_disabled_entry_leaves_the_heap(rig, entry):
    rig.beat.schedule.replace([entry(schedule=1.0)])
    rig.run_for(2.5)
    rig.beat.schedule.replace([entry(schedule=1.0, enabled=False)])
    rig.run_for(5)
    assert names_at(rig) == [1.0, 2.0]


def test_a_reload_while_the_store_is_down_is_not_forgotten(rig, entry):
    rig.beat.schedule.replace([entry("a", 1.0)])
    rig.run_for(1.5)
    rig.claims.down = True
    rig.beat.schedule.replace([entry("a", 1.0), entry("b", 1.0)])
    rig.run_for(3)
    rig.claims.down = False
    rig.run_for(4)
    assert "b" in {name for name, _ in rig.sent}


def test_an_expired_run_is_skipped_and_claimed(rig, entry):
    short = entry("short", 60.0, options=Options(expires=5_000), catch_up_window_ms=60_000)
    rig.beat.schedule.replace([short])
    rig.run_for(1)
    rig.start()
    rig.clock.advance(70)
    rig.beat.schedule.replace([short])
    rig.run_for(1)
    assert rig.sent == []
    assert rig.skipped("expired") == 1
    assert rig.claims.states["short"][0].last_due_ms == rig.begin_ms + 60_000


def test_a_step_of_the_clock_forward_is_down_time(rig, entry):
    rig.beat.schedule.replace([entry(schedule=60.0)])
    rig.run_for(30)
    rig.clock.step(3600)
    rig.run_for(2)
    assert names_at(rig) == [3600.0]


def test_a_step_back_never_repeats_a_run(rig, entry):
    rig.beat.schedule.replace([entry(schedule=60.0)])
    rig.run_for(125)
    rig.clock.step(-61)
    rig.run_for(200)
    assert names_at(rig) == [60.0, 120.0, 180.0, 240.0]


def test_jittered_runs_leave_late_and_keep_their_nominal_time(rig, entry):
    rig.beat.schedule.replace([entry(schedule=60.0, jitter_ms=30_000)])
    rig.run_for(60.0005)
    fired_at = []
    for _ in range(60):
        before = len(rig.sent)
        rig.run_for(1)
        if len(rig.sent) > before:
            fired_at.append((rig.clock.ms - rig.begin_ms) / 1000)
    assert names_at(rig)[0] == 60.0
    assert 60.0 <= fired_at[0] <= 91.5


def test_ten_thousand_at_once_leave_in_one_turn(rig, entry):
    rig.beat.schedule.replace([entry(f"e{n}", 10.0) for n in range(10_000)])
    rig.turn()
    rig.clock.advance(10)
    rig.turn()
    assert len(set(rig.sent)) == 10_000


def test_a_resumed_entry_goes_on_from_now_in_its_old_phase(rig, entry):
    rig.beat.schedule.replace([entry(schedule=10.0)])
    rig.run_for(14)
    rig.beat.schedule.replace([entry(schedule=10.0, enabled=False)])
    rig.run_for(33)
    rig.beat.schedule.replace([entry(schedule=10.0)])
    rig.run_for(14)
    assert names_at(rig) == [10.0, 50.0, 60.0]


def test_start_and_end_bound_an_entry(rig, entry):
    start, end = from_ms(rig.begin_ms + 25_000), from_ms(rig.begin_ms + 45_000)
    rig.beat.schedule.replace([entry(schedule=10.0, start=start, end=end)])
    rig.run_for(100)
    assert names_at(rig) == [25.0, 35.0, 45.0]


def test_max_runs_holds_over_restarts(rig, entry):
    rig.beat.schedule.replace([entry(schedule=10.0, max_runs=3)])
    rig.run_for(25)
    rig.start()
    rig.beat.schedule.replace([entry(schedule=10.0, max_runs=3)])
    rig.run_for(60)
    assert names_at(rig) == [10.0, 20.0, 30.0]


def test_a_blackout_skips_and_says_so(rig, entry):
    noon = from_ms(rig.begin_ms)
    window = f"{noon + timedelta(seconds=15):%H:%M:%S}-{noon + timedelta(seconds=35):%H:%M:%S}"
    rig.beat.schedule.replace([entry(schedule=10.0, blackout=parse_blackout(window))])
    rig.run_for(41)
    assert names_at(rig) == [10.0, 40.0]
    assert rig.skipped("blackout") == 2


def test_overlap_skip_waits_for_the_worker_or_the_longest_run_time(rig, entry):
    rig.beat.schedule.replace([entry(schedule=10.0, overlap="skip", max_runtime_ms=25_000)])
    rig.run_for(61)
    assert names_at(rig) == [10.0, 40.0]
    rig.claims.running.clear()  # what a worker's word that it is over does
    rig.run_for(10)
    assert names_at(rig) == [10.0, 40.0, 70.0]
    assert rig.skipped("overlap") == 4


def test_overlap_queue_one_keeps_exactly_one_waiting(rig, entry):
    rig.beat.schedule.replace([entry(schedule=10.0, overlap="queue_one", max_runtime_ms=100_000)])
    rig.run_for(47)
    assert names_at(rig) == [10.0]
    rig.claims.running.clear()
    rig.run_for(1)
    assert names_at(rig) == [10.0, 20.0]  # the one that waited; those of 30 and 40 are dropped
    rig.claims.running.clear()
    rig.run_for(12)
    assert names_at(rig) == [10.0, 20.0, 50.0]
    assert rig.claims.states["a"][0].last_due_ms == rig.begin_ms + 50_000


def test_a_full_queue_is_not_filled_further(rig, entry):
    rig.queues.depths["celery"] = 5
    rig.beat.schedule.replace([entry("careful", 10.0, max_queue_depth=5), entry("careless", 10.0)])
    rig.run_for(11)
    assert rig.sent == [("careless", 10.0)]
    assert rig.skipped("queue_full") == 1


def test_a_herd_fills_a_queue_up_to_its_limit(rig, entry):
    rig.queues.depths["celery"] = 3
    rig.beat.schedule.replace([entry(f"e{n}", 10.0, max_queue_depth=5) for n in range(9)])
    rig.run_for(11)
    assert len(rig.sent) == 2
    assert rig.skipped("queue_full") == 7


def test_a_one_off_runs_once_over_restarts(rig, entry):
    once = entry(schedule={"at": from_ms(rig.begin_ms + 5_000)})
    rig.beat.schedule.replace([once])
    rig.run_for(6)
    for _ in range(3):
        rig.start()
        rig.beat.schedule.replace([once])
        rig.run_for(100)
    assert names_at(rig) == [5.0]


def test_the_end_of_an_outage_is_logged_when_runs_leave_again_and_not_while_nothing_is_tried(rig, entry, caplog):
    caplog.set_level(logging.INFO)
    rig.beat.schedule.replace([entry(schedule=1.0)])
    rig.run_for(1.5)
    rig.claims.down = True
    rig.run_for(2)
    rig.elector.current, term = None, rig.elector.current
    rig.run_for(2)
    events = [getattr(record, "event", "") for record in caplog.records]
    assert "store_unavailable" in events
    assert "beat_recovered" not in events
    rig.elector.current = term
    rig.run_for(2)
    rig.claims.down = False
    rig.run_for(2)
    [back] = [record for record in caplog.records if getattr(record, "event", "") == "beat_recovered"]
    assert back.attempts >= 1


def test_a_step_behind_a_slow_store_ends_although_more_is_due(rig, entry):
    """The loop has other shards to turn, and an outbox to empty."""
    rig.beat.schedule.replace([entry(schedule=1.0)])
    rig.run_for(0.5)
    claim = rig.claims.claim

    def slow(*arguments, **more):
        rig.clock.advance(3)
        return claim(*arguments, **more)

    rig.claims.claim = slow
    rig.clock.advance(1)
    assert rig.turn() == 0.0
    assert names_at(rig) == [1.0, 2.0]
    assert rig.turn() == 0.0
    assert names_at(rig) == [1.0, 2.0, 3.0, 4.0]


def test_a_shard_whose_turn_failed_rests_however_often_the_others_turn(rig, entry, caplog):
    """One shard's keys may be wrong for hours, while other shards have runs every millisecond."""
    bad = Rig()
    bad.clock = rig.clock
    bad.start()
    bad.claims.down, attempts = True, []
    check = bad.claims._check
    bad.claims._check = lambda lease_value: (attempts.append(rig.clock.mono), check(lease_value))
    loop = DaemonLoop([rig.beat, bad.beat], rig.clock, threading.Event())
    rig.beat.schedule.replace([entry("good", 0.01)])
    bad.beat.schedule.replace([entry("bad", 0.01)])
    until = rig.clock.mono + 60
    while rig.clock.mono < until:
        rig.clock.advance(max(loop._turn(), 0.002))
    assert len(rig.sent) > 5_000, "the other shard goes on"
    assert len(attempts) < 60 / RETRY_MAX + 10
    assert sum(getattr(record, "event", "") == "store_unavailable" for record in caplog.records) < 6
    bad.claims.down = False
    bad.elector.win()
    loop._turn()
    assert bad.beat.problem is None, "a new term is tried at once"


def test_an_unexpected_error_is_not_met_at_every_turn_of_the_others(rig, entry, caplog):
    rig.beat.schedule.replace([entry(schedule=1.0)])
    rig.beat.schedule.follow = lambda *_: 1 / 0
    for _ in range(1_000):
        rig.turn()
        rig.clock.advance(0.002)
    assert sum(getattr(record, "event", "") == "beat_error" for record in caplog.records) == 1


def test_a_write_that_an_old_term_refused_does_not_end_the_new_one(rig, entry):
    """The lease was gone and is ours again, under a new term, while a write of the old one was under way."""
    seat = Leadership(rig.clock, 0)
    seat.begin(Term(1, "d:1", 1e18))
    rig.claims.lease_value, rig.elector = "d:2", seat
    rig.start()
    rig.beat.schedule.replace([entry(schedule=1.0)])
    load = rig.claims.load_entries

    def load_under_another_term(*arguments, **more):
        rig.claims.load_entries = load
        seat.end(1, "the lease was gone when it was to be renewed")
        seat.begin(Term(2, "d:2", 1e18))
        return load(*arguments, **more)

    rig.claims.load_entries = load_under_another_term
    rig.run_for(1.5)
    assert seat.token == 2
    assert names_at(rig) == [1.0]


def lose_the_answer(rig):
    """Let the next claim be made, and its answer be lost; return the list of what it claimed."""
    real, lost = rig.claims.claim, []

    def claim_and_lose_the_answer(batches, *, lease_value):
        for batch in batches:
            claimed = list(real([batch], lease_value=lease_value))
            if batch:
                lost.extend(batch)
                rig.claims.claim = real
                raise StoreUnavailable("the answer is lost")
            yield from claimed  # the term was verified

    rig.claims.claim = claim_and_lose_the_answer
    return lost


def test_queue_one_drops_no_run_for_one_whose_answer_was_lost(rig, entry, claimed_before):
    """The run of 10 was sent. It is not the one that waits: that is the run of 20."""
    rig.beat.schedule.replace([entry(schedule=10.0, overlap="queue_one", max_runtime_ms=100_000)])
    rig.run_for(9)
    lost = lose_the_answer(rig)
    rig.run_for(26)
    assert [claim.due_ms - NOW for claim in lost] == [10_000]
    assert names_at(rig) == [10.0]
    rig.claims.running.clear()
    rig.run_for(1)
    assert names_at(rig) == [10.0, 20.0], "30 is dropped"
    assert claimed_before() == 1


def test_queue_one_drops_no_run_for_one_whose_answer_was_lost_and_that_has_ended(rig, entry):
    rig.beat.schedule.replace([entry(schedule=2.0, overlap="queue_one", max_runtime_ms=100_000)])
    rig.run_for(1)
    lose_the_answer(rig)
    rig.run_for(1.02)
    rig.claims.down = True
    rig.run_for(7)
    rig.claims.down = False
    rig.claims.running.clear()
    rig.run_for(3)
    assert names_at(rig) == [2.0, 4.0], "6 and 8 came due while 4 waited"


@pytest.mark.parametrize("policies", [{"overlap": "skip", "max_runtime_ms": 1_000}, {"max_queue_depth": 5}])
def test_a_run_whose_answer_was_lost_counts_for_max_runs(rig, entry, policies):
    rig.beat.schedule.replace([entry(schedule=10.0, max_runs=2, **policies)])
    rig.run_for(9)
    lose_the_answer(rig)
    rig.run_for(1.02)
    rig.queues.depths["celery"] = 5
    rig.run_for(5)
    rig.queues.depths["celery"] = 0
    rig.run_for(60)
    assert names_at(rig) == [10.0, 20.0]


def test_a_skip_whose_answer_was_lost_does_not_count_for_max_runs(rig, entry):
    rig.queues.depths["celery"] = 5
    rig.beat.schedule.replace([entry(schedule=10.0, max_runs=2, max_queue_depth=5)])
    rig.run_for(9)
    lose_the_answer(rig)
    rig.run_for(1.02)
    rig.queues.depths["celery"] = 0
    rig.run_for(60)
    assert names_at(rig) == [20.0, 30.0]


def test_while_many_missed_runs_are_sent_catch_up_decides_about_them_once(rig, entry, monkeypatch):
    """A step sends some of them. The others are as old at the next one, and nothing new is to be decided."""
    monkeypatch.setattr("beatd.beat.loop.TURN", 10)
    monkeypatch.setattr("beatd.beat.loop.TURNS", 2)
    rig.beat.schedule.replace([entry(f"e{number}", 100.0) for number in range(300)])
    rig.run_for(1)
    loads, load = [], rig.claims.load_entries
    rig.claims.load_entries = lambda *arguments, **more: (loads.append(1), load(*arguments, **more))[1]
    rig.clock.advance(150)
    for _ in range(20):
        rig.turn()
        rig.clock.advance(0.5)
    assert len(rig.sent) == 300
    assert len(loads) == 1
    rig.clock.advance(100)
    rig.turn()
    assert len(loads) == 2, "what is missed after that is decided about"


def test_values_of_entries_that_left_are_not_kept(rig, entry):
    for number in range(5):
        rig.beat.schedule.replace([entry(f"e{number}", 1.0), entry("kept", 1.0)])
        rig.run_for(2.5)
        rig.clock.advance(60)
        rig.run_for(2.5)
    assert rig.dispatcher._messages._by_entry.keys() == {"e4", "kept"}
    assert rig.dispatcher._passed_over.keys() <= {"e4", "kept"}


def test_a_herd_behind_a_slow_store_is_no_hang_and_other_shards_have_their_turn(rig, entry, claimed_before):
    """The answers to all of its batches together may take longer than the watchdog waits."""
    rig.beat.schedule.replace([entry(f"e{number}", 1_000.0) for number in range(3_000)])
    rig.turn()
    claim, answer_s, turned = rig.claims.claim, 3, []

    def slow(batches, *, lease_value):
        for claimed in claim(batches, lease_value=lease_value):
            rig.clock.advance(answer_s)
            yield claimed

    rig.clock.advance(1_000)
    rig.claims.claim, rig.beat._on_turn = slow, lambda: turned.append(rig.clock.mono)
    turned.append(rig.clock.mono)
    steps = [rig.clock.mono]
    while len(rig.sent) < 3_000:
        rig.turn()
        steps.append(rig.clock.mono)
    assert max(later - earlier for earlier, later in itertools.pairwise(turned)) <= 2 * answer_s
    assert max(later - earlier for earlier, later in itertools.pairwise(steps)) <= STEP_S + 2 * answer_s
    assert sorted(rig.sent) == sorted((f"e{number}", 1_000.0) for number in range(3_000))
    assert claimed_before() == 0


def test_a_term_that_is_not_trusted_for_a_moment_has_not_ended(rig, entry):
    """A process that stood still renews its lease late. Runs whose ends are waited for are not to be forgotten."""
    seat, term = Leadership(rig.clock, 0), Term(1, "d:1", rig.clock.mono + 14)
    seat.begin(term)
    rig.claims.lease_value, rig.elector = term.lease_value, seat
    rig.start()
    rig.beat.schedule.replace([entry()])
    rig.turn()
    rig.clock.advance(14.5)
    assert rig.beat.led().keys() == {"a"}
    seat.prolong(1, rig.clock.mono + 14)
    assert rig.beat.led().keys() == {"a"}
    seat.lose(term)
    assert rig.beat.led() == {}


@pytest.mark.parametrize(("schedule", "policies"), [("at", {}), ("1h", {"end": 48})])
def test_last_runs_that_are_missed_are_logged_and_noted_once(rig, entry, caplog, schedule, policies):
    """There is no run after them before which they would be noted."""
    hour, day = 3_600_000, 86_400_000
    ends = {name: from_ms(NOW - hours * hour) for name, hours in policies.items()}
    last = entry("last", {"at": from_ms(NOW - 2 * day)} if schedule == "at" else schedule, **ends)
    rig.claims.states["last"] = EntryState(NOW - 3 * day, NOW - 4 * day, 1), last.schedule.fingerprint
    rig.beat.schedule.replace([last])
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            rig.turn()
            rig.beat.schedule.rebuild()
    assert rig.sent == []
    assert rig.claims.gaps["last"] == [[NOW - 3 * day, NOW - 2 * day + 1]]
    assert sum(getattr(record, "event", "") == "runs_missed" for record in caplog.records) == 1
