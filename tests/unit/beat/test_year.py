"""A year of a whole beat in seconds: what it sends is what the preview shows, and what catch-up
says after every interruption."""

import random
from collections import Counter
from datetime import UTC, datetime
from importlib.util import find_spec
from itertools import cycle

import pytest

from beatd import config
from beatd.planning.catchup import LATE_MS, ResumePoints
from beatd.planning.preview import new_state, upcoming
from beatd.timestamps import from_ms, to_ms
from tests.unit.beat.conftest import Rig

BEGIN = to_ms(datetime(2026, 2, 11, 7, 43, 21, 250_000, tzinfo=UTC))
DAY = 86_400_000
YEAR = 365 * DAY

ZONES = (
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "Africa/Casablanca",
    "Asia/Baku",
    "America/Santiago",
    "Asia/Kolkata",
    "Europe/Dublin",
    "Pacific/Auckland",
    "UTC",
)
SCHEDULES = (
    "30 2 * * *",
    "0 0 * * *",
    "15 */6 * * *",
    "*/20 1-3 * * sun",
    "0 9 1,15 * *",
    "30 1 * * sun",
    "0 12 L * *",
    "H H * * *",
    "30 0 13 * fri",
    "5 0 29 2 *",
    "17 45 23 * * mon-fri",
    "@weekly",
    {"minute": "0,30", "hour": "2", "day_of_week": "0,6"},
    {"minute": "15", "hour": "*/8"},
    {"minute": "0", "hour": "3", "day_of_month": "1-7", "day_of_week": "1"},
    ["0 9 * * mon-fri", "0 12 * * sat", "30 2 * * sun"],
)
POLICIES = (
    {},
    {"jitter": "90m"},
    {"blackout": "01:30-02:45"},
    {"blackout": ["2026-12-24/2026-12-26", {"cron": "0 0 * * mon", "duration": "30h"}]},
    {"start": datetime(2026, 3, 29, 0, 30, tzinfo=UTC), "end": datetime(2026, 10, 25, 1, 30, tzinfo=UTC)},
    {"max_runs": 17},
    {"dst": "skip"},
    {"jitter": "20m", "blackout": "00:00-00:30", "max_runs": 40},
    {"options": {"expires": "auto"}, "overlap": "skip", "max_runtime": "1m"},
    {"options": {"expires": datetime(2026, 9, 1, tzinfo=UTC)}},
    {"overlap": "queue_one", "max_runtime": "1m", "jitter": "2h"},
)
INTERVALS = (
    "7h13m",
    "1d",
    "5h0m0s10ms",
    {"every": "9h", "anchor": datetime(2026, 1, 1, tzinfo=UTC)},
    {"every": "25h", "relative": True},
    "11d",
)


def entry(name, schedule, **fields):
    return config.entry(name, {"task": "t", "schedule": schedule, **fields})


def mixed_entries():
    """200 entries: every schedule in several zones and with several policies."""
    zones, policies = cycle(ZONES), cycle(POLICIES)
    entries = []
    for number in range(170):
        schedule, more = SCHEDULES[number % len(SCHEDULES)], dict(next(policies))
        if isinstance(schedule, dict | list):
            more.pop("dst", None)
        entries.append(entry(f"cron-{number}", schedule, timezone=next(zones), **more))
    policies = cycle(each for each in POLICIES if "dst" not in each)
    entries += [entry(f"interval-{n}", INTERVALS[n % len(INTERVALS)], **next(policies)) for n in range(24)]
    entries += [entry(f"once-{n}", {"at": from_ms(BEGIN + n * 77 * DAY)}) for n in range(4)]
    if find_spec("astral"):
        place = {"lat": 40.4, "lon": 49.9}
        entries += [entry(f"sun-{each}", {"solar": each, **place}) for each in ("sunset", "dawn_civil")]
    return entries


class Stamped(list):
    """What was pushed; ``at`` says when."""

    def __init__(self, clock):
        super().__init__()
        self.at = []
        self._clock = clock

    def append(self, item):
        super().append(item)
        self.at.append((*item, self._clock.ms))


def previewed(entries, since, until):
    """What the preview says will be sent: name, due, and when it leaves."""
    found = []
    for each in entries:
        for run in upcoming(each, new_state(since), ResumePoints(since)):
            if run.due_ms > until:
                break
            if run.skip is None and run.fire_ms <= until:
                found.append((each.name, run.due_ms, run.fire_ms))
    return sorted(found)


def beat_of(entries):
    rig = Rig(BEGIN)
    rig.claims.pushed = Stamped(rig.clock)
    rig.beat.schedule.replace(entries)
    return rig


def test_every_run_of_a_year_is_the_one_in_the_preview():
    entries = mixed_entries()
    assert len(entries) >= 198
    rig = beat_of(entries)
    rig.jump_to(BEGIN + YEAR)
    expected = previewed(entries, BEGIN, BEGIN + YEAR)
    assert len(expected) > 40_000
    assert sorted(rig.claims.pushed.at) == expected
    assert rig.claims.overlaps == []


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_every_run_of_a_dense_year_is_the_one_in_the_preview():
    entries = [
        *mixed_entries(),
        *(entry(f"five-{n}", "*/5 * * * *", timezone=zone, jitter="3m") for n, zone in enumerate(ZONES)),
        *(entry(f"minutes-{n}", f"{n + 1}m", blackout="22:00-06:00") for n in range(5)),
    ]
    rig = beat_of(entries)
    rig.jump_to(BEGIN + YEAR)
    assert sorted(rig.claims.pushed.at) == previewed(entries, BEGIN, BEGIN + YEAR)


class Ledger:
    """What should become of one entry, told without heap, bounds and bisection: from lists of its due times."""

    def __init__(self, entry, until):
        self.entry = entry
        self.runs = {}
        for run in upcoming(entry, new_state(BEGIN), ResumePoints(BEGIN)):
            if run.due_ms > until:
                break
            self.runs[run.due_ms] = run
        self.dues = list(self.runs)
        self.last = BEGIN
        self.done = set()
        self.stretches = []
        """Due times that were passed over together, and the one at which the entry went on."""
        self.sent = []

    def serve(self, start, end):
        """A daemon begins, or finds the clock changed, when it shows ``start``, and serves until it shows ``end``."""
        for due in self._from(start):
            leaves = max(self.runs[due].fire_ms, start)
            if leaves > end:
                break
            if due in self.done:
                continue
            self.done.add(due)
            self.last = max(self.last, due)
            for stretch, _ in self.stretches:
                stretch[:] = [each for each in stretch if each > due] if due in stretch else stretch
            if self.runs[due].skip is None and not self._expired(due, leaves):
                self.sent.append((self.entry.name, due, leaves))

    def _from(self, start):
        """The due times that are looked at from ``start`` on: what is caught up, and what is to come."""
        fires = {due: run.fire_ms for due, run in self.runs.items()}
        missed = [due for due in self.dues if self.last < due and fires[due] <= start]
        if self.last > start:  # the clock was ahead
            open_now = next((stretch for stretch, before in self.stretches if before > start), [])
            missed = [due for due in open_now if fires[due] <= start]
            open_dues = {due for stretch, _ in self.stretches for due in stretch} - self.done
            to_come = [due for due in self.dues if fires[due] > start and (due > self.last or due in open_dues)]
        else:
            to_come = [due for due in self.dues if fires[due] > start and due > self.last]
        caught_up = self._caught_up(missed, start)
        passed_over = [due for due in missed if due not in caught_up]
        goes_on = [*caught_up, *to_come]
        if passed_over and goes_on:
            self.stretches.append((passed_over, goes_on[0]))
        return goes_on

    def _caught_up(self, missed, now):
        policies = self.entry.policies
        if not missed or self.runs[missed[0]].fire_ms >= now - LATE_MS:
            return missed
        if policies.catch_up == "none":
            return []
        window = policies.catch_up_window_ms
        if window is None and policies.catch_up == "all":
            window = DAY
        elif window is None:
            following = self.dues[self.dues.index(missed[0]) + 1 :]
            window = min(max(following[0] - missed[0], 60_000), DAY) if following else DAY
        recent = [due for due in missed if due > now - window]
        return recent[-1:] if policies.catch_up == "latest" else recent[-policies.catch_up_max :]

    def _expired(self, due, leaves):
        match self.entry.options.expires:
            case None:
                return False
            case "auto":
                following = self.dues[self.dues.index(due) + 1 :]
                return bool(following) and following[0] <= leaves
            case lifetime:
                return self.runs[due].fire_ms + lifetime <= leaves


def entries_for_trouble():
    catch_ups = cycle(
        [
            {},
            {"catch_up": "all"},
            {"catch_up": "none"},
            {"catch_up": "all", "catch_up_window": "6h", "catch_up_max": 4},
            {"catch_up_window": "10m"},
            {"catch_up": "all", "catch_up_window": "3d", "jitter": "15m"},
            {"options": {"expires": "auto"}, "catch_up_window": "1d"},
            {"options": {"expires": "20m"}, "catch_up": "all", "blackout": "01:00-03:00"},
        ]
    )
    schedules = ("*/30 * * * *", "30 2 * * *", "0 */3 * * *", "0,7 1-4 * * *", "47m", "9h", "@weekly")
    return [
        entry(f"{number}", schedules[number % 7], timezone=ZONES[number % 10], **next(catch_ups))
        for number in range(56)
    ]


def serve_with_trouble(seed, days):
    """Kills, down times and clock steps at random; returns the daemon's rig and what the ledgers say."""
    dice = random.Random(seed)
    entries = entries_for_trouble()
    ledgers = [Ledger(each, BEGIN + days * DAY * 2) for each in entries]
    rig = beat_of(entries)
    began = BEGIN
    while rig.clock.ms < BEGIN + days * DAY:
        rig.jump_to(rig.clock.ms + dice.randrange(1, DAY))
        for ledger in ledgers:
            ledger.serve(began, rig.clock.ms)
        trouble = dice.choice(["kill", "down", "long down", "step", "leap", "leap there and back"])
        if trouble == "step":
            rig.clock.step(dice.choice([-1, 1]) * dice.choice([1, 30, 3600]))
        elif trouble == "leap":
            rig.clock.step(dice.randrange(DAY // 1000))
        elif trouble == "leap there and back":
            leap = dice.randrange(DAY // 1000)
            rig.clock.step(leap)
            began = rig.clock.ms
            rig.jump_to(began + dice.randrange(1, DAY // 2))
            for ledger in ledgers:
                ledger.serve(began, rig.clock.ms)
            rig.clock.step(-leap)
        else:
            rig.clock.advance(
                {"kill": 0, "down": dice.randrange(7200), "long down": dice.randrange(5 * 86_400)}[trouble]
            )
            rig.start()
            rig.beat.schedule.replace(entries)
        began = rig.clock.ms
    return rig, [run for ledger in ledgers for run in ledger.sent]


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2, 3))])
def test_whatever_happens_the_catch_up_policy_says_what_is_sent(seed):
    rig, expected = serve_with_trouble(seed, days=40)
    sent = rig.claims.pushed.at
    assert len(expected) > 5_000
    assert max(Counter(rig.claims.pushed).values()) == 1
    assert sorted(sent) == sorted(expected)


@pytest.mark.soak
@pytest.mark.timeout(3600)  # 11 minutes on a busy machine
@pytest.mark.parametrize("seed", range(100, 120))
def test_whatever_happens_in_a_year(seed):
    rig, expected = serve_with_trouble(seed, days=365)
    assert sorted(rig.claims.pushed.at) == sorted(expected)
