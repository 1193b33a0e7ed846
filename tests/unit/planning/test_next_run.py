"""One answer to "when does it run next": list, page, next, simulate and check, compared with what the daemon sends."""

from __future__ import annotations

from datetime import UTC, datetime
from importlib.util import find_spec
from itertools import islice
from random import Random
from typing import Any

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from beatd import config
from beatd.cli.check import first_run
from beatd.cli.next import planned_runs
from beatd.exceptions import ConfigError
from beatd.model import Entry, EntryState
from beatd.planning.catchup import ResumePoints
from beatd.planning.policies import Skip
from beatd.planning.preview import Upcoming, counts_from_first_seen, new_state, next_run, outlooks, upcoming
from beatd.planning.simulation import TooManyRuns, simulate
from beatd.schedules.calendars import EventWindow
from beatd.schedules.timezone import Zone
from beatd.store.runtime_entries import Pause
from beatd.timestamps import from_ms, to_ms
from tests.unit.beat.conftest import Rig

NOW = to_ms(datetime(2026, 3, 28, 12, 0, 30, tzinfo=UTC))
HOUR, DAY = 3_600_000, 86_400_000
TURNS = 300
"""Turns of the daemon without a run, after which an example is given up: all of its runs are skipped for long."""


LENGTHS = [1, 999, 7_001, 19_999, 30_000, 30_001, 60_000, 299_999, HOUR // 3, HOUR, 7 * HOUR, DAY, 3 * DAY]
INTERVALS = ["10s", "47s", "5m", "47m", "9h", "2d"]
CRONS = ["* * * * *", "*/30 * * * *", "30 2 * * *", "0,7 1-4 * * *", "0 0 * * sun", "0 0 29 2 *"]
BLACKOUTS = ["22:00-06:00", "11:00-13:30", "2026-03-28/2026-03-29", {"cron": "*/20 * * * *", "duration": "7m"}]
ZONES = ["UTC", "Europe/Berlin", "Australia/Lord_Howe"]
EVENTS = ["sunset", "dawn_civil"] if find_spec("astral") else []


def at(dice: Random) -> datetime:
    return from_ms(NOW + dice.choice(LENGTHS) * dice.choice([-1, 1]))


def schedule_from(dice: Random) -> Any:
    kinds = [
        dice.choice(INTERVALS),
        {"every": dice.choice(INTERVALS), "anchor": at(dice)},
        {"every": dice.choice(["7s", "25m", "3h", "2d"]), "relative": True},
        dice.choice(CRONS),
        dice.choice(CRONS),
        ["0 3 * * *", {"every": "47m", "anchor": at(dice)}],
        ["10 */5 * * *", {"every": dice.choice(["25m", "3h"]), "relative": True}],
        *({"solar": event, "lat": 40.4, "lon": 49.9} for event in EVENTS),
    ]
    return {"at": at(dice)} if dice.random() < 0.05 else dice.choice(kinds)


def entry_from(seed: int) -> Entry:
    """An entry with each of the fields that have to do with time, or without."""
    dice = Random(seed)
    fields: dict[str, tuple[float, Any]] = {
        "jitter": (0.5, dice.choice(["5s", "3m", "40m", "5h"])),
        "blackout": (0.4, dice.choice(BLACKOUTS)),
        "max_runs": (0.3, dice.randint(1, 5)),
        "start": (0.2, at(dice)),
        "end": (0.1, at(dice)),
        "catch_up": (0.8, dice.choice(["latest", "all", "none"])),
        "catch_up_window": (0.4, dice.choice(["1m", "2h", "2d"])),
        "catch_up_max": (0.4, dice.randint(1, 5)),
        "overlap": (0.2, dice.choice(["skip", "queue_one"])),
        "options": (0.4, {"expires": dice.choice(["auto", "20s", "20m", at(dice)])}),
        "enabled": (0.1, False),
    }
    table = {name: value for name, (share, value) in fields.items() if dice.random() < share}
    table |= {"task": "t", "schedule": schedule_from(dice), "timezone": dice.choice(ZONES)}
    for names in ((), ("jitter",), ("jitter", "end")):  # a jitter that is longer than the period; an end before start
        try:
            return config.entry("e", {name: value for name, value in table.items() if name not in names})
        except ConfigError:
            continue
    raise AssertionError(table)


def state_from(seed: int) -> EntryState | None:
    """State of an entry in the store: none, one that is up to date, one that missed runs, one of a clock ahead."""
    dice = Random(seed)
    if dice.random() < 0.3:
        return None
    first_seen_ms = NOW - 4 * DAY + dice.randrange(DAY)
    last_due_ms = NOW - dice.choice(LENGTHS) if dice.random() < 0.9 else NOW + dice.choice([1, 30_000, HOUR])
    return EntryState(last_due_ms, first_seen_ms, dice.choice([0, 1, 2, 5]))


entries = st.integers(0, 1 << 40).map(entry_from)
states = st.integers(0, 1 << 40).map(state_from)


def sent_by_the_daemon(entry: Entry, state: EntryState | None, count: int) -> list[tuple[int, int]]:
    """The first runs that a daemon sends which begins now: when they were due, and when it sent them."""
    rig, sent = Rig(NOW), list[tuple[int, int]]()
    if state is not None:
        rig.claims.states[entry.name] = state, entry.schedule.fingerprint
    rig.claims.unfinished = lambda *_, **__: frozenset()  # workers finish at once
    rig.beat.schedule.replace([entry])
    for _ in range(TURNS):
        rig.turn()
        sent += [(due_ms, rig.clock.ms) for _, due_ms in rig.claims.pushed]
        rig.claims.pushed.clear()
        fires_ms = rig.heap.next_fire_ms()
        if len(sent) >= count or fires_ms is None:
            return sent[:count]
        step_ms = max(fires_ms - rig.clock.ms, 0)
        rig.clock.ms += step_ms
        rig.clock.mono += step_ms / 1000
    assume(False)
    return []


@given(entries, states)
@settings(max_examples=600, deadline=None)
def test_everybody_says_what_the_daemon_does(entry: Entry, state: EntryState | None) -> None:
    sent = sent_by_the_daemon(entry, state if entry.policies.enabled else None, 5)

    points = ResumePoints(NOW)
    walked = islice(upcoming(entry, state or new_state(NOW), points, sent_only=True), 5)
    assert [(run.due_ms, max(run.fire_ms, NOW)) for run in walked] == sent

    run, note = next_run(entry, state or new_state(NOW), points)
    assert ([(run.due_ms, max(run.fire_ms, NOW))] if run else []) == sent[:1]
    assert (note == "") == bool(sent)

    [look] = outlooks([entry], [state], NOW, paused=(), held={}, last_dues=lambda _: {})
    assert (look.next_due_ms, look.next_fire_ms) == ((run.due_ms, run.fire_ms) if run else (None, None))

    runs = islice(planned_runs([entry], {} if state is None else {entry.name: state}, NOW, NOW), 5_000)
    shown = [(run.due_ms, max(run.fire_ms, NOW)) for run in islice((run for run in runs if run.skip is None), 5)]
    assert shown == sent

    if state is None:
        assert first_run([entry], NOW) == run
        window_ms = NOW if counts_from_first_seen(entry) else NOW + 1
        end_ms = sent[-1][0] + 1 if sent else window_ms + DAY
        assert _simulated(entry, window_ms, end_ms) in {len(sent), None}


def _simulated(entry: Entry, from_ms: int, to_ms: int) -> int | None:
    try:
        return simulate([entry], from_ms, to_ms, limit=50_000).sent
    except TooManyRuns:
        return None


@given(entries, states, st.integers(1, 3 * DAY))
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


@given(entries, states, st.integers(1, DAY))
@settings(max_examples=200, deadline=None)
def test_runs_after_a_time_to_come_are_those_that_the_daemon_makes_after_it(
    entry: Entry, state: EntryState | None, ahead_ms: int
) -> None:
    """``next --from``: also with ``max_runs``, and where each run depends on the one before."""
    assume(state is not None)
    assert state is not None
    walked = islice(upcoming(entry, state, ResumePoints(NOW)), 20_000)
    expected = [facts(run) for run in islice((run for run in walked if run.due_ms > NOW + ahead_ms), 5)]
    shown = islice(planned_runs([entry], {entry.name: state}, NOW + ahead_ms, NOW), 5)
    assert [facts(run) for run in shown] == expected


def facts(run: Upcoming) -> tuple[int, int, Skip | None]:
    return run.due_ms, run.fire_ms, run.skip


def hourly(**fields: Any) -> Entry:
    return config.entry("e", {"task": "t", "schedule": "0 * * * *", **fields})


def dues(entry: Entry, pause: Pause, after_ms: int = NOW, state: EntryState | None = None) -> list[int]:
    states = {} if state is None else {entry.name: state}
    runs = planned_runs([entry], states, after_ms, NOW, {entry.name: pause})
    return [run.due_ms for run in islice(runs, 2)]


def test_runs_of_a_paused_entry_begin_when_its_pause_ends() -> None:
    pause, noon = Pause(since_ms=NOW - HOUR, until_ms=NOW + 3 * HOUR), NOW - 30_000
    known = EntryState(NOW - 5 * HOUR, NOW - 10 * HOUR, 5)
    for state in (None, known):
        assert dues(hourly(), pause, state=state) == [noon + 4 * HOUR, noon + 5 * HOUR]
        assert dues(hourly(catch_up="all"), pause, NOW + HOUR, state) == [noon + 4 * HOUR, noon + 5 * HOUR]
        assert dues(hourly(), pause, NOW - HOUR, state) == [noon + 4 * HOUR, noon + 5 * HOUR]
        assert dues(hourly(), pause, NOW + 7 * HOUR, state) == [noon + 8 * HOUR, noon + 9 * HOUR]
        assert dues(hourly(), Pause(since_ms=NOW - HOUR), NOW + HOUR, state) == []
        assert dues(hourly(), Pause(until_ms=NOW - 1), state=state) == [noon + HOUR, noon + 2 * HOUR]
    assert dues(hourly(schedule="1h"), pause, state=known) == [NOW + 4 * HOUR, NOW + 5 * HOUR], "it keeps its phase"
    assert dues(hourly(max_runs=6), pause, state=known) == [noon + 4 * HOUR]


def test_the_search_behind_yearly_events_ends_after_fifty_years() -> None:
    asked = set[int]()

    def expand(year: int, _zone: Zone) -> list[tuple[int, int]]:
        asked.add(year)
        eve = to_ms(datetime(year, 12, 24, tzinfo=UTC))
        return [(eve, eve + DAY)]

    entry = config.entry("e", {"task": "t", "schedule": "0 9 24 12 *", "blackout": {"ics": "yearly.ics"}})
    assert entry.policies.blackout is not None
    [window] = entry.policies.blackout.windows
    assert isinstance(window, EventWindow)
    window.calendar.fill(expand, NOW)
    assert next_run(entry, new_state(NOW), ResumePoints(NOW)) == (None, "blacked out")
    assert len(asked) < 60


def test_an_entry_that_never_gets_on_ends_the_search() -> None:
    entry = config.entry("e", {"task": "t", "schedule": "0 12 * * *", "blackout": "11:00-13:00"})
    run, note = next_run(entry, new_state(NOW), ResumePoints(NOW))
    assert (run, note) == (None, "blacked out")
    assert first_run([entry], NOW) is None
    assert simulate([entry], NOW, NOW + DAY, limit=10).sent == 0
