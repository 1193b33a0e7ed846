"""What becomes of a run, and where an entry goes on after an interruption: pure decisions, in tables to be read."""

import logging
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beatd import config
from beatd.metrics.counters import MISSED
from beatd.model import Entry, EntryState, Policies, Run
from beatd.planning.catchup import LATE_MS, WINDOW_MAX_MS, WINDOW_MIN_MS, ResumePoints
from beatd.planning.policies import Facts, Skip, decide
from beatd.planning.timeline import fire_ms, timeline
from beatd.schedules import bind, every, parse
from beatd.timestamps import from_ms, iso_ms, to_ms

MIDNIGHT = to_ms(datetime(2026, 6, 15, tzinfo=UTC))
SEEN = MIDNIGHT - 86_400_000


def at(text):
    """The ms of a time of 2026-06-15, "12:30", or of a day of June, "14T23:45"; "24:00" is the next midnight."""
    day, _, clock = text.rpartition("T")
    hours, minutes = map(int, clock.split(":"))
    return MIDNIGHT + 60_000 * (60 * hours + minutes) + 86_400_000 * (int(day) - 15 if day else 0)


def shown(ms):
    return None if ms is None else f"{from_ms(ms):%dT%H:%M}"


# Where an entry goes on


def resume(schedule, policies, *, last_due_ms, now_ms, name="a"):
    entry = Entry(name=name, task="t", schedule=schedule, policies=policies)
    return ResumePoints(now_ms).of(entry, EntryState(last_due_ms, SEEN, 1))


HALF_HOURLY, DAILY, YEARLY = "*/30 * * * *", "0 3 * * *", "0 0 1 1 *"

CATCH_UP = [
    # schedule     last due   now       policies                                            goes on     passes over
    (HALF_HOURLY, "12:00", "12:29", {}, "15T12:30", False),
    (HALF_HOURLY, "12:00", "12:30", {}, "15T12:30", False),
    (HALF_HOURLY, "12:00", "12:59", {}, "15T12:30", False),
    (HALF_HOURLY, "12:00", "13:05", {}, "15T13:00", True),
    (HALF_HOURLY, "12:00", "13:05", {"catch_up": "none"}, "15T13:30", True),
    (HALF_HOURLY, "12:00", "13:05", {"catch_up": "all"}, "15T12:30", False),  # the window is a day
    (HALF_HOURLY, "12:00", "13:05", {"catch_up": "all", "catch_up_window": "2h"}, "15T12:30", False),
    (HALF_HOURLY, "02:00", "13:05", {"catch_up": "all", "catch_up_window": "2h"}, "15T11:30", True),
    (HALF_HOURLY, "02:00", "13:05", {"catch_up": "all", "catch_up_window": "1d", "catch_up_max": 3}, "15T12:00", True),
    (HALF_HOURLY, "02:00", "13:05", {"catch_up_window": "5m"}, "15T13:30", True),  # the latest is 5 min old: outside
    (HALF_HOURLY, "02:00", "13:05", {"catch_up_window": "6m"}, "15T13:00", True),
    (HALF_HOURLY, "14:00", "13:05", {}, "15T14:30", False),  # the clock was set back
    (DAILY, "14T03:00", "02:59", {}, "15T03:00", False),
    (DAILY, "14T03:00", "23:00", {}, "15T03:00", False),
    (DAILY, "12T03:00", "23:00", {"catch_up": "all"}, "15T03:00", True),
    (DAILY, "12T03:00", "23:00", {"catch_up": "all", "catch_up_window": "60h"}, "14T03:00", True),
    (DAILY, "14T03:00", "14T12:00", {"end": datetime(2026, 6, 14, 12, tzinfo=UTC)}, None, False),
    (DAILY, "13T03:00", "18:00", {"end": datetime(2026, 6, 15, 12, tzinfo=UTC)}, "15T03:00", True),
    (DAILY, "13T03:00", "17T18:00", {"end": datetime(2026, 6, 15, 12, tzinfo=UTC)}, None, True),  # too long ago
    (DAILY, "13T03:00", "14T04:00", {"start": datetime(2026, 6, 15, tzinfo=UTC)}, "15T03:00", False),
]


@pytest.mark.parametrize(("schedule", "last_due", "now", "fields", "goes_on", "passes_over"), CATCH_UP)
def test_catch_up(schedule, last_due, now, fields, goes_on, passes_over):
    entry = config.entry("a", {"task": "t", "schedule": schedule, **fields})
    onward = resume(entry.schedule, entry.policies, last_due_ms=at(last_due), now_ms=at(now))
    assert (shown(onward.due_ms), onward.passes_over) == (goes_on, passes_over)


@pytest.mark.parametrize(
    ("schedule", "window_ms"),
    [("1m", WINDOW_MIN_MS), ("30m", 1_800_000), ("3d", WINDOW_MAX_MS), (YEARLY, WINDOW_MAX_MS)],
)
def test_the_window_is_one_period_within_bounds(schedule, window_ms):
    line = bind(parse(schedule), from_ms(MIDNIGHT))
    due_ms = line.next_after_ms(line.next_after_ms(MIDNIGHT))

    def goes_on(now_ms):
        return resume(line, Policies(), last_due_ms=MIDNIGHT, now_ms=now_ms).due_ms

    following = line.next_after_ms(due_ms)
    latest_inside = min(due_ms + window_ms, following) - 1
    assert goes_on(latest_inside) == due_ms
    if due_ms + window_ms < following:
        assert goes_on(due_ms + window_ms) == following


@pytest.mark.parametrize("catch_up", ["latest", "all", "none"])
def test_what_is_only_late_is_sent_whatever_catch_up_says(catch_up):
    """A failover takes no longer than that with the default lease, and loses nothing."""
    line = bind(parse("1s"), from_ms(SEEN))
    policies = Policies(catch_up=catch_up, catch_up_window_ms=1, catch_up_max=1)
    late = resume(line, policies, last_due_ms=SEEN, now_ms=SEEN + 1_000 + LATE_MS)
    assert late.due_ms == SEEN + 1_000
    assert not late.passes_over
    missed = resume(line, policies, last_due_ms=SEEN, now_ms=SEEN + 1_001 + LATE_MS)
    assert missed.due_ms > SEEN + LATE_MS
    assert missed.passes_over


schedules = st.one_of(
    st.integers(10, 10_000_000).map(lambda ms: bind(every(timedelta(milliseconds=ms)), from_ms(SEEN))),
    st.sampled_from(["* * * * *", "*/7 3 * * *", "0 0 * * sun", "0 0 29 2 *"]).map(parse),
)
policies = st.builds(
    Policies,
    catch_up=st.sampled_from(["latest", "all", "none"]),
    catch_up_window_ms=st.none() | st.integers(1, 10**9),
    catch_up_max=st.integers(1, 20),
)


@given(schedules, policies, st.integers(0, 10**9), st.integers(-(10**9), 10**10))
def test_an_entry_goes_on_with_one_of_its_runs_not_before_the_next_and_never_falls_silent(line, policies, since, ahead):
    last_due_ms = SEEN + since
    now_ms = last_due_ms + ahead
    onward = resume(line, policies, last_due_ms=last_due_ms, now_ms=now_ms)
    following, coming = line.next_after_ms(last_due_ms), line.next_after_ms(max(now_ms, last_due_ms))
    assert following <= onward.due_ms <= coming
    assert line.next_after_ms(onward.due_ms - 1) == onward.due_ms
    assert onward.passes_over is (onward.due_ms != following)
    if following >= now_ms - LATE_MS:
        assert onward.due_ms == following
        return
    if policies.catch_up == "none":
        assert onward.due_ms == coming
    if policies.catch_up_window_ms is not None and onward.due_ms <= now_ms and onward.due_ms != following:
        assert onward.due_ms > now_ms - policies.catch_up_window_ms


@pytest.mark.parametrize(
    ("fields", "now", "goes_on"),
    [
        ({"catch_up_window": "2h"}, "13:05", "15T11:30"),  # the latest one before the blackout
        ({"catch_up_window": "2h"}, "14:10", "15T14:00"),  # and after it
        ({}, "13:05", "15T13:00"),  # all in the window are blacked out: skipped for that reason, and none was missed
        ({"catch_up": "all", "catch_up_max": 2}, "13:05", "15T11:00"),  # those in the blackout do not count
        ({"catch_up": "all", "catch_up_max": 2}, "14:40", "15T14:00"),
    ],
)
def test_the_runs_that_are_caught_up_are_not_those_in_a_blackout(fields, now, goes_on):
    table = {"task": "t", "schedule": HALF_HOURLY, "blackout": "12:00-14:00", **fields}
    entry = config.entry("a", table)
    points = ResumePoints(at(now))
    point = points.of(entry, EntryState(at("09:00"), at("09:00"), 1))
    assert shown(point.due_ms) == goes_on


@given(schedules, st.integers(1, 20), st.integers(0, 10**9), st.integers(0, 10**8))
def test_all_catches_up_no_more_than_the_greatest_number(line, most, since, ahead):
    now_ms = line.next_after_ms(SEEN + since) + LATE_MS + 1 + ahead
    policies = Policies(catch_up="all", catch_up_max=most, catch_up_window_ms=10**12)
    due_ms = resume(line, policies, last_due_ms=SEEN + since, now_ms=now_ms).due_ms
    caught_up = 0
    while due_ms is not None and due_ms <= now_ms:
        caught_up += 1
        due_ms = line.next_after_ms(due_ms)
    assert caught_up <= most


def test_a_run_that_waits_for_its_jitter_was_not_missed():
    """A failover between due and fire time loses nothing, whatever catch-up says."""
    hourly = parse("0 * * * *")
    for catch_up in ("latest", "all", "none"):
        policies = Policies(catch_up=catch_up, catch_up_window_ms=1, jitter_ms=3_000_000)
        for number in range(20):
            entry = Entry(name=f"e{number}", task="t", schedule=hourly, policies=policies)
            leaves_ms = fire_ms(entry, hourly, at("12:00"))
            for now_ms in (at("12:00"), leaves_ms - 1, leaves_ms, leaves_ms + LATE_MS):
                point = resume(hourly, policies, last_due_ms=at("11:00"), now_ms=now_ms, name=entry.name)
                assert (point.due_ms, point.passes_over) == (at("12:00"), False)
            missed = resume(hourly, policies, last_due_ms=at("11:00"), now_ms=leaves_ms + LATE_MS + 1, name=entry.name)
            assert (missed.due_ms, missed.passes_over) == (at("13:00"), True)
            long_down = resume(hourly, policies, last_due_ms=at("07:00"), now_ms=leaves_ms - 1, name=entry.name)
            assert (long_down.due_ms, long_down.passes_over) == (at("12:00"), True)


def test_an_entry_that_has_had_all_of_its_runs_never_resumes():
    entry = config.entry("a", {"task": "t", "schedule": "* * * * *", "max_runs": 2})
    assert ResumePoints(SEEN + 1).of(entry, EntryState(SEEN, SEEN, 1)).remaining_runs == 1
    assert ResumePoints(SEEN + 1).of(entry, EntryState(SEEN, SEEN, 2))[1:] == (None, 0, False)


# What becomes of a run


IDLE = {"unfinished": False, "depth": 0}
HOURLY_AT_NOON = {"schedule": "0 * * * *"}

DECISIONS = [
    # fields                                        now       the world               decision
    ({}, "12:00", {}, "send"),
    ({}, "18:00", {}, "send"),
    ({"blackout": "11:00-13:00"}, "12:00", {}, Skip.BLACKOUT),
    ({"blackout": "11:00-12:00"}, "12:00", {}, "send"),
    ({"options": {"expires": 60}}, "12:00", {}, "send until 12:01"),
    ({"options": {"expires": 60}}, "12:01", {}, Skip.EXPIRED),
    ({"options": {"expires": "auto"}}, "12:59", {}, "send until 13:00"),
    ({"options": {"expires": "auto"}}, "13:00", {}, Skip.EXPIRED),
    ({"options": {"expires": datetime(2026, 6, 15, 12, 30, tzinfo=UTC)}}, "12:29", {}, "send until 12:30"),
    ({"options": {"expires": datetime(2026, 6, 15, 12, 30, tzinfo=UTC)}}, "12:30", {}, Skip.EXPIRED),
    ({"overlap": "skip"}, "12:00", {}, "send"),
    ({"overlap": "skip"}, "12:00", {"unfinished": True}, Skip.OVERLAP),
    ({"overlap": "queue_one"}, "12:00", {"unfinished": True}, "wait"),
    ({"overlap": "queue_one", "options": {"expires": 60}}, "12:01", {"unfinished": True}, Skip.EXPIRED),
    ({"max_queue_depth": 5}, "12:00", {"depth": 4}, "send"),
    ({"max_queue_depth": 5}, "12:00", {"depth": 5}, Skip.QUEUE_FULL),
    ({"overlap": "queue_one", "max_queue_depth": 5}, "12:00", {"unfinished": True, "depth": 9}, "wait"),
    ({"blackout": "11:00-13:00", "overlap": "queue_one"}, "12:00", {"unfinished": True}, Skip.BLACKOUT),
]


@pytest.mark.parametrize(("fields", "now", "world", "expected"), DECISIONS)
def test_decision(fields, now, world, expected):
    entry = config.entry("a", {"task": "t", **HOURLY_AT_NOON, **fields})
    line = timeline(entry, SEEN)
    run = Run(entry, at("12:00"), fire_ms(entry, line, at("12:00")), line)
    world = IDLE | world
    facts = Facts(at(now), frozenset({"a"} if world["unfinished"] else ()), {"q": world["depth"]})
    decision = decide(run, "q", facts)
    said = decision.skip or ("send" if decision.retry_ms is None else "wait")
    if decision.expires_ms is not None:
        said += f" until {from_ms(decision.expires_ms):%H:%M}"
    assert said == expected


def test_a_lifetime_counts_from_when_a_jittered_run_leaves():
    entry = config.entry("a", {"task": "t", **HOURLY_AT_NOON, "jitter": "30m", "options": {"expires": 60}})
    line = timeline(entry, SEEN)
    leaves_ms = fire_ms(entry, line, at("12:00"))
    assert leaves_ms > at("12:01")
    run = Run(entry, at("12:00"), leaves_ms, line)
    assert decide(run, "q", Facts(leaves_ms + 59_999, frozenset(), {})).expires_ms == leaves_ms + 60_000
    assert decide(run, "q", Facts(leaves_ms + 60_000, frozenset(), {})).skip is Skip.EXPIRED


# Every skip is said and counted


SKIPS = {
    Skip.BLACKOUT: {"blackout": "2026-01-01/2027-12-31"},
    Skip.EXPIRED: {"options": {"expires": datetime(2026, 1, 1, tzinfo=UTC)}},
    Skip.OVERLAP: {"overlap": "skip", "max_runtime": "1h"},
    Skip.QUEUE_FULL: {"max_queue_depth": 1, "options": {"queue": "full"}},
    Skip.UNSENDABLE: {},
}


@pytest.mark.parametrize("reason", Skip)
def test_each_skip_is_an_event_with_its_reason_and_is_counted(rig, caplog, reason):
    caplog.set_level(logging.INFO, "beatd")
    entry = config.entry("a", {"task": "t", "schedule": 10.0, **SKIPS[reason]})
    if reason is Skip.UNSENDABLE:  # such as the configuration refuses
        entry = msgspec.structs.replace(entry, kwargs={"x": object()})
    rig.queues.depths["full"] = 1
    rig.beat.schedule.replace([entry])
    rig.run_for(31)
    sent = {Skip.OVERLAP: 1}.get(reason, 0)
    assert len(rig.sent) == sent
    assert rig.skipped(reason.value) == 3 - sent
    said = [record for record in caplog.records if getattr(record, "event", "") == "run_skipped"]
    assert [record.reason for record in said] == [reason.value] * (3 - sent)
    assert {record.entry for record in said} == {"a"}
    assert all(record.run_id and record.due_at for record in said)
    assert rig.claims.states["a"][0].last_due_ms == rig.begin_ms + 30_000  # skipped for good


@pytest.mark.parametrize("entries", [2, 50])
def test_what_is_missed_and_not_caught_up_is_said_and_counted(rig, caplog, entries):
    caplog.set_level(logging.INFO, "beatd")
    schedule = [config.entry(f"e{n}", {"task": "t", "schedule": 10.0, "catch_up": "none"}) for n in range(entries)]
    rig.beat.schedule.replace(schedule)
    rig.run_for(11)
    rig.clock.advance(60)
    rig.start()
    rig.beat.schedule.replace(schedule)
    rig.run_for(1)
    assert rig.counters.totals[MISSED] == entries
    said = [record for record in caplog.records if getattr(record, "reason", "") == "missed"]
    if entries > 10:
        assert [(record.event, record.count) for record in said] == [("entries_missed_runs", entries)]
    else:
        assert [record.entry for record in said] == ["e0", "e1"]
        assert {(record.after, record.before) for record in said} == {
            (iso_ms(rig.begin_ms + 10_000), iso_ms(rig.begin_ms + 80_000))
        }
