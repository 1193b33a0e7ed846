"""The clock jumps while the beat runs: no run is claimed twice, and no entry falls silent."""

import logging
from collections import Counter

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from beatd.beat.active_schedule import CLOCK_STEP_MS
from beatd.schedules import every, parse
from tests.unit.beat.conftest import Rig

SECOND, HOUR, DAY = 1, 3600, 86_400
STEPS = [sign * step for step in (SECOND, HOUR, DAY) for sign in (1, -1)]


def each_once(rig):
    return max(Counter(rig.claims.pushed).values()) == 1


def sent_since(rig, count):
    return [when for _, when in rig.sent[count:]]


def seconds(rig):
    """What the wall clock shows, in seconds since the beginning."""
    return (rig.clock.ms - rig.begin_ms) / 1000


def events(caplog):
    return [record.event for record in caplog.records if hasattr(record, "event")]


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("period", [10.0, 60.0, 600.0])
def test_a_step_loses_nothing_and_repeats_nothing(rig, entry, step, period):
    """A step forward is down time. After one back an entry waits: all of what is due until then has been made."""
    rig.beat.schedule.replace([entry(schedule=period)])
    rig.jump_to(rig.begin_ms + round(1000 * (DAY + 2.2 * period)))
    before = len(rig.sent)
    rig.clock.step(step)
    after = seconds(rig)
    rig.jump_to(rig.clock.ms + round(2200 * period) + max(0, -step) * 1000)
    since = sent_since(rig, before)
    assert each_once(rig)
    if step > 0:
        assert after - period <= since[0] <= after + period
        assert len(since) in {2, 3}
    else:
        assert [when for _, when in rig.sent] == [period * n for n in range(1, len(rig.sent) + 1)]
        assert len(since) in {2, 3}


@pytest.mark.parametrize("step", [-1, -HOUR, -DAY])
@pytest.mark.parametrize("period", [0.5, 10.0, 600.0])
def test_an_entry_that_is_younger_than_a_step_back_goes_on_at_once(rig, entry, step, period):
    rig.beat.schedule.replace([entry(schedule=period)])
    rig.run_for(2.2 * period)
    before = len(rig.sent)
    rig.clock.step(step)
    after = seconds(rig)
    rig.run_for(2.2 * period)
    assert each_once(rig)
    if after < 0:  # it was not yet seen
        assert after < sent_since(rig, before)[0] <= after + period


@pytest.mark.parametrize("ahead", [SECOND, HOUR, DAY, 400 * DAY])
def test_a_clock_that_was_ahead_and_is_set_right_leaves_no_silence(rig, entry, ahead):
    """The hour in which the clock was wrong is made good, what it made ahead of its time is not made again."""
    rig.beat.schedule.replace([entry(schedule=10.0)])
    rig.run_for(25)
    rig.clock.step(ahead)
    rig.run_for(60)
    made_ahead = [when for _, when in rig.sent if when > 90]
    rig.clock.step(-ahead)
    before = len(rig.sent)
    rig.run_for(60)
    assert each_once(rig)
    since = sent_since(rig, before)
    assert {90.0, 100.0, 110.0, 120.0, 130.0, 140.0} <= {*since, *made_ahead}
    assert len(made_ahead) in {0, 6, 7}


def test_what_was_made_ahead_of_its_time_is_not_made_again_when_its_time_comes(rig, entry, claimed_before):
    rig.beat.schedule.replace([entry(schedule=600.0)])
    rig.run_for(650)
    rig.clock.step(HOUR)
    rig.run_for(1200)
    assert [when for _, when in rig.sent] == [600.0, 4200.0, 4800.0, 5400.0]
    rig.clock.step(-HOUR)  # it is 1850 now
    rig.run_for(6000 - 1850 + 1)
    assert sent_since(rig, 4) == [1800.0, 2400.0, 3000.0, 3600.0, 6000.0]
    assert claimed_before() == 3


def test_a_daemon_with_a_right_clock_takes_over_from_one_whose_clock_was_a_day_ahead(rig, entry):
    rig.beat.schedule.replace([entry(schedule=600.0), entry("new", 60.0)])
    rig.run_for(10)
    rig.clock.step(DAY)
    rig.run_for(1200)
    rig.clock.step(-DAY)
    rig.start()
    rig.elector.win()
    rig.beat.schedule.replace([entry(schedule=600.0), entry("new", 60.0)])
    before = len(rig.sent)
    rig.run_for(1200)
    assert each_once(rig)
    assert [when for name, when in rig.sent[before:] if name == "a"] == [1200.0, 1800.0, 2400.0]


def test_an_entry_first_seen_by_a_clock_that_was_ahead_begins_when_it_is_set_right(rig, entry):
    rig.clock.step(DAY)
    rig.beat.schedule.replace([entry(schedule=600.0)])
    rig.run_for(1300)
    assert [when for _, when in rig.sent] == [DAY + 600.0, DAY + 1200.0]
    rig.clock.step(-DAY)
    rig.run_for(1200)
    assert sent_since(rig, 2) == [1800.0, 2400.0]


def test_a_restart_between_does_not_forget_what_is_to_be_made_good(rig, entry):
    hourly = entry(schedule=3600.0, catch_up="all", catch_up_window_ms=DAY * 1000)
    rig.beat.schedule.replace([hourly])
    rig.run_for(10)
    rig.clock.step(10 * DAY)
    rig.run_for(3600)
    rig.clock.step(-10 * DAY)
    rig.run_for(3600)
    rig.clock.advance(3 * 3600)
    rig.start()
    rig.beat.schedule.replace([hourly])
    before = len(rig.sent)
    rig.run_for(1)
    assert sent_since(rig, before) == [3 * 3600.0, 4 * 3600.0, 5 * 3600.0]
    assert each_once(rig)


@pytest.mark.parametrize("asleep", [60, HOUR, DAY])
@pytest.mark.parametrize("monotonic_stands_still", [True, False])
def test_suspend_and_resume(rig, entry, asleep, monotonic_stands_still):
    """Linux's monotonic clock stands still while the host sleeps, macOS's runs on in some versions."""
    rig.beat.schedule.replace([entry("often", 10.0), entry("all", 10.0, catch_up="all", catch_up_window_ms=120_000)])
    rig.run_for(25)
    rig.clock.ms += asleep * 1000
    if not monotonic_stands_still:
        rig.clock.mono += asleep
    before = len(rig.sent)
    rig.run_for(20)
    woke = 25 + asleep
    often = [when for name, when in rig.sent[before:] if name == "often"]
    assert often == [woke // 10 * 10.0, woke // 10 * 10.0 + 10, woke // 10 * 10.0 + 20]
    everything = [when for name, when in rig.sent[before:] if name == "all"]
    first = max(30.0, ((woke - 120) // 10 + 1) * 10.0)
    assert everything == [first + 10 * n for n in range(len(everything))]
    assert everything[-1] == often[-1]


def test_a_nap_shorter_than_a_stall_makes_every_run_late_and_none_missing(rig, entry):
    rig.beat.schedule.replace([entry(schedule=1.0)])
    rig.run_for(5.5)
    rig.clock.advance(10)
    rig.run_for(1)
    assert [when for _, when in rig.sent] == [float(n) for n in range(1, 17)]


@pytest.mark.parametrize("parts_per_million", [12, 500, -12, -500])
def test_a_smear_is_no_step(rig, entry, caplog, parts_per_million):
    """A leap second spread over a day is 12 ppm; ntpd slews by at most 500."""
    caplog.set_level(logging.INFO, "beatd")
    rig.beat.schedule.replace([entry(schedule=10.0)])
    rig.turn()
    for _ in range(20_000):
        rig.clock.mono += 1
        rig.clock.ms += 1000
        if _ % 1000 == 999:
            rig.clock.ms += parts_per_million  # of 1000 s, in ms: far below what one turn may differ
        rig.turn()
    assert "clock_stepped" not in events(caplog)
    shown = seconds(rig)
    assert [when for _, when in rig.sent] == [10.0 * n for n in range(1, int(shown // 10) + 1)]


@pytest.mark.parametrize(
    ("step_ms", "is_said"), [(CLOCK_STEP_MS + 100, True), (-CLOCK_STEP_MS - 100, True), (400, False)]
)
def test_a_step_is_said_with_its_size(rig, entry, caplog, step_ms, is_said):
    caplog.set_level(logging.INFO, "beatd")
    rig.beat.schedule.replace([entry(schedule=10.0)])
    rig.run_for(5)
    rig.clock.step(step_ms / 1000)
    rig.turn()
    assert ("clock_stepped" in events(caplog)) is is_said
    if is_said:
        assert [record.step_ms for record in caplog.records if getattr(record, "event", "") == "clock_stepped"] == [
            pytest.approx(step_ms, abs=2)
        ]


SCHEDULES = [every("7s"), every("1m"), parse("*/2 * * * *"), parse("30 2 * * *", timezone="Europe/Berlin")]

steps = st.lists(
    st.tuples(
        st.integers(1, 4000),
        st.one_of(st.integers(-7200, 7200), st.sampled_from([-DAY, DAY, -8 * HOUR, 8 * HOUR])),
        st.booleans(),
    ),
    max_size=4,  # each jump may open two gaps, and eight are kept
)


@settings(max_examples=40, deadline=None)
@given(steps)
@example([(1, -DAY, False), (1, 59, False), *[(1, 1, False)] * 4, (1, -DAY, False), (1, DAY, False)])
def test_whatever_the_clock_does_no_run_is_claimed_twice_and_none_is_left_out_for_ever(moves):
    """After all jumps the clock is right, at the latest of all times it ever showed: then nothing may be silent."""
    from beatd.model import Entry, Policies

    entries = [
        Entry(name=str(number), task="t", schedule=schedule, policies=Policies(catch_up=catch_up))
        for number, (schedule, catch_up) in enumerate(zip(SCHEDULES, ["latest", "all", "none", "latest"], strict=True))
    ]
    rig = Rig()
    rig.beat.schedule.replace(entries)
    for run_for, step, restart in moves:
        rig.jump_to(rig.clock.ms + run_for * 1000)
        rig.clock.step(step)
        if restart:
            rig.start()
            rig.beat.schedule.replace(entries)
    rig.turn()
    begin_ms = rig.clock.ms
    rig.jump_to(begin_ms + 1_800_000)
    assert each_once(rig) if rig.claims.pushed else True
    assert rig.claims.overlaps == []
    claimed = set(rig.claims.pushed)
    for entry in entries[:3]:
        schedule = rig.heap._slots[entry.name].timeline
        due = schedule.next_after_ms(begin_ms)
        while due is not None and due <= rig.clock.ms:
            assert (entry.name, due) in claimed, "a run whose time came, and that nobody made"
            due = schedule.next_after_ms(due)
