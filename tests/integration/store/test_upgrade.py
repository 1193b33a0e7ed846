"""Upgrade: a store that version 0.1.0 has written is read, and this version goes on with it.

``data/store_0_1_0.json`` has the keys of a Redis that the code of 0.1.0 filled (by ``data/make_0_1_0.py``, which says
how it is run). Keys that expire within seconds, the lease and a heartbeat, are left out: their owners are gone.
"""

import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from beatd.clock import SystemClock
from beatd.exceptions import StoreRefused
from beatd.message.protocol import open_envelope
from beatd.model import Entry, EntryState, run_id
from beatd.store import history
from beatd.store.claims import Claim, Claims
from beatd.store.client import connect
from beatd.store.daemon_registry import Registry
from beatd.store.dead_letters import DeadLetters
from beatd.store.ended_runs import SentRun
from beatd.store.entry_state import DispatchLookup, EntryStates, Running
from beatd.store.history_reader import Histories, Totals
from beatd.store.keys import Keys
from beatd.store.lease import Leases
from beatd.store.outbox import Outbox
from beatd.store.results import RedisResults
from beatd.store.run_requests import Backfill, Requests
from beatd.store.runtime_entries import Pause, Runtime
from beatd.store.runtime_replica import RuntimeReplica
from beatd.store.server_check import FORMAT, inspect
from beatd.store.worker_state import DelayedMessages, FinishedRuns, RevokedStore
from beatd.timestamps import iso_ms
from beatd.worker.consumers.redis import RedisConsumer
from tests.conftest import wait_for

NOW, DAY = 1_790_000_000_000, 86_400_000
KEYS = Keys()
DUMP = json.loads((Path(__file__).parent / "data" / "store_0_1_0.json").read_text())
TRIGGERED = "00000000-0000-4000-8000-000000000001"


def _bytes(value):
    return value.encode("latin-1") if isinstance(value, str) else value


@pytest.fixture
def url(redis_url):
    with connect(redis_url) as client:
        for name, (kind, value) in ((name, one.values()) for name, one in DUMP.items()):
            key = _bytes(name)
            if name.endswith((":lease", ":alive")):
                continue
            if kind == "string":
                client.set(key, _bytes(value))
            elif kind == "list":
                client.rpush(key, *map(_bytes, value))
            elif kind == "hash":
                client.hset(key, mapping={_bytes(field): _bytes(text) for field, text in value.items()})
            elif kind == "set":
                client.sadd(key, *map(_bytes, value))
            else:
                client.zadd(key, {_bytes(member): score for member, score in value})
    return redis_url


@pytest.fixture
def client(url):
    with connect(url) as client:
        yield client


@pytest.fixture
def lease(client):
    leases = Leases(client, KEYS, daemon_id="new", ttl_ms=60_000)
    return leases.value(leases.take([0])[0])


def test_the_next_term_has_a_higher_token(client):
    assert Leases(client, KEYS, daemon_id="new", ttl_ms=60_000).take([0]) == {0: 3}


def test_entries_go_on_where_they_were(client, lease):
    later = NOW + 150_000
    entries = [("tick", "every 30 s"), ("näme with spaces", "every 60 s"), ("changed", "new"), ("outboxed", "x")]
    assert dict(Claims(client, KEYS).load_entries(entries, lease_value=lease, now_ms=later)) == {
        "tick": EntryState(NOW + 120_000, NOW, 2),
        "näme with spaces": EntryState(later, NOW, 0),  # enabled again: from now, with its phase
        "changed": EntryState(later, later, 0),
        "outboxed": EntryState(NOW + 90_000, NOW, 2),
    }


def test_a_claimed_run_is_claimed_no_more_and_the_next_one_is(client, lease):
    claims = Claims(client, KEYS)
    runs = [Claim("tick", NOW + ms, "celery", b"m") for ms in (90_000, 120_000, 150_000)]
    [claimed] = claims.claim([runs], lease_value=lease)
    assert (claimed.left_out, claimed.refusals) == ({0, 1}, [])
    assert client.lindex("celery", 0) == b"m"
    tick = Entry(name="tick", task="t", schedule=SimpleNamespace(fingerprint="every 30 s"))
    assert EntryStates(client, KEYS).read([tick], now_ms=NOW) == [EntryState(NOW + 150_000, NOW, 3)]


def test_what_was_passed_over_is_to_come_once_the_clock_is_set_back(client, lease):
    claims = Claims(client, KEYS)
    [(_, state)] = claims.load_entries([("tick", "every 30 s")], lease_value=lease, now_ms=NOW + 10_000)
    assert state == EntryState(NOW, NOW, 2)
    [claimed] = claims.claim([[Claim("tick", NOW + 30_000, "celery", b"m")]], lease_value=lease)
    assert claimed.left_out == frozenset()


def test_the_history_is_read_and_continued(client, lease):
    histories, cells = Histories(client, KEYS), history.Cells()
    due = NOW + 150_000
    record = cells.sent(due, due, due + 2_000)
    list(Claims(client, KEYS).claim([[Claim("tick", due, "celery", b"m", "", record)]], lease_value=lease))
    records = list(histories.of(["tick"]))
    kinds = ["scheduled", "triggered", "skipped", "scheduled", "scheduled", "missed"]
    assert [one.kind for one in records] == kinds
    assert (records[1].run_id, records[2].reason, records[3].late_ms) == (TRIGGERED, "overlap", 4_500)
    assert (records[4].outcome, records[4].runtime_ms) == ("SUCCESS", 1_500)
    assert histories.totals(["tick"]) == {"tick": Totals(3, {"triggered": 1, "overlap": 1, "late": 2})}


def test_runs_of_the_past_are_known(client):
    assert Running(client, KEYS).unfinished({"tick": 60_000}, now_ms=NOW + 100_000).keys() == {"tick"}
    assert DispatchLookup(client, KEYS).reasons("tick", [NOW + 60_000, NOW + 90_000]) == ["dispatched", None]
    first = run_id("tick", NOW + 60_000)
    assert client.exists((KEYS.shard().finished + first), (KEYS.shard().sent + TRIGGERED)) == 2


def test_the_outbox_is_emptied_and_dead_letters_are_read(client, lease):
    outbox = Outbox(client, KEYS)
    [envelope] = outbox.oldest(10)
    assert open_envelope(envelope).id == run_id("outboxed", NOW + 90_000)
    assert outbox.strike([envelope], lease_value=lease) == 0
    letters = DeadLetters(client, KEYS)
    buried, refused = letters
    assert (buried.reason, buried.queue, buried.whole) == ("not registered", "work", True)
    assert (refused.reason, open_envelope(refused.message).id) == ("no queue gets it", run_id("outboxed", NOW + 60_000))
    assert (letters.requeue([buried]), letters.remove([refused]), letters.count()) == (1, 1, 0)
    assert open_envelope(client.rpop("work")).id in {"w0", "w1", "w2", "w3"}


def test_requests_are_found(client):
    requests = Requests(client, KEYS)
    [pending] = requests.open()
    assert pending.id == "pending"
    assert isinstance(pending.request, Backfill)
    assert (pending.request.entry, pending.request.at_most) == ("tick", 100)
    assert requests.answer("done").run_id == TRIGGERED


def test_runtime_entries_and_pauses_are_followed(client):
    replica = RuntimeReplica(client, KEYS)
    assert replica.refresh(anew=True).before.keys() == {"from-store", "tick"}
    assert (replica.tables, replica.revision) == ({"from-store": b'{"task":"t","schedule":30}'}, 4)
    runtime = Runtime(client, KEYS)
    assert dict(runtime.pauses()) == {"tick": Pause(since_ms=NOW, by="me", reason="maintenance")}
    assert runtime.resume(["tick"]) == ["tick"]
    assert replica.refresh().before.keys() == {"tick"}


def test_a_daemon_of_the_old_version_is_listed(client):
    view = Registry(client, KEYS).look(shards=1)
    assert view.daemons["old-host-1-aaaaaaaa"].status.version == "0.1.0"


def test_messages_that_a_dead_worker_held_or_parked_are_taken(url):
    consumer = RedisConsumer(url, ["work"], name="new", clock=SystemClock(), keys=KEYS)
    consumer.start()
    taken = []

    def take():
        consumer.tend()
        taken.extend(consumer.take(10))
        return len(taken) == 3

    wait_for(take, 20, "two messages of the dead worker, and a parked one whose time has come")
    parked = DUMP["{beatd}:parked"]["value"][0][0].rpartition("\0")[2]
    assert parked.encode("latin-1") in {one.raw for one in taken}
    consumer.ack(taken)
    consumer.stop()
    with connect(url) as client:
        assert client.zcard(KEYS.workers().parked) == client.llen("work") == 0


def test_the_state_of_workers_is_read(url, client):
    assert RevokedStore(url, KEYS).since(0) == [("revoked-1", NOW)]
    [(message, due_ms)] = DelayedMessages(client, KEYS).soonest(10)
    assert (message.queue, open_envelope(message.raw).id, due_ms) == ("celery", "waiting-1", NOW + DAY)
    ended = SentRun(run_id("tick", NOW + 60_000), "tick", iso_ms(NOW + 60_000))
    again = ended._replace(after_ms=NOW + 30_000, redelivered=True)
    for one in (ended, again):
        assert FinishedRuns(url, KEYS).among([one, SentRun("other", "tick", None)]) == {ended.id}
    assert RedisResults(url).get("result-1")["result"] == 42


# -- the format -------------------------------------------------------------------------------------------------------


def test_a_store_of_0_1_0_gets_its_format(client):
    assert client.get(KEYS.format) is None
    inspect(client, KEYS)
    assert client.get(KEYS.format) == b"1"
    inspect(client, KEYS)


@pytest.mark.parametrize(
    ("stored", "said"),
    [
        (b"2", r"a newer beatd has written it, in format 2; this version knows format 1\. Upgrade this daemon"),
        (b"two", r'\{beatd\}:format is "two", not a number; delete that key'),
        (b"9" * 5000, r"not a number"),
        (b"\xff", r"not a number"),
    ],
)
def test_another_format_is_refused(client, stored, said):
    client.set(KEYS.format, stored)
    with pytest.raises(StoreRefused, match=said):
        inspect(client, KEYS)
    assert client.get(KEYS.format) == stored


def test_a_format_of_another_type_is_refused(client):
    client.rpush(KEYS.format, "x")
    with pytest.raises(StoreRefused, match=r"\{beatd\}:format"):
        inspect(client, KEYS)


def test_each_prefix_has_a_format_of_its_own(client):
    client.set(KEYS.format, 2)
    inspect(client, Keys("other"))


def test_a_store_that_takes_no_writes_is_read(redis_server, client):
    client.config_set("maxmemory", "1")
    try:
        inspect(client, KEYS)
    finally:
        client.config_set("maxmemory", "0")
    assert client.get(KEYS.format) is None


def test_every_documented_format_is_known():
    page = (Path(__file__).parents[3] / "docs" / "upgrading.md").read_text()
    assert max(int(number) for number in re.findall(r"^\| \d\S+ \| (\d+)", page, re.MULTILINE)) == FORMAT


# -- a daemon ---------------------------------------------------------------------------------------------------------


def dispatched(log):
    return set(re.findall(r"Dispatched (\w+)", log.read_text()))


def test_a_daemon_starts_on_a_store_of_0_1_0(url, client, tmp_path):
    """The backfill of "tick" that 0.1.0 was asked for is made, although the entry is paused."""
    text = f'[redis]\nurl = "{url}"\n[beat_schedule.tick]\ntask = "t"\nschedule = "1s"\n'
    text += '[beat_schedule.outboxed]\ntask = "t"\nschedule = "1s"\n'
    (tmp_path / "beat.toml").write_text(text)
    with (tmp_path / "log").open("wb") as log:
        command = [sys.executable, "-m", "beatd", "run", "--config", tmp_path / "beat.toml"]
        daemon = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        wait_for(lambda: {"outboxed", "tick"} <= dispatched(tmp_path / "log"), 40, "runs")
        daemon.terminate()
        assert daemon.wait(20) == 0
    finally:
        daemon.kill()
    text = (tmp_path / "log").read_text()
    assert "term 3" in text
    assert not re.search(r"ERROR|Traceback|held back", text), text
    assert client.get(KEYS.format) == b"1"
