"""Hours of a fleet with everything that may come together: entries of all kinds, people who change, pause and trigger
them, leaders that die, freeze and come back, clocks that are set. The real store sends what the ledger says, then."""

import contextlib
import json
from collections import Counter
from datetime import UTC, datetime
from importlib.util import find_spec
from random import Random

import msgspec
import pytest

from beatd import config
from beatd.beat.delivery import DirectDelivery
from beatd.beat.dispatcher import Dispatcher
from beatd.beat.heap import DueHeap
from beatd.beat.loop import ShardLoop
from beatd.beat.manual_dispatch import ManualDispatcher
from beatd.beat.manual_runs import ManualRuns
from beatd.beat.message_builder import MessageBuilder
from beatd.beat.term import Leadership, Term
from beatd.exceptions import ConfigError
from beatd.message.protocol import open_envelope
from beatd.model import manual_run_id
from beatd.sources import RuntimeSource
from beatd.store.claims import Claims
from beatd.store.client import connect
from beatd.store.entry_state import DispatchLookup, Running
from beatd.store.keys import Keys
from beatd.store.lease import Leases
from beatd.store.run_requests import Backfill, Requests, Trigger
from beatd.store.runtime_entries import Pause, Runtime
from beatd.timestamps import from_ms, to_ms
from tests.chaos.ledger import due_ms_of
from tests.fakes import FakeClock
from tests.integration.beat.ledger import DAY, LATE, MINUTE, Ledger, Sent

KEYS = Keys("beatd")
HOUR = 60 * MINUTE
BEGINS = [
    datetime(2026, 10, 24, 21, 7, 13, 400_000, UTC),  # the night of a change of the clock
    datetime(2027, 3, 27, 20, 40, 2, 70_000, UTC),  # and of another
    datetime(2026, 12, 24, 18, 59, 59, 990_000, UTC),  # a Thursday before holidays
    datetime(2026, 9, 18, 14, 13, 20, 0, UTC),  # a Friday
]
ZONES = ("Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "UTC")
ENTRIES, MOVES = 16, 40


class Recipe:
    """Draws the tables of entries, as they are in a file."""

    def __init__(self, dice, begin_ms):
        self._dice, self._begin_ms = dice, begin_ms

    def _moment(self, low_h, high_h):
        return from_ms(self._begin_ms + self._dice.randrange(low_h * 60, high_h * 60) * MINUTE)

    def schedule(self):
        dice = self._dice
        chosen = [
            dice.choice(["30s", "45s", "1m", "5m", "17m", "1h", "2h30m"]),
            dice.choice(["*/5 * * * *", "*/40 * * * * *", "30 2 * * *", "*/30 1-3 * * *", "0 * * * *", "H/15 * * * *"]),
            {"every": dice.choice(["20s", "10m", "1h"]), "anchor": from_ms(self._begin_ms - 12_345)},
            {"every": dice.choice(["10m", "1h", "90s"]), "relative": True},
            {"minute": "*/10", "hour": "*/2"},
            ["*/15 * * * *", "7 * * * *"],
            {"at": self._moment(0, 20)},
        ]
        if find_spec("astral"):
            chosen.append({"solar": dice.choice(["sunset", "sunrise", "dusk_civil"]), "lat": 40.4, "lon": 49.9})
        return dice.choice(chosen)

    def limits(self):
        dice, limits = self._dice, {}
        if dice.random() < 0.4:
            limits["start"] = self._moment(-6, 6)
        if dice.random() < 0.4:
            limits["end"] = self._moment(6, 20)
        if dice.random() < 0.4:
            limits["max_runs"] = dice.choice([1, 3, 10, 60])
        return limits

    def blackout(self):
        windows = [
            {"blackout": "01:30-02:45"},
            {"blackout": ["22:00-22:50", {"cron": "20 */3 * * *", "duration": "25m"}]},
            {"only_on": "business-days"},
        ]
        if find_spec("holidays"):
            windows.append({"blackout": {"holidays": "DE-BY"}})
        return self._dice.choice(windows)

    def catch_up(self):
        dice = self._dice
        more = {"catch_up": dice.choice(["latest", "all", "none"])}
        if dice.random() < 0.4:
            more["catch_up_window"] = dice.choice(["3m", "40m", "6h"])
        if more["catch_up"] == "all" and dice.random() < 0.6:
            more["catch_up_max"] = dice.choice([1, 3, 50])
        return more

    def table(self):
        """One that can be an entry."""
        while True:
            table = self._table()
            with contextlib.suppress(ConfigError):
                config.entry("a", table)
                return table

    def _table(self):
        dice = self._dice
        table = {"task": "t", "schedule": self.schedule(), "timezone": dice.choice(ZONES)} | self.catch_up()
        is_chain = isinstance(table["schedule"], dict) and "relative" in table["schedule"]
        if dice.random() < 0.4:
            table |= self.limits()
        if dice.random() < 0.3:
            table |= self.blackout()
        if dice.random() < 0.2:
            table["options"] = {"expires": dice.choice(["auto", "25s", self._moment(2, 12)])}
        if dice.random() < 0.3:
            table |= {"overlap": dice.choice(["skip", "queue_one"]), "max_runtime": dice.choice(["50s", "4m"])}
        elif dice.random() < 0.3 and not is_chain:
            table["jitter"] = dice.choice(["4s", "50s", "10m"])
        return table


class Fleet:
    """Daemons over a real store, of which one leads or none, and a clock that obeys."""

    def __init__(self, url, folder, dice):
        self.dice = dice
        self.client = connect(url, timeout_ms=30_000)
        self.clock = FakeClock(to_ms(dice.choice(BEGINS)))
        self.recipe = Recipe(dice, self.clock.ms)
        self.requests, self.runtime = Requests(self.client, KEYS), Runtime(self.client, KEYS)
        (folder / "beat.toml").write_text("")
        self._config = config.load(folder / "beat.toml")
        self.files = {f"f{number}": self.recipe.table() for number in range(ENTRIES)}
        self.tables, self.paused = {}, set()
        self.ledgers = {}
        self.sent, self.by_hand, self.asked = [], [], {}
        self.backfilled, self.forgiven = [], set()
        self.highest_ms = 0
        self.said = []
        self._tokens, self._ends, self.former = {}, [], []
        self.process = None
        self.lead()

    # What is in force.

    def table_of(self, name):
        return self.files.get(name) or self.tables.get(name)

    def entry_of(self, name):
        table = self.table_of(name)
        return table and config.entry(name, table | ({"enabled": False} if name in self.paused else {}))

    def base(self):
        return msgspec.structs.replace(
            self._config, entries=tuple(config.entry(name, table) for name, table in self.files.items())
        )

    def names(self):
        return sorted({*self.files, *self.tables})

    # A daemon receives its schedule.

    def replace_schedule(self, schedule):
        self.process.schedule.replace(schedule.entries)

    def change_schedule(self, change):
        self.process.schedule.amend(change.put, change.gone)

    def runtime_entries_read(self, revision): ...

    def runtime_faults(self, names):
        assert list(names) == []

    # Leaders.

    def lead(self):
        """A daemon that knows nothing but files and store becomes the leader."""
        leases = Leases(self.client, KEYS, daemon_id=f"d{len(self.former)}", ttl_ms=DAY)
        lease = self.client.get(KEYS.shard().lease)
        token = leases.take([0], gone={0: lease.decode()} if lease else {})[0]
        leadership = Leadership(self.clock, 0)
        leadership.begin(Term(token, leases.value(token), 1e18))
        claims, running = Claims(self.client, KEYS, keep=2_000), Running(self.client, KEYS)
        messages, delivery = MessageBuilder("celery", origin="test"), DirectDelivery(self)
        dispatcher = Dispatcher(claims, messages, delivery, running, self.clock)
        by_hand = ManualDispatcher(
            Requests(self.client, KEYS, keep=2_000), messages, delivery, running,
            report=dispatcher.report, clock=self.clock,
        )  # fmt: skip
        self.heap = DueHeap()
        self.process = ShardLoop(
            clock=self.clock,
            leadership=leadership,
            claims=claims,
            dispatcher=dispatcher,
            heap=self.heap,
            manual=ManualRuns(by_hand, DispatchLookup(self.client, KEYS), owns=lambda name: True),
        )
        self.former.append(self.process)
        self.source = RuntimeSource(self.client, KEYS, self.base(), self)
        self.source.set_base(self.base())
        self.source._look()
        self.resumes()
        self.turn()

    def depth(self, queue):
        return 0

    def resumes(self):
        """The leader looks at all entries."""
        for name in {*self.names(), *self.ledgers}:
            self.ledger(name).load(self.entry_of(name), self.clock.ms)

    def ledger(self, name):
        if name not in self.ledgers:
            self.ledgers[name] = Ledger(name, self.takes)
        return self.ledgers[name]

    def takes(self, run_id):
        """How long a run takes (ms)."""
        return Random(run_id).choice([10, 3_000, 45_000, 130_000, None])

    def turn(self):
        """Let the leader do all that is due now, and the workers take it."""
        self.work()
        while True:
            self.process.turn()
            assert self.process.problem is None
            self.take()
            fires_ms = self.heap.next_fire_ms()
            if fires_ms is None or fires_ms > self.clock.ms:
                break
        assert self.process.held == 0
        for ledger in self.ledgers.values():
            ledger.serve(self.clock.ms)

    def take(self):
        """Workers take what is in the queue."""
        while raw := self.client.rpop("celery"):
            headers = open_envelope(raw).headers
            name, id_ = headers["beatd-entry"], headers["id"]
            due_ms = due_ms_of(headers["beatd-due-at"])
            (self.by_hand if id_ in self.asked else self.sent).append((id_, Sent(name, due_ms, self.clock.ms)))
            takes = self.takes(id_)
            if takes is not None:
                self._ends.append((self.clock.ms + takes, id_))

    def work(self):
        """Workers store the results of the runs that have ended."""
        over = [id_ for at_ms, id_ in self._ends if at_ms <= self.clock.ms]
        for id_ in over:
            self.client.set(f"celery-task-meta-{id_}", json.dumps({"status": "SUCCESS", "result": None}), px=DAY)
        self._ends = [one for one in self._ends if one[1] not in set(over)]

    def run_to(self, until_ms):
        """Time passes, in steps in which nothing is late."""
        while self.clock.ms < until_ms:
            fires_ms = self.heap.next_fire_ms()
            self.pass_time((until_ms if fires_ms is None else min(fires_ms, until_ms)) - self.clock.ms)
            self.turn()

    def pass_time(self, ms):
        self.clock.ms += ms
        self.clock.mono += ms / 1000

    def close(self):
        self.client.close()

    # What people do.

    def reload(self, name, before):
        """The leader hears of a change of an entry, if there is a leader."""
        entry = self.entry_of(name)
        if name in self.tables:
            self.runtime.put(name, self.tables[name])
        if self.process is None or (entry and before and entry.means(before)):
            return
        if name in self.files:
            self.source.set_base(self.base())
        else:
            self.source._look()
        self.ledger(name).load(entry, self.clock.ms)
        self.turn()

    def change(self, name, new, *without):
        tables = self.files if name in self.files else self.tables
        before = self.entry_of(name)
        tables[name] = {key: value for key, value in tables[name].items() if key not in without} | new
        self.reload(name, before)

    def touch(self, name):
        self.change(name, {"args": [self.dice.random()]})

    def rewrite(self, name):
        self.change(name, self.recipe.table(), *self.table_of(name))

    def limit(self, name):
        self.change(name, self.recipe.limits(), "start", "end", "max_runs")

    def black_out(self, name):
        self.change(name, self.dice.choice([{}, self.recipe.blackout()]), "blackout", "only_on")

    def catch_up(self, name):
        self.change(name, self.recipe.catch_up(), "catch_up", "catch_up_window", "catch_up_max")

    def switch(self, name):
        self.change(name, {"enabled": not self.table_of(name).get("enabled", True)})

    def pause(self, name):
        """Pause it, or let it go on; or both before the leader looks."""
        before = self.entry_of(name)
        is_paused, is_seen = name in self.paused, self.dice.random() < 0.7
        if not is_paused:
            self.runtime.pause([name], Pause())
            self.paused.add(name)
        if is_paused or not is_seen:
            self.runtime.resume([name])
            self.paused.discard(name)
            self.ledger(name).was_off = True
        if self.process:
            self.source._look()
            self.ledger(name).load(self.entry_of(name), self.clock.ms)
            self.turn()
        assert before

    def leave(self, name):
        """An entry leaves the schedule, for moments or for long."""
        tables = self.files if name in self.files else self.tables
        table, is_brief = tables.pop(name), self.dice.random() < 0.4
        if tables is self.tables:
            self.runtime.remove(name)
        if self.process:
            if tables is self.files:
                self.source.set_base(self.base())
            else:
                self.source._look()
            self.ledger(name).load(None, self.clock.ms, is_noticed=False)
            self.turn()
            self.run_to(self.clock.ms + (self.dice.randrange(1_000, 10_000) if is_brief else LATE + 1_500))
            self.ledger(name).was_off = self.ledger(name).was_off or not is_brief
        if is_brief:
            tables[name] = table
            self.reload(name, None)

    def add(self, name):
        """Another entry, of a file or the store; or one that comes back."""
        name = self.dice.choice([name, *self.ledgers, f"f{len(self.said)}", f"r{len(self.said)}"])
        if self.table_of(name) is None:
            (self.files if name.startswith("f") else self.tables)[name] = self.recipe.table()
            self.reload(name, None)

    def trigger(self, name):
        entry, id_ = self.entry_of(name), f"request-{len(self.said)}"
        expires = entry.options.expires
        if self.process is None or (isinstance(expires, datetime) and to_ms(expires) <= self.clock.ms):
            return
        self.requests.ask(id_, Trigger(entry=name), good_for_ms=DAY)
        self.process.look_for_run_requests()
        run_id = manual_run_id(name, id_)
        self.asked[run_id] = Sent(name, self.clock.ms, self.clock.ms)
        self.turn()
        self.ledger(name).runs(entry, run_id, self.clock.ms)

    def backfill(self, name):
        """Ask for the runs of a window that may end in the future."""
        if self.process is None or self.entry_of(name).policies.overlap != "allow":
            return
        from_ms_ = self.clock.ms - self.dice.randrange(6 * HOUR)
        to_ms_ = from_ms_ + self.dice.randrange(MINUTE, 4 * HOUR)
        id_ = f"request-{len(self.said)}"
        window = Backfill(entry=name, from_ms=from_ms_, to_ms=to_ms_, rate=1_000.0, at_most=150)
        self.requests.ask(id_, window, good_for_ms=DAY)
        self.backfilled.append((name, from_ms_, min(to_ms_, self.clock.ms)))
        self.process.look_for_run_requests()
        for _ in range(100):
            self.turn()
            answer = self.requests.answer(id_)
            if answer and answer.state != "under_way":
                return
            self.run_to(self.clock.ms + 50)
        raise AssertionError(f"not done: {answer}")

    # What befalls daemons and hosts.

    def hand_over(self, _):
        self.lead()
        self.dice.choice(self.former).turn()  # one that was frozen since

    def outage(self, _):
        """Nobody leads; what people do meanwhile, a leader finds out afterwards."""
        self.process = None
        for _ in range(self.dice.choice([1, 1, 2, 3])):
            self.pass_time(self.dice.choice([3_000, 9_000, 40_000, self.dice.randrange(5 * HOUR)]))
            if self.dice.random() < 0.5:
                self.one_of(PEOPLE)
        self.lead()

    def freeze(self, _):
        """The leader's process stands still."""
        self.pass_time(self.dice.choice([3_000, 15_000, self.dice.randrange(3 * HOUR)]))
        self.stand_still()
        if (self.heap.next_fire_ms() or self.clock.ms) < self.clock.ms - LATE:
            self.resumes()
        self.turn()

    def stand_still(self):
        for ledger in self.ledgers.values():
            ledger.stand_still(self.clock.ms)

    def set_forward(self, _):
        ms = self.dice.choice([400, 1_500, 40_000, self.dice.randrange(4 * HOUR)])
        self.clock.ms += ms
        self.stand_still()
        if ms > 500:
            self.resumes()
        self.turn()

    def set_back(self, _):
        # a schedule that goes on before the window of a backfill does not know what that has sent
        self.forgiven |= {id_ for id_, one in self.sent if self._is_backfilled(one)}
        self.highest_ms = max(self.highest_ms, self.clock.ms)
        ms = self.dice.choice([400, 1_500, 40_000, self.dice.randrange(2 * HOUR)])
        self.clock.ms -= ms
        for ledger in self.ledgers.values():
            ledger.blur(self.highest_ms)
        if ms > 500:
            self.resumes()
        self.turn()

    def one_of(self, moves):
        name, move = self.dice.choice(self.names()), self.dice.choice(moves)
        self.said.append(
            f"{from_ms(self.clock.ms):%d %H:%M:%S.%f} {move} {name} {'' if self.process else '(no leader)'}"
        )
        getattr(self, move)(name)

    def check(self):
        """What was sent is what the ledgers say."""
        story = "\n".join(self.said)
        twice = [one for one, number in Counter(self.ids).items() if number > 1]
        assert twice == [], f"{[one for id_, one in self.sent if id_ in twice]}\n{story}"
        assert dict(self.by_hand) == self.asked, story
        for name, ledger in self.ledgers.items():
            if not ledger.is_vague:
                sent = [one for _, one in self.sent if one.name == name and not self._is_open(one)]
                due = [one for one in ledger.sent if not self._is_open(one)]
                assert _told(sent) == _told(due), f"{name} {self.table_of(name)}\n{story}"

    @property
    def ids(self):
        return [id_ for id_, _ in [*self.sent, *self.by_hand] if id_ not in self.forgiven]

    def _is_open(self, one):
        """True for a run that may have been sent or not."""
        return self._is_backfilled(one) or one.due_ms <= self.ledgers[one.name].blurred_ms

    def _is_backfilled(self, one):
        return any(name == one.name and low <= one.due_ms < high for name, low, high in self.backfilled)


def _told(runs):
    return [f"{from_ms(one.due_ms):%d %H:%M:%S.%f} at {from_ms(one.at_ms):%d %H:%M:%S.%f}" for one in sorted(runs)]


PEOPLE = [
    "touch",
    "rewrite",
    "limit",
    "black_out",
    "catch_up",
    "switch",
    "pause",
    "leave",
    "add",
    "trigger",
    "backfill",
]
TROUBLE = ["hand_over", "outage", "freeze", "set_forward", "set_back"]
QUIET = [*PEOPLE, "hand_over"]


def live(fleet, moves):
    for _ in range(moves):
        wait_ms = fleet.dice.choice([2_000, 30_000, 5 * MINUTE, fleet.dice.randrange(40 * MINUTE)])
        fleet.run_to(fleet.clock.ms + wait_ms)
        is_behind = fleet.clock.ms < fleet.highest_ms
        fleet.one_of(QUIET if is_behind or fleet.dice.random() < 0.6 else TROUBLE)
        fleet.check()
    fleet.run_to(max(fleet.clock.ms, fleet.highest_ms) + HOUR)
    fleet.check()


@pytest.mark.parametrize("seed", [*range(4), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(4, 24))])
def test_whatever_happens_the_ledger_says_what_is_sent(redis_url, tmp_path, seed):
    fleet = Fleet(redis_url, tmp_path, Random(seed))
    try:
        live(fleet, MOVES)
    finally:
        fleet.close()
    assert len(fleet.sent) > 100
