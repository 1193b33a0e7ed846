"""Claims that wait for replicas: what is confirmed, what is said when they are away, and that nothing is undone."""

import re
import subprocess
import sys
import time

import pytest
import redis
from redis.connection import Connection

from beatd.exceptions import StoreRefused, TermLost
from beatd.store.claims import Claim, Claims
from beatd.store.client import connect
from beatd.store.keys import Keys
from beatd.store.lease import Leases
from beatd.store.script import FORGOTTEN_AFTER_S, PATIENCE, RETRY_WAIT_S, Replicas
from beatd.store.server_check import check_wait

KEYS = Keys("beatd")
WAIT_MS = 300


@pytest.fixture
def primary(start_server):
    return start_server("--repl-diskless-sync-delay", "0")


@pytest.fixture
def replica(primary, start_server, wait_until):
    replica = start_server("--replicaof", "127.0.0.1", str(primary.port))
    with redis.Redis.from_url(replica.url) as client:
        wait_until(lambda: client.info("replication")["master_link_status"] == "up", 20, "the replica to be in step")
    return replica


@pytest.fixture
def client(primary):
    with connect(primary.url) as client:
        yield client


@pytest.fixture
def lease_value(client):
    leases = Leases(client, KEYS, daemon_id="a", ttl_ms=60_000)
    return leases.value(leases.take([0])[0])


def claim(claims, lease_value, *dues_ms):
    """A batch for each."""
    batches = ([Claim("tick", due_ms, "celery", b"%d" % due_ms)] for due_ms in dues_ms)
    return [one.left_out for one in claims.claim(batches, lease_value=lease_value)]


def events(caplog):
    return [record.event for record in caplog.records if hasattr(record, "event")]


def test_what_is_confirmed_is_at_the_replica(client, replica, lease_value, caplog):
    claims = Claims(client, KEYS, replicas=Replicas(1, 5_000))
    with redis.Redis.from_url(replica.url) as there:
        for due_ms in range(1_000, 1_050):
            claim(claims, lease_value, due_ms)
            assert there.lindex("celery", 0) == b"%d" % due_ms, "handed out before the replica had it"
    assert events(caplog) == []


def test_replicas_that_are_away_delay_and_undo_nothing_and_are_named_once(
    client, replica, lease_value, caplog, monkeypatch, wait_until
):
    caplog.set_level("INFO", "beatd.store")
    now = [1_000.0]
    monkeypatch.setattr("beatd.store.script.monotonic", lambda: now[0])
    replicas = Replicas(1, WAIT_MS)
    claims = Claims(client, KEYS, replicas=replicas)
    replica.pause()
    started = time.monotonic()
    assert claim(claims, lease_value, 1_000, 2_000) == [frozenset(), frozenset()]
    assert time.monotonic() - started >= 2 * WAIT_MS / 1000
    assert claim(claims, lease_value, 1_000) == [frozenset({0})], "claimed stays claimed"
    assert events(caplog) == ["store_unreplicated"]
    assert (caplog.records[0].confirmed, caplog.records[0].wanted) == (0, 1)
    replica.resume()
    client.set("written", "while it was away")
    wait_until(lambda: client.wait(1, 1_000), timeout=20, what="the replica to have caught up")
    now[0] += RETRY_WAIT_S  # it is waited for in full again, and may be slow
    replicas._timeout_ms = 4_000
    assert claim(claims, lease_value, 3_000, 4_000) == [frozenset(), frozenset()]
    assert events(caplog) == ["store_unreplicated", "store_unreplicated_over"]
    assert client.lrange("celery", 0, -1) == [b"4000", b"3000", b"2000", b"1000"]


def test_replicas_that_stay_away_are_waited_for_now_and_then_only(client, replica, lease_value, monkeypatch):
    claims = Claims(client, KEYS, replicas=Replicas(1, WAIT_MS))
    now = [1_000.0]
    monkeypatch.setattr("beatd.store.script.monotonic", lambda: now[0])

    def seconds(*dues):
        started = time.monotonic()
        assert claim(claims, lease_value, *dues) == [frozenset()] * len(dues)
        return time.monotonic() - started

    replica.pause()
    assert seconds(*range(1_000, 1_000 + PATIENCE)) >= PATIENCE * WAIT_MS / 1000
    assert seconds(*range(2_000, 2_100)) < 100 * WAIT_MS / 1000 / 2
    now[0] += RETRY_WAIT_S
    assert seconds(3_000) >= WAIT_MS / 1000
    assert seconds(*range(4_000, 4_100)) < 100 * WAIT_MS / 1000 / 2


def test_a_term_that_is_over_is_found_out_all_the_same(client, replica, lease_value):
    claims = Claims(client, KEYS, replicas=Replicas(1, WAIT_MS))
    claim(claims, lease_value, 1_000)
    client.delete(KEYS.shard(0).lease)
    with pytest.raises(TermLost):
        claim(claims, lease_value, 2_000, 3_000)
    assert client.ping(), "an answer was left unread on the connection"
    assert client.llen("celery") == 1


def test_nobody_is_waited_for_by_default(client, replica, lease_value, caplog):
    replica.pause()
    started = time.monotonic()
    claim(Claims(client, KEYS, replicas=Replicas(0, 60_000)), lease_value, 1_000)
    assert time.monotonic() - started < 30
    assert events(caplog) == []


def test_a_user_who_may_not_wait_is_refused_at_the_start_and_claims_later_on(primary, client, lease_value, caplog):
    client.execute_command("ACL", "SETUSER", "beat", "on", ">secret", "~*", "+@all", "-wait")
    with connect(primary.url.replace("//", "//beat:secret@")) as user:
        with pytest.raises(StoreRefused, match=r"may not run WAIT: add \+wait;"):
            check_wait(user)
        assert claim(Claims(user, KEYS, replicas=Replicas(1, WAIT_MS)), lease_value, 1_000) == [frozenset()]
    assert events(caplog) == ["store_unreplicated"]


@pytest.mark.parametrize("wanted", [0, 1])
def test_a_script_that_is_lost_between_two_batches_changes_no_order(client, replica, lease_value, wanted):
    claims = Claims(client, KEYS, replicas=Replicas(wanted, 5_000))

    def batches():
        for due_ms in range(1_000, 1_006):
            yield [Claim("tick", due_ms, "celery", b"%d" % due_ms)]
            client.script_flush()

    assert [one.left_out for one in claims.claim(batches(), lease_value=lease_value)] == [frozenset()] * 6
    assert client.lrange("celery", 0, -1) == [b"%d" % due_ms for due_ms in range(1_005, 999, -1)]


def test_a_claim_carries_its_script_only_once(client, lease_value):
    def received():
        return client.info("stats")["total_net_input_bytes"]

    claims = Claims(client, KEYS)
    claim(claims, lease_value, 1_000)
    before = received()
    claim(claims, lease_value, *range(2_000, 2_010))
    assert received() - before < 10 * 1_000


CONFIG = """
[redis]
url = "{url}"
wait_replicas = 1
wait_timeout = "500ms"
[log]
format = "json"
[beat_schedule.tick]
task = "tasks.tick"
schedule = 0.25
"""


def test_a_daemon_goes_on_while_its_replica_is_away(primary, replica, client, tmp_path, wait_until):
    (tmp_path / "beat.toml").write_text(CONFIG.format(url=primary.url))
    with (tmp_path / "log").open("wb") as log:
        command = [sys.executable, "-m", "beatd", "--config", str(tmp_path / "beat.toml")]
        daemon = subprocess.Popen(command, stdout=log, stderr=log)

    def said():
        return re.findall(r'"(store_unreplicated(?:_over)?)"', (tmp_path / "log").read_text())

    try:
        wait_until(lambda: client.llen("celery") >= 4, 20, "runs")
        replica.pause()
        wait_until(lambda: said()[-1:] == ["store_unreplicated"], 20, "that to be said")
        before = client.llen("celery")
        wait_until(lambda: client.llen("celery") >= before + 8, 20, "runs without a replica")
        replica.resume()
        wait_until(lambda: said()[-1:] == ["store_unreplicated_over"], 30, "its end to be said")
    finally:
        daemon.terminate()
        assert daemon.wait(15) == 0
    assert set(said()[::2]) == {"store_unreplicated"}, "each time it is said once"
    assert set(said()[1::2]) == {"store_unreplicated_over"}


def test_a_server_that_is_no_primary_any_more_is_no_problem(monkeypatch):
    """It died while its replica was behind. Nobody asks it again, so that it would confirm."""
    now, replicas = [1_000.0], Replicas(1, WAIT_MS)
    monkeypatch.setattr("beatd.store.script.monotonic", lambda: now[0])
    replicas.confirmed("old:6379", 0)
    assert "old:6379" in replicas.unreplicated
    for _ in range(7):
        now[0] += 10
        replicas.confirmed("new:6379", 1)
    assert replicas.unreplicated == ""
    replicas.confirmed("new:6379", 0)
    now[0] += FORGOTTEN_AFTER_S + 1
    assert replicas.unreplicated == "", "another daemon leads"


def test_a_claim_is_not_taken_for_the_answer_to_a_health_check(client, replica, lease_value, monkeypatch):
    """A connection is checked when it was not used for a while: that may be over between a claim and its WAIT."""
    claims = Claims(client, KEYS, replicas=Replicas(1, 5_000))
    claim(claims, lease_value, 1_000)
    send = Connection.send_packed_command

    def send_slowly(connection, command, check_health=True):
        send(connection, command, check_health)
        connection.next_health_check = 1.0  # long ago

    monkeypatch.setattr(Connection, "send_packed_command", send_slowly)
    assert claim(claims, lease_value, 2_000, 3_000) == [frozenset(), frozenset()]
