"""When an entry will run next, and when it was last due: the same as the daemon's own decision."""

from datetime import UTC, datetime

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from beatd.exceptions import ScheduleError
from beatd.model import Entry, EntryState, Options, Policies
from beatd.planning.catchup import ResumePoints
from beatd.planning.preview import outlook, outlooks
from beatd.planning.timeline import after_blackouts_ms, fire_ms, timeline
from beatd.schedules import parse, parse_blackout
from beatd.timestamps import from_ms, to_ms

NOW = to_ms(datetime(2026, 6, 1, 12, 0, 30, tzinfo=UTC))
MINUTE = 60_000
NOON = NOW - 30_000


def entry(schedule="* * * * *", expires=None, **policies):
    options = Options(expires=expires)
    return Entry(name="e", task="t", schedule=parse(schedule), options=options, policies=Policies(**policies))


def state(last_due_ms=NOON, first_seen_ms=NOON - 3 * MINUTE, runs=3):
    return EntryState(last_due_ms, first_seen_ms, runs)


def test_after_its_last_run():
    seen = outlook(entry(), state(), ResumePoints(NOW))
    assert (seen.runs, seen.last_due_ms, seen.next_due_ms, seen.next_fire_ms) == (
        3,
        NOON,
        NOON + MINUTE,
        NOON + MINUTE,
    )


def test_one_that_nobody_has_seen_yet():
    seen = outlook(entry(), None, ResumePoints(NOW))
    assert (seen.runs, seen.last_due_ms, seen.next_due_ms) == (0, None, NOON + MINUTE)


@pytest.mark.parametrize(("last_due_ms", "runs"), [(NOON, 0), (NOON + 17, 5)])
def test_the_moment_at_which_it_began_is_no_run(last_due_ms, runs):
    assert outlook(entry(), state(last_due_ms, runs=runs), ResumePoints(NOW)).last_due_ms is None


def test_an_interval_counts_from_when_it_was_first_seen():
    seen = outlook(entry("1m"), state(NOON + 20_000, first_seen_ms=NOON - 40_000), ResumePoints(NOW))
    assert seen.next_due_ms == NOON + 80_000


def test_one_that_is_not_enabled():
    seen = outlook(entry(enabled=False), state(), ResumePoints(NOW))
    assert (seen.next_due_ms, seen.note, seen.last_due_ms) == (None, "not enabled", NOON)


@pytest.mark.parametrize(("most", "note"), [(3, "over after 3 runs"), (1, "over after 1 run"), (4, "")])
def test_one_with_a_number_of_runs(most, note):
    seen = outlook(entry(max_runs=most), state(), ResumePoints(NOW))
    assert (seen.next_due_ms is None, seen.note) == (bool(note), note)


def test_one_that_has_ended():
    seen = outlook(entry(end=from_ms(NOON)), state(), ResumePoints(NOW))
    assert (seen.next_due_ms, seen.note) == (None, "no run is left")


def test_a_message_that_will_have_expired_is_no_run():
    assert outlook(entry(expires=from_ms(NOON + MINUTE)), state(), ResumePoints(NOW)).note == "no run is left"
    assert outlook(entry(expires=from_ms(NOON + MINUTE + 1)), state(), ResumePoints(NOW)).note == ""


def test_runs_in_a_blackout_are_passed_over():
    seen = outlook(entry(blackout=parse_blackout(["12:00-12:10"])), state(), ResumePoints(NOW))
    assert seen.next_due_ms == NOON + 10 * MINUTE
    seen = outlook(entry("1s", blackout=parse_blackout(["12:00-13:00"])), state(), ResumePoints(NOW))
    assert (seen.next_due_ms, seen.note) == (NOON + 60 * MINUTE, "")
    seen = outlook(entry(blackout=parse_blackout(["00:00-23:30"])), state(), ResumePoints(NOW))
    assert seen.next_due_ms == NOON + (11 * 60 + 30) * MINUTE
    seen = outlook(entry("0 12 * * *", blackout=parse_blackout(["11:00-13:00"])), state(), ResumePoints(NOW))
    assert (seen.next_due_ms, seen.note) == (None, "blacked out"), "the search ends"


WINDOWS = st.one_of(
    st.tuples(st.integers(0, 23), st.integers(0, 23))
    .filter(lambda hours: hours[0] != hours[1])
    .map(lambda hours: f"{hours[0]:02}:00-{hours[1]:02}:30"),
    st.integers(1, 5).map(lambda days: f"2026-06-01/2026-06-{days:02}"),
    st.integers(0, 23).map(lambda hour: {"cron": f"0 {hour} * * *", "duration": "5h"}),
)


@given(
    st.lists(WINDOWS, min_size=1, max_size=3), st.integers(0, 3 * 86_400_000), st.sampled_from(["10m", "17 * * * *"])
)
@settings(max_examples=60, deadline=None)
def test_jumping_over_blackouts_finds_what_walking_finds(windows, later_ms, schedule):
    try:
        blackout = parse_blackout(windows, timezone="Europe/Berlin")
    except ScheduleError:
        assume(False)
    one = entry(schedule, blackout=blackout)
    line = timeline(one, NOON)
    walked = first = line.next_after_ms(NOW + later_ms)
    for _ in range(3_000):
        if not blackout.covers_ms(walked):
            break
        walked = line.next_after_ms(walked)
    else:
        assume(False)
    assert after_blackouts_ms(one, line, first) == walked


def test_an_entry_that_was_resumed_has_its_last_due_from_the_history():
    names = []

    def last_dues(asked):
        names.extend(asked)
        return {"e": NOON - MINUTE}

    resumed = state(last_due_ms=NOON + 1_234)
    [seen] = outlooks([entry()], [resumed], NOW, paused=(), held={}, last_dues=last_dues)
    assert (seen.last_due_ms, names) == (NOON - MINUTE, ["e"])
    [seen] = outlooks([entry()], [state()], NOW, paused=("e",), held={}, last_dues=dict)
    assert (seen.last_due_ms, seen.note) == (NOON, "paused")


def test_a_run_that_waits_for_its_jitter_is_still_the_next():
    jittered = entry(jitter_ms=59_000)
    line = timeline(jittered, 0)
    dues = range(NOON, NOON + 60 * MINUTE, MINUTE)
    waits = {due: fire_ms(jittered, line, due) - due for due in dues}
    assert any(ms > 10_000 for ms in waits.values())
    for due, ms in waits.items():
        before = state(due - MINUTE)
        if ms:
            assert outlook(jittered, before, ResumePoints(due + ms - 1)).next_due_ms == due
        overdue = outlook(jittered, before, ResumePoints(due + ms))
        assert (overdue.next_due_ms, overdue.next_fire_ms) == (due, due + ms), "it leaves at once"
        assert outlook(jittered, state(due), ResumePoints(due + 1)).next_due_ms == due + MINUTE, "that one has left"
