"""The third source beside a real server: in force within moments, through outages, and what is said about it."""

import json
import random
import threading

import pytest

from beatd import config
from beatd.sources import RuntimeSource
from beatd.store.client import connect
from beatd.store.keys import Keys
from beatd.store.runtime_entries import Pause, Runtime

KEYS = Keys()
TABLE = {"task": "tasks.add", "schedule": 30}


@pytest.fixture
def follow(tmp_path):
    """``follow(url, "a")`` starts a source over a file with these entries; ``.entries`` are in force after what it
    said, ``.amended`` is what it said."""
    started = []

    class Follower:
        def __init__(self, url, *names):
            entries = "".join(f'[beat_schedule.{name}]\ntask = "tasks.file"\nschedule = 60\n' for name in names)
            (tmp_path / "beat.toml").write_text(entries)
            self.config = config.load(tmp_path / "beat.toml")
            self.entries = {}
            self.amended = []
            self.revision = None
            self.orders = 0
            self.faulty = []
            self.source = RuntimeSource(
                connect(url, timeout_ms=30_000),
                KEYS,
                self.config,
                self,
            )
            self.source.set_base(self.config)
            self.source.start()
            started.append(self.source)

        def replace_schedule(self, schedule):
            self.entries = {entry.name: entry for entry in schedule.entries}

        def change_schedule(self, changes):
            kept = {name: entry for name, entry in self.entries.items() if name not in changes.gone}
            self.entries = {**kept, **changes.put}
            self.amended.append(changes)

        def runtime_entries_read(self, revision):
            self.revision = revision

        def look_for_run_requests(self):
            pass

        def look_for_commands(self):
            self.orders += 1

        def runtime_faults(self, names):
            self.faulty = names

        @property
        def enabled(self):
            return {name: entry.policies.enabled for name, entry in self.entries.items()}

    yield Follower
    for source in started:
        source.stop()


@pytest.fixture
def runtime(redis_url):
    with connect(redis_url) as client:
        yield Runtime(client, KEYS)


def test_what_is_there_already_is_in_force_when_it_has_been_read(follow, runtime, redis_url, caplog):
    caplog.set_level("INFO")
    runtime.put("b", TABLE)
    runtime.pause(["a"], Pause())
    follower = follow(redis_url, "a")
    assert follower.source.read.wait(10)
    assert follower.enabled == {"a": False, "b": True}
    assert follower.revision == 2
    assert (follower.amended[-1].runtime, follower.amended[-1].paused) == (1, 1)
    (record,) = [record for record in caplog.records if record.event.startswith("runtime")]
    assert (record.event, record.entries, record.pauses, record.revision) == ("runtime_read", 1, 1, 2)


def test_changes_are_in_force_within_moments(follow, runtime, redis_url, wait_until, caplog):
    caplog.set_level("INFO")
    follower = follow(redis_url, "a")
    assert follower.source.read.wait(10)
    runtime.put("b", TABLE)
    wait_until(lambda: follower.enabled == {"a": True, "b": True})
    runtime.pause(["a"], Pause())
    wait_until(lambda: follower.enabled == {"a": False, "b": True})
    runtime.resume(["a"])
    runtime.remove("b")
    wait_until(lambda: follower.enabled == {"a": True})

    def said():
        return [record.getMessage() for record in caplog.records if record.event == "runtime_changed"]

    wait_until(lambda: "−b" in "".join(said()))  # it is said after it is in force
    assert said()[:2] == ["Runtime changes: +b", "Runtime changes: paused a"]
    assert "resumed a" in "".join(said()[2:])


def test_a_pause_between_two_looks_is_noticed(follow, runtime, redis_url, wait_until):
    follower = follow(redis_url, "a")
    assert follower.source.read.wait(10)
    with connect(redis_url) as client, client.pipeline() as pipeline:
        keys = KEYS.runtime()
        for revision in (1, 2):  # paused, and resumed, at one go
            pipeline.hset(keys.revision, "number", revision)
            pipeline.zadd(keys.changes, {"a": revision})
        pipeline.publish(KEYS.wake, "changed")
        pipeline.execute()
    wait_until(lambda: follower.amended)
    ((name, entry),) = follower.amended[0].put.items()
    assert (name, entry) == ("a", follower.config.entries[0]), "the leader is to look at it anew"


def test_orders_are_heard(follow, redis_url, wait_until):
    follower = follow(redis_url)
    assert follower.source.read.wait(10)
    before = follower.orders
    with connect(redis_url) as client:
        client.publish(KEYS.wake, "ordered")
    wait_until(lambda: follower.orders > before)


def test_other_files_keep_what_the_store_adds(follow, runtime, redis_url, tmp_path):
    runtime.put("b", TABLE)
    follower = follow(redis_url, "a")
    assert follower.source.read.wait(10)
    (tmp_path / "beat.toml").write_text('[beat_schedule.c]\ntask = "tasks.file"\nschedule = 60\n')
    follower.source.set_base(config.load(tmp_path / "beat.toml"))
    assert set(follower.enabled) == {"b", "c"}


def test_what_is_wrong_is_said_once_and_the_others_go_on(follow, runtime, redis_url, wait_until, caplog):
    follower = follow(redis_url, "a")
    assert follower.source.read.wait(10)
    runtime.put("bad", {"task": "tasks.add"})
    runtime.put("a", TABLE)
    runtime.put("good", TABLE)
    wait_until(lambda: "good" in follower.enabled)
    runtime.put("more", TABLE)
    wait_until(lambda: "more" in follower.enabled)
    (broken,) = [record for record in caplog.records if record.event == "runtime_entry_broken"]
    assert (broken.entry, broken.key) == ("bad", "{beatd}:schedules")
    assert "runtime:bad: beat_schedule.bad: schedule is missing" in broken.getMessage()
    (overruled,) = [record for record in caplog.records if record.event == "entry_overruled"]
    assert overruled.entry == "a"
    assert set(follower.enabled) == {"a", "good", "more"}


def test_an_entry_that_is_wrong_and_overruled_is_said_once(follow, runtime, redis_url, wait_until, caplog):
    follower = follow(redis_url, "a")
    assert follower.source.read.wait(10)
    runtime.put("a", {"task": "tasks.add"})
    for number in range(3):
        runtime.put(f"more-{number}", TABLE)
        wait_until(lambda number=number: f"more-{number}" in follower.enabled)
    events = [record.event for record in caplog.records]
    assert (events.count("runtime_entry_broken"), events.count("entry_overruled")) == (1, 1)


def test_changes_with_which_the_receiver_failed_are_handed_over_again(follow, runtime, redis_url, wait_until):
    runtime.put("old", TABLE)
    follower = follow(redis_url, "a")
    assert follower.source.read.wait(10)
    change, failed = follower.change_schedule, []

    def fail(changes):
        if not failed:
            failed.append(changes)
            raise RuntimeError("boom")
        change(changes)

    follower.change_schedule = fail
    runtime.put("new", TABLE)
    wait_until(lambda: failed)
    runtime.remove("old")
    wait_until(lambda: set(follower.enabled) == {"a", "new"})


def test_a_removal_with_which_the_receiver_failed_is_handed_over_again(follow, runtime, redis_url, wait_until):
    runtime.put("old", TABLE)
    follower = follow(redis_url, "a")
    assert follower.source.read.wait(10)
    wait_until(lambda: "old" in follower.enabled)
    change, failed = follower.change_schedule, []

    def fail(changes):
        if not failed:
            failed.append(changes)
            raise RuntimeError("boom")
        change(changes)

    follower.change_schedule = fail
    runtime.remove("old")
    wait_until(lambda: set(follower.enabled) == {"a"})
    assert failed


def test_a_defect_of_a_receiver_does_not_end_the_following(follow, runtime, redis_url, wait_until, caplog):
    follower = follow(redis_url, "a")
    wait_until(follower.source.read.is_set, what="the first look")
    commands, failed = follower.look_for_commands, threading.Event()

    def fail():
        failed.set()
        raise ZeroDivisionError("a defect")

    follower.look_for_commands = fail
    wait_until(failed.is_set, 10, "a look for commands")
    follower.look_for_commands = commands
    runtime.put("later", TABLE)
    wait_until(lambda: follower.entries.keys() == {"a", "later"}, 20, "the new entry")
    (said,) = [record for record in caplog.records if getattr(record, "event", "") == "store_source_error"]
    assert said.getMessage() == "Following the store failed in an unexpected way"
    assert said.exc_info, "a defect is reported with its traceback"


def test_of_very_many_faults_the_first_are_said(follow, redis_url, caplog):
    with connect(redis_url) as client:
        client.hset(KEYS.runtime().schedules, mapping={f"n{number}": "[]" for number in range(500)})
        client.hset(KEYS.runtime().revision, mapping={"number": 500, "began": 1})
    assert follow(redis_url).source.read.wait(10)
    events = [record.event for record in caplog.records]
    assert (events.count("runtime_entry_broken"), events.count("runtime_entries_broken")) == (100, 1)


def garbage(drawn):
    """What somebody may have put in the place of an entry's table."""
    table = {"task": "tasks.add", "schedule": 30}
    values = [None, -1, 10**30, 1e308, "", "x", "9" * 5_000, [], {}, [[]], {"at": "9999-12-31T23:59:59"}, "\x00"]
    fields = [
        "task",
        "schedule",
        "expires",
        "countdown",
        "args",
        "kwargs",
        "timezone",
        "overlap",
        "max_runs",
        "nothing",
    ]
    match drawn.randrange(5):
        case 0:
            return drawn.randbytes(drawn.randrange(200))
        case 1:
            return drawn.choice([b"", b"[]", b"1", b"null", b"{", b"[" * 50_000, b'{"a":' * 10_000, b"NaN", b"\xff"])
        case 2:
            return json.dumps(table | {drawn.choice(fields): drawn.choice(values)}).encode()
        case 3:
            return json.dumps({"task": "tasks.add", "schedule": drawn.choice(values)}).encode()
        case _:
            return json.dumps(table).encode()[: drawn.randrange(1, 30)]


@pytest.mark.parametrize("seed", range(2))
def test_thousands_of_entries_that_are_none_hurt_only_themselves(follow, redis_url, wait_until, seed):
    drawn = random.Random(seed)
    with connect(redis_url) as client:
        keys = KEYS.runtime()
        client.hset(keys.schedules, mapping={f"bad{number}": garbage(drawn) for number in range(3_000)})
        client.hset(keys.schedules, mapping={"good": json.dumps(TABLE), b"\xff\n": b"\xff", "n" * 100_000: "x"})
        client.hset(keys.paused, mapping={f"paused{number}": garbage(drawn) for number in range(500)} | {"a": b"\xff"})
        client.hset(keys.revision, mapping={"number": 5, "began": 1})
        follower = follow(redis_url, "a", "b")
        wait_until(follower.source.read.is_set, timeout=60)
        assert {name: follower.enabled[name] for name in ("a", "b", "good")} == {"a": False, "b": True, "good": True}
        wait_until(lambda: len(follower.faulty) > 1_000, timeout=10)
        assert {"\\xff\n", "n" * 100_000} <= {*follower.faulty}
        Runtime(client, KEYS).put("more", TABLE)
        wait_until(lambda: "more" in follower.enabled, timeout=30)
        client.hset(keys.paused, "b", b"[[")
        client.delete(keys.schedules)
        wait_until(lambda: follower.enabled == {"a": False, "b": False}, timeout=30)
        wait_until(lambda: follower.faulty == [], timeout=10)


def test_huge_entries_are_not_read_and_named(follow, redis_url, wait_until, caplog):
    huge, full = b"x" * (3 << 20), json.dumps(TABLE | {"args": ["x" * ((1 << 20) - 100)]}).encode()
    with connect(redis_url) as client:
        keys = KEYS.runtime()
        client.hset(keys.schedules, mapping={f"huge{number}": huge for number in range(20)})
        client.hset(keys.schedules, mapping={f"full{number}": full for number in range(20)})
        client.hset(keys.schedules, mapping={f"good{number}": json.dumps(TABLE) for number in range(1_500)})
        client.hset(keys.paused, mapping={"huge0": huge, "good0": huge})
        client.hset(keys.revision, mapping={"number": 5, "began": 1})
        follower = follow(redis_url)
        wait_until(follower.source.read.is_set, timeout=60)
        assert len(follower.enabled) == 1_520
        assert not follower.enabled["good0"]
        wait_until(lambda: follower.faulty == sorted(f"huge{number}" for number in range(20)), timeout=10)
        assert "not read: it has 3,072 KiB; expected at most 1,024 KiB" in caplog.text
        for number in range(12):  # more than one answer may have
            Runtime(client, KEYS).put(f"more{number}", json.loads(full))
        client.hset(keys.schedules, "huge99", huge)
        client.zadd(keys.changes, {"huge99": 50})
        client.hset(keys.revision, "number", 50)
        wait_until(lambda: len(follower.enabled) == 1_532, timeout=60)
        wait_until(lambda: "huge99" in follower.faulty, timeout=60)


def test_while_the_store_is_away_what_it_said_last_holds(follow, start_server, wait_until, caplog):
    caplog.set_level("INFO")
    server = start_server("--appendonly", "yes")
    with connect(server.url) as client:
        Runtime(client, KEYS).put("b", TABLE)
    follower = follow(server.url, "a")
    assert follower.source.read.wait(10)
    server.kill()
    wait_until(lambda: any(record.event == "runtime_unreadable" for record in caplog.records))
    assert set(follower.enabled) == {"a", "b"}
    server.start()
    with connect(server.url) as client:
        Runtime(client, KEYS).put("c", TABLE)
    wait_until(lambda: set(follower.enabled) == {"a", "b", "c"}, timeout=20)
    assert any(record.event == "runtime_readable" for record in caplog.records)


def test_entries_that_a_flush_took_are_gone_and_it_is_said(
    follow, runtime, redis_server, redis_url, wait_until, caplog
):
    runtime.put("b", TABLE)
    follower = follow(redis_url, "a")
    assert follower.source.read.wait(10)
    redis_server.flush()
    wait_until(lambda: set(follower.enabled) == {"a"})
    wait_until(lambda: any(record.event == "runtime_went_back" for record in caplog.records))


def test_a_store_that_refuses_keeps_nobody_waiting(follow, redis_url, wait_until, caplog):
    with connect(redis_url) as client:
        client.set(KEYS.runtime().schedules, "mine")
        follower = follow(redis_url, "a")
        assert follower.source.read.wait(10)
        wait_until(lambda: any("schedules" in record.getMessage() for record in caplog.records))
        client.delete(KEYS.runtime().schedules)
        Runtime(client, KEYS).put("b", TABLE)
        wait_until(lambda: set(follower.enabled) == {"a", "b"}, timeout=20)


def test_ten_thousand_entries(follow, runtime, redis_url, wait_until):
    with connect(redis_url) as client:
        tables = {f"n{number}": f'{{"task": "t", "schedule": 30, "args": [{number}]}}' for number in range(10_000)}
        client.hset(KEYS.runtime().schedules, mapping=tables)
        client.hset(KEYS.runtime().revision, mapping={"number": 10_000, "began": 1})
    follower = follow(redis_url)
    assert follower.source.read.wait(30)
    assert follower.amended[-1].runtime == len(follower.entries) == 10_000
    runtime.remove("n77")
    wait_until(lambda: follower.amended[-1].runtime == 9_999)
    assert (follower.amended[-1].put, follower.amended[-1].gone) == ({}, {"n77"}), "only what has changed is said"
    assert len(follower.entries) == 9_999
