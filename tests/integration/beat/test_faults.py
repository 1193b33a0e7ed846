"""What a state store can do to a daemon: each fault has a name in the log, and none needs a restart."""

import socket
import threading

import pytest
import redis

from beatd.exceptions import StoreRefused
from beatd.store.client import connect
from beatd.store.keys import Keys
from beatd.store.server_check import inspect
from tests.chaos.proxy import Proxy

KEYS = Keys("beatd").shard()
KEPT = ("--appendonly", "yes", "--appendfsync", "always")


@pytest.fixture
def server(start_server):
    return start_server(*KEPT)


@pytest.fixture
def admin(server):
    with redis.Redis.from_url(server.url, socket_timeout=20) as admin:
        yield admin


def cut_off(admin):
    """Reconnections are what shows whether a password still holds."""
    for kind in ("normal", "pubsub"):
        admin.execute_command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")


def demand_password(server, admin):
    admin.config_set("requirepass", "new")
    cut_off(admin)


def waive_password(server, admin):
    admin.execute_command("AUTH", "new")
    admin.config_set("requirepass", "")


def replace(key):
    """Put something else in the place of a key, in one step: no run comes between."""

    def break_it(server, admin):
        with admin.pipeline() as both:
            both.rename(key, "kept")
            both.set(key, "mine")
            both.execute()

    return break_it


def put_back(key):
    return lambda server, admin: admin.rename("kept", key)


FAULTS = {
    "connection refused": (lambda s, a: s.kill(), lambda s, a: s.start(), "store_unavailable", "127.0.0.1"),
    "no answer": (lambda s, a: s.pause(), lambda s, a: s.resume(), "store_unavailable", "Timeout"),
    "read-only": (
        lambda s, a: a.replicaof("127.0.0.1", "1"),
        lambda s, a: a.replicaof("NO", "ONE"),
        "store_refused",
        "it is a read-only replica and takes no writes",
    ),
    "out of memory": (
        lambda s, a: a.config_set("maxmemory", "1"),
        lambda s, a: a.config_set("maxmemory", "0"),
        "store_refused",
        "its memory is full (maxmemory) and it takes no writes",
    ),
    "password demanded": (demand_password, waive_password, "store_refused", "it demands a password"),
    "rights taken": (
        lambda s, a: a.acl_setuser("default", enabled=True, nopass=True, keys=["*"], commands=["+@all", "-@scripting"]),
        lambda s, a: a.acl_setuser("default", enabled=True, nopass=True, keys=["*"], commands=["+@all"]),
        "store_refused",
        "eval",
    ),
    "a queue that is no list": (
        replace("celery"),
        put_back("celery"),
        "entry_failed",
        "celery",
    ),
    "a counter that is none": (
        replace(KEYS.claims),
        put_back(KEYS.claims),
        "store_refused",
        f"key {KEYS.claims} does not hold a number",
    ),
    "state of a foreign type": (
        replace(KEYS.last_due),
        put_back(KEYS.last_due),
        "store_refused",
        f"the key {KEYS.last_due} is a string",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_it_is_named_and_survived_and_no_run_is_lost(fault, server, admin, start_daemon, queue_of):
    break_it, mend, event, text = FAULTS[fault]
    queue, daemon = queue_of(server.url), start_daemon(server.url)
    queue.grows()
    break_it(server, admin)
    try:
        daemon.says(event, text)
    finally:
        mend(server, admin)
    queue.grows(8)
    queue.assert_every_run_once()


def test_a_password_that_is_wrong_from_now_on_is_refused(server, admin, start_daemon, queue_of):
    admin.acl_setuser("beat", enabled=True, passwords=["+old"], keys=["*"], channels=["*"], commands=["+@all"])
    queue = queue_of(server.url)
    daemon = start_daemon(server.url.replace("redis://", "redis://beat:old@"))
    queue.grows()
    admin.acl_setuser("beat", enabled=True, passwords=["-old", "+new"])
    cut_off(admin)
    daemon.says("store_refused", "invalid username-password pair")
    assert all("old@" not in str(record) for record in daemon.records), "a password in the log"
    admin.acl_setuser("beat", enabled=True, passwords=["+old"])
    queue.grows(8)
    queue.assert_every_run_once()


def test_a_server_that_loads_its_data_is_waited_for(start_server, start_daemon, queue_of):
    server = start_server(*KEPT, "--key-load-delay", "400", "--loading-process-events-interval-bytes", "1024")
    queue = queue_of(server.url)
    with redis.Redis.from_url(server.url) as admin, admin.pipeline(transaction=False) as ballast:
        for number in range(80_000):
            ballast.set(f"ballast:{number}", "x" * 100)
        ballast.execute()
    daemon = start_daemon(server.url)
    queue.grows()
    server.kill()
    loading = threading.Thread(target=server.start, args=(60,))
    loading.start()  # it takes 32 s or more, unless the delay is taken away; the server answers each 1,024 keys
    try:
        daemon.says("store_unavailable", "loading", timeout=30)  # at the latest when it is said again
    finally:
        with redis.Redis.from_url(server.url, socket_timeout=20) as admin:
            admin.config_set("key-load-delay", 0)
        loading.join()
    queue.grows(8)
    queue.assert_every_run_once()


def test_a_failover_behind_one_address_is_followed(start_server, start_daemon, queue_of, wait_until):
    """The address is that of a proxy, a service of Kubernetes or a name: connections that are open stay with the server
    that is no primary any more, and answers as if nothing had happened, but for writes."""
    former = start_server(*KEPT)
    replica = start_server(*KEPT, "--replicaof", "127.0.0.1", str(former.port))
    with (
        Proxy(former.port) as proxy,
        redis.Redis.from_url(former.url) as old,
        redis.Redis.from_url(replica.url) as new,
    ):
        wait_until(lambda: new.info("replication")["master_link_status"] == "up", 20, "a replica")
        queue, daemon = queue_of(replica.url), start_daemon(f"redis://127.0.0.1:{proxy.port}/0")
        queue.grows()
        proxy.target = replica.port
        old.execute_command("FAILOVER", "TO", "127.0.0.1", replica.port)  # loads no data, which would end connections
        daemon.says("store_refused", "it is a read-only replica")
        queue.grows(8)
        queue.grows(25)  # longer than a renewal of the lease
    queue.assert_every_run_once()


def test_scripts_that_are_forgotten_are_sent_again(server, admin, start_daemon, queue_of):
    queue, daemon = queue_of(server.url), start_daemon(server.url)
    for _ in range(3):
        queue.grows(3)
        admin.script_flush()
    queue.grows(25)  # longer than a renewal of the lease
    queue.assert_every_run_once()
    refused = {"store_refused", "entry_failed"}
    assert [each for each in daemon.records if each.get("event") in refused or "NOSCRIPT" in each["message"]] == []


def test_answers_that_take_seconds_delay_and_lose_nothing(server, start_daemon, queue_of):
    with Proxy(server.port) as proxy:
        queue, daemon = queue_of(server.url), start_daemon(f"redis://127.0.0.1:{proxy.port}/0")
        queue.grows()
        proxy.mode = "slow"
        daemon.says("store_unavailable", "Timeout", timeout=30)
        proxy.mode = "pass"
        queue.grows(8)
    queue.assert_every_run_once()


@pytest.mark.parametrize("how", ["restart without data", "flushed"])
def test_a_store_that_forgets_everything_begins_anew_and_replays_nothing(
    how, start_server, start_daemon, queue_of, wait_until
):
    server = start_server()
    queue, daemon = queue_of(server.url), start_daemon(server.url)
    queue.grows()
    last = queue.dues[-1]
    if how == "flushed":
        with redis.Redis.from_url(server.url) as admin:
            admin.flushall()
    else:
        server.restart()
    wait_until(lambda: queue.dues, 20, "runs after that")
    assert daemon.process.poll() is None
    queue.grows(8)
    queue.assert_every_run_once()
    assert queue.dues[0] > last, "a run from before was made again"
    with redis.Redis.from_url(server.url) as admin:
        assert set(admin.hkeys(KEYS.fingerprints)) == {b"tick", b"tock"}, "the state was not begun anew"


def test_a_lost_end_of_the_state_is_noticed_and_made_good(server, admin, start_daemon, queue_of):
    """The server goes back by some runs, as after a loss of power, and nobody's lease ends."""
    queue, daemon = queue_of(server.url), start_daemon(server.url)
    queue.grows(8)
    with admin.pipeline() as pipeline:
        pipeline.lpop("celery", 3)
        pipeline.hincrby(KEYS.last_due, "tick", -300)
        pipeline.hincrby(KEYS.runs, "tick", -3)
        pipeline.decrby(KEYS.claims, 3)
        pipeline.execute()
    daemon.says("store_went_back", KEYS.claims)
    queue.grows(8)
    queue.assert_every_run_once()


def test_one_unreadable_entry_does_not_stop_the_others(server, admin, start_daemon, queue_of):
    broken, other = queue_of(server.url), queue_of(server.url, "other")
    daemon = start_daemon(server.url)
    broken.grows()
    with admin.pipeline() as both:  # in one step: no run comes between
        both.hget(KEYS.last_due, "tick")
        both.hset(KEYS.last_due, "tick", "nonsense")
        kept, _ = both.execute()
    record = daemon.says("entry_failed", KEYS.last_due)
    assert record["entry"] == "tick"
    other.grows()
    assert admin.hget(KEYS.last_due, "tick") == b"nonsense", "what nobody understands is not to be overwritten"
    admin.hset(KEYS.last_due, "tick", kept)
    broken.grows(8)
    broken.assert_every_run_once()
    other.assert_every_run_once(200)


@pytest.mark.parametrize(
    ("put", "event"),
    [
        (lambda admin: admin.hset(KEYS.lease, "a", "b"), "lease_foreign"),
        (lambda admin: admin.set(KEYS.lease, "somebody else's"), "lease_foreign"),
        (lambda admin: admin.set(KEYS.term, "nonsense"), "store_refused"),
    ],
    ids=["a lease of a foreign type", "somebody else's value in the lease", "a term that is no number"],
)
def test_what_is_not_ours_is_named_and_left_alone(put, event, server, admin, start_daemon, queue_of):
    put(admin)
    before = {key: admin.dump(key) for key in (KEYS.lease, KEYS.term)}
    daemon = start_daemon(server.url)
    record = daemon.says(event, "beatd}:0:")
    assert {key: admin.dump(key) for key in before} == before
    assert len(daemon.records) < 100, f"said too often: {record}"
    admin.delete(KEYS.lease, KEYS.term)
    queue_of(server.url).grows()


def test_a_server_that_evicts_is_named_at_the_start(start_server, start_daemon):
    server = start_server("--maxmemory-policy", "allkeys-lru")
    assert "noeviction" in start_daemon(server.url).says("store_evicts")["message"]


def test_a_replica_is_named_at_the_start(server, start_server, start_daemon):
    replica = start_server("--replicaof", "127.0.0.1", str(server.port))
    assert "read-only replica" in start_daemon(replica.url).says("store_is_replica")["message"]


def test_a_server_that_is_too_old_is_refused():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_answer_as_redis_5, args=(listener,), daemon=True).start()
        url = f"redis://127.0.0.1:{listener.getsockname()[1]}/0?protocol=2"
        with connect(url) as client, pytest.raises(StoreRefused, match=r"is Redis 5\.0\.14; beatd needs Redis 6\.2"):
            inspect(client)


def _answer_as_redis_5(listener):
    """As much of the protocol as INFO needs: an old server cannot be had everywhere."""
    connection, _ = listener.accept()
    info = b"# Server\r\nredis_version:5.0.14\r\n"
    with connection, connection.makefile("rb") as lines:
        while head := lines.readline():
            words = [lines.read(int(lines.readline()[1:]) + 2)[:-2] for _ in range(int(head[1:]))]
            answers = {b"INFO": b"$%d\r\n%s\r\n" % (len(info), info), b"PING": b"+PONG\r\n"}
            connection.sendall(answers.get(words[0].upper(), b"+OK\r\n"))
