"""One answer to "when does it run next": list, page, next, simulate and check, compared with what the daemon sends."""

from __future__ import annotations

from datetime import UTC, datetime
from importlib.util import find_spec
from itertools import islice
from typing import Any

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from beatd import config
from beatd.cli.check import first_run
from beatd.cli.next import planned_runs
from beatd.exceptions import ConfigError
from beatd.model import Entry, EntryState
from beatd.planning.catchup import ResumePoints
from beatd.planning.preview import counts_from_first_seen, next_run, outlooks
from beatd.planning.simulation import TooManyRuns, simulate
from beatd.timestamps import from_ms, to_ms
from tests.unit.beat.conftest import Rig

NOW = to_ms(datetime(2026, 3, 28, 12, 0, 30, tzinfo=UTC))
HOUR, DAY = 3_600_000, 86_400_000
TURNS = 300
"""Turns of the daemon without a run, after which an example is given up: all of its runs are skipped for long."""


def at(ms: int) -> datetime:
    return from_ms(ms)


intervals = st.sampled_from(["10s", "47s", "5m", "47m", "9h", "2d"])
schedules: st.SearchStrategy[Any] = st.one_of(
    intervals,
    st.builds(lambda every, ms: {"every": every, "anchor": at(NOW - ms)}, intervals, st.integers(0, 3 * DAY)),
    st.builds(lambda every: {"every": every, "relative": True}, st.sampled_from(["7s", "25m", "3h", "2d"])),
    st.sampled_from(["* * * * *", "*/30 * * * *", "30 2 * * *", "0,7 1-4 * * *", "0 0 * * sun", "0 0 29 2 *"]),
    st.builds(lambda ms: {"at": at(NOW + ms)}, st.integers(-DAY, DAY)),
    st.just(["0 3 * * *", {"every": "47m", "anchor": at(NOW - 5 * DAY)}]),
    *([st.sampled_from([{"solar": event, "lat": 40.4, "lon": 49.9} for event in ("sunset", "dawn_civil")])]
      if find_spec("astral") else []),
)  # fmt: skip
blackouts = st.sampled_from(
    ["22:00-06:00", "11:00-13:30", "2026-03-28/2026-03-29", {"cron": "*/20 * * * *", "duration": "7m"}]
)
offsets = st.integers(-3 * DAY, 3 * DAY)


@st.composite
def entries(draw: st.DrawFn) -> Entry:
    table: dict[str, Any] = {"task": "t", "schedule": draw(schedules), "timezone": draw(st.sampled_from(ZONES))}
    if draw(st.booleans()):
        table["jitter"] = draw(st.sampled_from(["5s", "3m", "40m", "5h"]))
    if draw(st.booleans()):
        table["blackout"] = draw(blackouts)
    if draw(st.booleans()):
        table["max_runs"] = draw(st.integers(1, 5))
    if draw(st.booleans()):
        table["start"] = at(NOW + draw(offsets))
    if draw(st.booleans()):
        table["end"] = at(max(NOW + draw(offsets), to_ms(table["start"]) + HOUR if "start" in table else 0))
    table["catch_up"] = draw(st.sampled_from(["latest", "all", "none"]))
    if draw(st.booleans()):
        table["catch_up_window"] = draw(st.sampled_from(["1m", "2h", "2d"]))
    table["catch_up_max"] = draw(st.integers(1, 5))
    if draw(st.booleans()):
        expires = st.sampled_from(["auto", "20s", "20m"]) | offsets.map(lambda ms: at(NOW + ms))
        table["options"] = {"expires": draw(expires)}
    table["enabled"] = draw(st.integers(0, 9)) > 0
    try:
        return config.entry("e", table)
    except ConfigError:  # a jitter that is longer than the period
        return config.entry("e", {**table, "jitter": 0})


ZONES = ["UTC", "Europe/Berlin", "Australia/Lord_Howe"]


@st.composite
def states(draw: st.DrawFn) -> EntryState | None:
    """State of an entry in the store: none, one that is up to date, one that missed runs, one of a clock ahead."""
    if draw(st.integers(0, 4)) == 0:
        return None
    first_seen_ms = NOW - draw(st.integers(0, 4 * DAY))
    last_due_ms = max(first_seen_ms, NOW - draw(st.integers(-HOUR, HOUR) | st.integers(0, 3 * DAY)))
    return EntryState(last_due_ms, first_seen_ms, draw(st.integers(0, 5)))


def sent_by_the_daemon(entry: Entry, state: EntryState | None) -> tuple[int, int] | None:
    """The due time of the first run that a daemon sends which begins now, and when it does so."""
    rig = Rig(NOW)
    if state is not None:
        rig.claims.states[entry.name] = state, entry.schedule.fingerprint
    rig.beat.schedule.replace([entry])
    for _ in range(TURNS):
        rig.turn()
        if rig.claims.pushed:
            return rig.claims.pushed[0][1], rig.clock.ms
        fires_ms = rig.heap.next_fire_ms()
        if fires_ms is None:
            return None
        step_ms = max(fires_ms - rig.clock.ms, 0)
        rig.clock.ms += step_ms
        rig.clock.mono += step_ms / 1000
    assume(False)
    return None


@given(entries(), states())
@settings(max_examples=400, deadline=None)
def test_everybody_says_what_the_daemon_does(entry: Entry, state: EntryState | None) -> None:
    sent = sent_by_the_daemon(entry, state if entry.policies.enabled else None)

    run, note = next_run(entry, state or EntryState(NOW, NOW, 0), ResumePoints(NOW))
    assert (run and (run.due_ms, max(run.fire_ms, NOW))) == sent
    assert (note == "") == (sent is not None)

    [look] = outlooks([entry], [state], NOW, paused=(), held={}, last_dues=lambda _: {})
    assert (look.next_due_ms, look.next_fire_ms) == ((run.due_ms, run.fire_ms) if run else (None, None))

    runs = planned_runs([entry], {} if state is None else {entry.name: state}, NOW, NOW)
    first = next((run for run in islice(runs, 5_000) if run.skip is None), None)
    assert first == run

    if state is None:
        assert first_run([entry], NOW) == run
        window_ms = NOW if counts_from_first_seen(entry) else NOW + 1
        assert _simulated(entry, window_ms, run.due_ms + 1 if run else window_ms + DAY) in {int(run is not None), None}


def _simulated(entry: Entry, from_ms: int, to_ms: int) -> int | None:
    try:
        return simulate([entry], from_ms, to_ms, limit=50_000).sent
    except TooManyRuns:
        return None


@given(entries(), states(), st.integers(1, 3 * DAY))
@settings(max_examples=100, deadline=None)
def test_runs_after_a_time_to_come_are_those_of_a_daemon_that_has_kept_up(
    entry: Entry, state: EntryState | None, ahead_ms: int
) -> None:
    """``next --from``: nothing is caught up, and nothing that was due before that time is shown."""
    after_ms = NOW + ahead_ms
    runs = list(islice(planned_runs([entry], {} if state is None else {entry.name: state}, after_ms, NOW), 20))
    assert all(run.due_ms > after_ms and not run.overdue for run in runs)
    assert [run.due_ms for run in runs] == sorted({run.due_ms for run in runs})
    assert [run.fire_ms for run in runs] == sorted({run.fire_ms for run in runs})


def test_an_entry_that_never_gets_on_ends_the_search() -> None:
    entry = config.entry("e", {"task": "t", "schedule": "0 12 * * *", "blackout": "11:00-13:00"})
    run, note = next_run(entry, EntryState(NOW, NOW, 0), ResumePoints(NOW))
    assert (run, note) == (None, "blacked out")
    assert first_run([entry], NOW) is None
    assert simulate([entry], NOW, NOW + DAY, limit=10).sent == 0
