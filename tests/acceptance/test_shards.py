"""Several daemons, several shards: each run exactly once, whoever comes and goes, and whatever their number becomes."""

import itertools
import json
import signal
from collections import Counter, defaultdict
from datetime import datetime

import pytest

from beatd.message.protocol import open_envelope

HEAD = """
[redis]
url = "{url}"
[leader]
ttl = "{ttl}"
shards = {shards}
[defaults]
catch_up = "all"
catch_up_max = 1000
"""
ENTRY = """
[beat_schedule.e{number}]
task = "tasks.tick"
schedule = 0.25
"""
PERIOD_MS = 250


@pytest.fixture
def write(tmp_path, redis_url):
    def write(shards, *, entries=100, name="beat.toml", ttl="10s"):
        path = tmp_path / name
        text = "".join(ENTRY.format(number=number) for number in range(entries))
        path.write_text(HEAD.format(url=redis_url, shards=shards, ttl=ttl) + text)
        return str(path)

    return write


@pytest.fixture
def shares(beatd, wait_until):
    """``shares(file, [2, 2, 2])`` waits until the living daemons lead so many shards; returns theirs by pid."""

    def until(file, wanted):
        def look():
            document = json.loads(beatd("status", "--config", file, "--json").stdout)
            found = {one["pid"]: [s["shard"] for s in one["shards"]] for one in document["daemons"] if one["alive"]}
            return found if sorted(map(len, found.values())) == sorted(wanted) else None

        return wait_until(look, timeout=30, what=f"shares of {wanted}")

    return until


def runs(client):
    """The due times (ms) of everything in the queue, by entry."""
    found = defaultdict(list)
    for raw in reversed(client.lrange("celery", 0, -1)):
        headers = open_envelope(raw).headers
        due_at = datetime.fromisoformat(headers["beatd-due-at"])
        found[headers["beatd-entry"]].append(round(due_at.timestamp() * 1000))
    return found


def assert_every_run_once(client, entries):
    found = runs(client)
    assert len(found) == entries
    steps = Counter(b - a for dues in found.values() for a, b in itertools.pairwise(sorted(dues)))
    assert set(steps) == {PERIOD_MS}, f"runs are missing or doubled: {steps}"


def more(client, wait_until, count, what):
    before = client.llen("celery")
    wait_until(lambda: client.llen("celery") >= before + count, timeout=30, what=what)


def all_go_on(client, wait_until, entries, timeout=60):
    """Wait until each of the entries has had a run no earlier than the newest that there is now: none has stopped, and
    none is behind, as those of a shard are whose leader was away."""
    newest = max(map(max, runs(client).values()))

    def have_caught_up():
        found = runs(client)
        return len(found) == entries and min(map(max, found.values())) >= newest

    wait_until(have_caught_up, timeout, f"runs of all {entries} entries")


@pytest.mark.slow
def test_three_daemons_six_shards_one_killed_one_started(start_beatd, write, shares, client, wait_until):
    file = write(6)
    killed, *others = [start_beatd("--config", file, "--log-format", "json") for _ in range(3)]
    before = shares(file, [2, 2, 2])
    killed.end(signal.SIGKILL)
    after = shares(file, [3, 3])
    for pid in after:
        assert set(before[pid]) <= set(after[pid]), "only the shards of the dead move"
    more(client, wait_until, 1_500, "runs by two daemons")
    start_beatd("--config", file)
    joined = shares(file, [2, 2, 2])
    for pid in after:
        assert set(joined[pid]) <= set(after[pid]), "who joins gets its share, and nothing else moves"
    for daemon in others:
        *_, said = [json.loads(match.string) for match in daemon.expect('"event": ?"shards_handed_over"')]
        assert said["shards"] == sorted({*after[daemon.pid]} - {*joined[daemon.pid]})
    more(client, wait_until, 1_500, "runs by three daemons again")
    all_go_on(client, wait_until, 100)
    assert_every_run_once(client, 100)


def test_who_ends_in_order_hands_its_shards_over_long_before_leases_end(start_beatd, write, shares, client, wait_until):
    file = write(4, entries=40, ttl="90s")
    first, second = start_beatd("--config", file), start_beatd("--config", file)
    shares(file, [2, 2])
    led = len(second.find("Leading shard"))
    first.send(signal.SIGTERM)
    second.expect("Leading shard", times=led + 2)
    assert first.wait() == 0
    more(client, wait_until, 200, "runs by the other")
    all_go_on(client, wait_until, 40)
    assert_every_run_once(client, 40)


@pytest.mark.slow
def test_another_number_of_shards_loses_and_repeats_nothing(start_beatd, write, shares, client, wait_until):
    """A rolling change from one shard to five, and back to two by a restart."""
    one, five = write(1, entries=40), write(5, entries=40, name="five.toml")
    old = start_beatd("--config", one)
    old.expect("Dispatched")
    new = start_beatd("--config", five)
    new.expect("not eligible to lead: it wants 5 shards, and .* has 1")
    more(client, wait_until, 200, "runs under one shard")
    assert not new.find("Leading")
    assert old.end(signal.SIGTERM) == 0
    shares(five, [5])
    more(client, wait_until, 200, "runs under five shards")
    assert new.end(signal.SIGTERM) == 0
    start_beatd("--config", write(2, entries=40, name="two.toml")).expect("Leading shard 1")
    more(client, wait_until, 200, "runs under two shards")
    all_go_on(client, wait_until, 40)
    assert_every_run_once(client, 40)


def test_an_empty_schedule_never_leads_beside_a_full_one(start_beatd, write, client, wait_until):
    file, empty = write(1, entries=5), write(1, entries=0, name="empty.toml")
    vacant = start_beatd("--config", empty)
    vacant.expect("Leading")
    start_beatd("--config", file).expect("Leading", timeout=20)
    vacant.expect("not eligible to lead: its schedule is empty")
    more(client, wait_until, 20, "runs of the schedule that there is")
    all_go_on(client, wait_until, 5)
    assert_every_run_once(client, 5)
