"""A Redis Cluster as state store: each run once, on all nodes, while slots move, and while nodes die."""

import json
import random
import re
import signal
import time
import uuid
from collections import defaultdict
from datetime import datetime
from itertools import pairwise
from pathlib import Path

import kombu
import pytest

from beatd.message.protocol import open_envelope
from beatd.store.keys import Keys
from beatd.store.topology import slot_of
from tests.acceptance.test_shards import ENTRY, PERIOD_MS, all_go_on, assert_every_run_once, more, runs
from tests.clusters import Cluster
from tests.conftest import missing

HEAD = """
[redis]
url = "{url}"
timeout = "2s"
wait_replicas = {replicas}
[broker]
url = "{broker}"
[leader]
ttl = "8s"
renew = "1s"
shards = {shards}
[defaults]
catch_up = "all"
catch_up_max = 1000
queue = "{queue}"
"""
ENTRIES = 30
TTL_S = 8
"""Seconds that a lease lasts."""


@pytest.fixture
def write(tmp_path, redis_url):
    def write(url, *, shards=3, entries=ENTRIES, replicas=0, broker=redis_url, queue="celery"):
        path = tmp_path / "beat.toml"
        head = HEAD.format(url=url, shards=shards, replicas=replicas, broker=broker, queue=queue)
        path.write_text(head + "".join(ENTRY.format(number=number) for number in range(entries)))
        return str(path)

    return write


@pytest.fixture
def tls_cluster(server_kind, certificates):
    """A cluster of three masters with a replica each, whose nodes are reached by TLS."""
    if server_kind != "redis":
        missing("a server that can speak TLS")
    cluster = Cluster(server_kind, replicas=1, certificates=certificates)
    yield cluster
    cluster.close()


@pytest.fixture
def own_cluster(server_kind):
    """A cluster that no other test gets, whatever is done to it."""
    cluster = Cluster(server_kind)
    yield cluster
    cluster.close()


@pytest.fixture
def lead(start_beatd, client, wait_until):
    """``lead(file)``: start a daemon, and wait until it leads all shards and sends."""

    def start(file):
        daemon = start_beatd("--config", file)
        daemon.expect("Leading shard", times=3)
        more(client, wait_until, 200, "runs")
        return daemon

    return start


@pytest.fixture
def with_app(tmp_path):
    """Add an app with the task to a file."""

    def add(file):
        (tmp_path / "proj.py").write_text(
            'from beatd import App\napp = App("proj")\n@app.task(name="tasks.tick")\ndef tick():\n    pass\n'
        )
        path = tmp_path / "beat.toml"
        path.write_text('app = "proj:app"\n' + path.read_text())
        return file

    return add


def status(beatd, file):
    return json.loads(beatd("status", "--config", file, "--json").stdout)


def slots(shards=3):
    return [slot_of(part.lease) for part in Keys(parts=shards).all_parts()]


def entries_of(shard, shards=3):
    keys = Keys(parts=shards)
    return {f"e{n}" for n in range(ENTRIES) if keys.of(f"e{n}") == keys.all_parts()[shard]}


def due_ms(message):
    """The due time (ms) of a message that kombu has read."""
    return round(datetime.fromisoformat(message.headers["beatd-due-at"]).timestamp() * 1000)


def newest(client, names):
    """The due time (ms) of the newest run of these entries."""
    return max((due for name, dues in runs(client).items() if name in names for due in dues), default=0)


def go_on(client, names, wait_until, timeout=30):
    """Wait until runs of these entries come again."""
    before = newest(client, names)
    wait_until(lambda: newest(client, names) > before + 2 * PERIOD_MS, timeout, f"runs of {sorted(names)[:3]} …")


def assert_no_run_is_missing(client):
    """For tests in which a message may come again, under its id: its daemon was killed while it published."""
    found = runs(client)
    assert len(found) == ENTRIES
    assert {b - a for dues in found.values() for a, b in pairwise(sorted(set(dues)))} == {PERIOD_MS}


@pytest.mark.slow
def test_every_run_once_with_a_shard_on_each_node(cluster, beatd, start_beatd, write, client, wait_until):
    file = write(cluster.url)
    daemon = start_beatd("--config", file)
    daemon.expect("Leading shard", times=3)
    assert {cluster.owner(slot).port for slot in slots()} == {server.port for server in cluster.masters}
    for server in cluster.masters:
        keys = [key.decode() for key in cluster.call(server, "KEYS", "*")]
        assert len({slot_of(key) for key in keys}) == 1, "all keys of a node are those of its shard"
    more(client, wait_until, 600, "runs")
    assert [shard["leader"] is not None for shard in status(beatd, file)["shards"]] == [True] * 3
    assert beatd("trigger", "e1", "--config", file).returncode == 0
    for name in ("e1", "e2", "e3", "e4"):
        assert f"Paused {name}" in beatd("pause", name, "--config", file).stdout
        assert "paused" in beatd("list", name, "--config", file).stdout
        assert f"Resumed {name}" in beatd("resume", name, "--config", file).stdout
    assert "1 triggered" in beatd("history", "e1", "--config", file).stdout
    done = beatd("check", "--connect", "--config", file)
    assert "reachable, a cluster of 3 nodes" in done.stdout, done.stderr
    daemon.end()
    start_beatd("--config", file).expect("Leading shard", times=3)
    more(client, wait_until, 300, "runs after a restart")
    found = runs(client)
    for name in {f"e{n}" for n in range(ENTRIES)} - {"e1", "e2", "e3", "e4"}:
        assert {b - a for a, b in pairwise(sorted(found[name]))} == {PERIOD_MS}, name


def test_a_dead_leader_is_seen_at_once(cluster, start_beatd, write, client, wait_until):
    file = write(cluster.url)
    first, second = start_beatd("--config", file), start_beatd("--config", file)
    wait_until(lambda: len(first.find("Leading shard") + second.find("Leading shard")) >= 3, 30, "leaders")
    more(client, wait_until, 200, "runs")
    leader, other = (first, second) if first.find("Leading shard") else (second, first)
    leader.end(signal.SIGKILL)
    other.expect("is gone: its connection")
    for shard in range(3):
        go_on(client, entries_of(shard), wait_until)
    other.end()
    assert_no_run_is_missing(client)


@pytest.mark.slow
def test_slots_move_while_runs_leave(cluster, lead, write, client, wait_until):
    daemon = lead(write(cluster.url))
    homes = {slot: cluster.owner(slot) for slot in slots()}
    for slot, source in homes.items():
        target = next(one for one in cluster.masters if one is not source)
        cluster.begin_move(slot, source, target)
        cluster.move_keys(slot, source, target, at_most=3)
        daemon.expect("is on the move")
        cluster.end_move(slot, source, target)
        more(client, wait_until, 200, "runs after a slot has moved")
    for slot, home in homes.items():
        cluster.move(slot, home)
    for shard in range(3):
        go_on(client, entries_of(shard), wait_until)
    all_go_on(client, wait_until, ENTRIES)
    daemon.end()
    assert_every_run_once(client, ENTRIES)


@pytest.mark.slow
def test_a_node_that_is_away_stops_only_its_shards(cluster, beatd, lead, write, client, wait_until):
    file = write(cluster.url)
    daemon = lead(file)
    away = cluster.owner(slots()[1])
    away.kill()
    daemon.expect("The node of shard 1 does not answer")
    for shard in (0, 2):
        go_on(client, entries_of(shard), wait_until)
    problems = status(beatd, file)["problems"]
    assert any(
        re.search("node of shard 1 does not answer.*, and its runs wait: state store cluster", one) for one in problems
    )
    assert str(away.port) in "".join(problems)
    assert beatd("list", "--config", file).returncode == 0
    daemon.expect("Stepping down from shard 1")
    go_on(client, entries_of(0), wait_until)
    assert not daemon.find("The node of shard 1 answers again")
    away.start()
    daemon.expect("The node of shard 1 answers again", timeout=30)
    go_on(client, entries_of(1), wait_until)
    all_go_on(client, wait_until, ENTRIES)
    daemon.end()
    assert_every_run_once(client, ENTRIES)


@pytest.mark.slow
def test_a_worker_goes_on_while_a_node_is_away(cluster, beatd, start_beatd, lead, with_app, write, client, wait_until):
    few = {f"e{number}" for number in range(14)}  # as many as one worker keeps up with, on a busy machine
    file = with_app(write(cluster.url, entries=len(few)))
    lead(file)

    def newest_success(shard):
        names = sorted(entries_of(shard) & few)[:3]
        assert names
        done = [json.loads(beatd("history", name, "--config", file, "--json").stdout) for name in names]
        return max((run["due_at"] for one in done for run in one["runs"] if run["outcome"] == "SUCCESS"), default="")

    away = cluster.owner(slots()[1])
    away.kill()
    worker = start_beatd("worker", "--config", file, "-P", "solo")
    worker.expect("the ends of its runs are noted when it is back", timeout=30)
    for shard in (0, 2):
        before = newest_success(shard)
        wait_until(lambda shard=shard, before=before: newest_success(shard) > before, 30, "outcomes")
    away.start()
    worker.expect("The ends of all runs are noted again", timeout=30)
    wait_until(lambda: newest_success(1), 30, "outcomes of the shard")


@pytest.mark.slow
def test_late_runs_of_the_other_nodes_are_noticed_while_a_node_is_away(
    cluster, start_beatd, lead, with_app, write, wait_until
):
    few = {f"e{number}" for number in range(14)}
    file = with_app(write(cluster.url, entries=len(few)))
    path = Path(file)
    path.write_text(path.read_text().replace("[defaults]", '[defaults]\noverdue_after = "3s"\nexpect_within = "never"'))
    daemon = lead(file)

    def said(event):
        return {found[1] for found in daemon.find(rf"Entry (\w+) is {event}")}

    wait_until(lambda: said("overdue since") == few, 60, "all entries to be overdue, as there is no worker")
    away = cluster.owner(slots()[1])
    away.kill()
    start_beatd("worker", "--config", file, "-P", "solo").expect("eady")
    others = few - entries_of(1)
    wait_until(lambda: said("in time again") >= others, 60, "the others to be in time")
    assert said("in time again") == others
    away.start()
    wait_until(lambda: said("in time again") == few, 60, "all entries to be in time")


@pytest.mark.slow
def test_a_frozen_node_stops_only_its_shards(cluster, lead, write, client, wait_until):
    daemon = lead(write(cluster.url))
    frozen = cluster.owner(slots()[2])
    frozen.pause()
    try:
        daemon.expect("The node of shard 2 does not answer", timeout=30)
        for shard in (0, 1):
            go_on(client, entries_of(shard), wait_until)
    finally:
        frozen.resume()
    go_on(client, entries_of(2), wait_until, timeout=45)
    all_go_on(client, wait_until, ENTRIES)
    daemon.end()
    assert_every_run_once(client, ENTRIES)


@pytest.mark.slow
def test_leaders_go_on_while_the_node_of_the_registry_is_away(cluster, lead, write, client, wait_until):
    daemon = lead(write(cluster.url))
    home = cluster.owner(slots()[0])
    home.kill()
    daemon.expect("trying again")
    until = time.monotonic() + TTL_S + 1
    while time.monotonic() < until:
        for shard in (1, 2):
            go_on(client, entries_of(shard), wait_until)
    assert not daemon.find("Stepping down from shard [12]")
    home.start()
    go_on(client, entries_of(0), wait_until)
    all_go_on(client, wait_until, ENTRIES)
    daemon.end()
    assert_every_run_once(client, ENTRIES)


@pytest.mark.slow
def test_a_replica_takes_over(six, start_beatd, write, client, wait_until):
    """The messages of the outbox may come twice, under the same ids: what was struck off last was not replicated."""
    daemons = [start_beatd("--config", write(six.url, replicas=1)) for _ in range(2)]
    wait_until(lambda: sum(len(one.find("Leading shard")) for one in daemons) >= 3, 30, "leaders")
    more(client, wait_until, 300, "runs")
    for slot in (slots()[1], slots()[0]):
        dead = six.owner(slot)
        dead.kill()
        wait_until(lambda slot=slot, dead=dead: six.owner(slot) is not dead and six.settled(), 30, "a failover")
        for shard in range(3):
            go_on(client, entries_of(shard), wait_until)
        dead.start()
        wait_until(six.replicated, 30, "the former master to be a replica")
    for daemon in daemons:
        daemon.end()
    assert_no_run_is_missing(client)


@pytest.mark.slow
def test_nodes_behind_tls(tls_cluster, beatd, start_beatd, write, client, wait_until):
    """A slot moves and a replica takes over: addresses that nodes give, and those of ``MOVED``, are reached by TLS."""
    file = write(tls_cluster.url, replicas=1)
    done = beatd("check", "--connect", "--config", file)
    assert "reachable, a cluster of 3 nodes" in done.stdout, done.stderr
    daemon = start_beatd("--config", file)
    daemon.expect("Leading shard", times=3)
    source = tls_cluster.owner(slots()[1])
    tls_cluster.move(slots()[1], next(one for one in tls_cluster.masters if one is not source))
    dead = tls_cluster.owner(slots()[2])
    dead.kill()
    wait_until(lambda: tls_cluster.owner(slots()[2]) is not dead and tls_cluster.settled(), 30, "a failover")
    dead.start()
    wait_until(tls_cluster.replicated, 30, "the former master to be a replica")
    for shard in range(3):
        go_on(client, entries_of(shard), wait_until)
    daemon.end()
    assert_no_run_is_missing(client)


def test_nodes_behind_tls_that_are_not_trusted_are_said(tls_cluster, beatd, write):
    said = beatd("check", "--connect", "--config", write(tls_cluster.url.partition("?")[0])).stderr
    assert "certificate is not trusted" in said
    assert "ssl_ca_certs=" in said
    assert "Traceback" not in said


@pytest.mark.slow
def test_rabbitmq_beside_a_cluster_whose_nodes_die(six, rabbitmq, start_beatd, write, wait_until):
    """No run is lost; a message that comes again, as what was struck off last was not replicated, has the same id."""
    name = f"acceptance-{uuid.uuid4().hex[:12]}"
    file = write(six.url, replicas=1, broker=rabbitmq.url, queue=name)
    with kombu.Connection(rabbitmq.url, connect_timeout=5) as connection:
        channel = connection.channel()
        channel.queue_declare(name, durable=True, auto_delete=False)
        taken = []

        def take():
            taken.extend(iter(lambda: channel.basic_get(name, no_ack=True), None))

        def go_on(shard):
            dues = {due_ms(one) for one in taken if one.headers["beatd-entry"] in entries_of(shard)}
            last = max(dues, default=0)

            def came():
                take()
                return any(
                    due_ms(one) > last + 2 * PERIOD_MS
                    for one in taken
                    if one.headers["beatd-entry"] in entries_of(shard)
                )

            wait_until(came, 45, f"runs of shard {shard}")

        daemons = [start_beatd("--config", file) for _ in range(2)]
        for shard in range(3):
            go_on(shard)
        for slot in (slots()[1], slots()[0]):
            dead = six.owner(slot)
            dead.kill()
            wait_until(lambda slot=slot, dead=dead: six.owner(slot) is not dead and six.settled(), 30, "a failover")
            dead.start()
            wait_until(six.replicated, 30, "the former master to be a replica")
            for shard in range(3):
                go_on(shard)
        for daemon in daemons:
            assert daemon.end() == 0
        take()
    ids = {one.headers["id"]: (one.headers["beatd-entry"], due_ms(one)) for one in taken}
    assert len(set(ids.values())) == len(ids), "a run came under two ids"
    dues = defaultdict(list)
    for entry, due in ids.values():
        dues[entry].append(due)
    assert len(dues) == ENTRIES
    assert {b - a for found in dues.values() for a, b in pairwise(sorted(found))} == {PERIOD_MS}
    print(f"{len(ids)} runs, {len(taken) - len(ids)} messages came again")


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", [1, 2])
def test_everything_at_once(own_cluster, start_beatd, write, client, wait_until, seed):
    """Daemons are killed, nodes are killed and frozen, and slots move, in any order: no run is missing.

    A daemon that is killed after the broker has confirmed a message leaves it to the next one, who sends it again under
    the same id.
    """
    dice, file = random.Random(seed), write(own_cluster.url)
    daemons = [start_beatd("--config", file) for _ in range(2)]
    more(client, wait_until, 200, "runs")

    def kill_a_daemon():
        number = dice.randrange(2)
        daemons[number].end(signal.SIGKILL)
        daemons[number] = start_beatd("--config", file)

    def kill_a_node():
        node = dice.choice(own_cluster.masters)
        node.kill()
        wait_until(lambda: own_cluster.missed(node), 30, "the node to be missed")  # it may have all shards by now
        node.start()

    def freeze_a_node():
        node = dice.choice(own_cluster.masters)
        node.pause()
        try:
            wait_until(lambda: own_cluster.missed(node), 30, "the node to be missed")
        finally:
            node.resume()

    def move_a_slot():
        own_cluster.move(dice.choice(slots()), dice.choice(own_cluster.masters))

    for _ in range(6):
        dice.choice([kill_a_daemon, kill_a_node, freeze_a_node, move_a_slot])()
        wait_until(own_cluster.settled, 60, "the cluster to be settled")
        more(client, wait_until, 60, "runs")
    for shard in range(3):
        go_on(client, entries_of(shard), wait_until, timeout=60)
    for daemon in daemons:
        daemon.end()
    messages = [open_envelope(raw).headers for raw in client.lrange("celery", 0, -1)]
    assert len({one["id"] for one in messages}) == len({(one["beatd-entry"], one["beatd-due-at"]) for one in messages})
    assert_no_run_is_missing(client)


def test_what_is_wrong_is_said_in_one_sentence(cluster, beatd, write, redis_url, start_server, free_port):
    file = write(f"redis://127.0.0.1:{cluster.masters[0].port}")
    assert "this server is a node of a Redis Cluster: write redis+cluster://" in beatd("run", "--config", file).stderr
    file = write(redis_url.replace("redis://", "redis+cluster://"))
    assert "this server is no cluster: write redis://" in beatd("check", "--connect", "--config", file).stderr
    file = write(cluster.url, broker=cluster.url)
    assert "a Redis Cluster can be the state store, and no broker" in beatd("check", "--config", file).stderr
    bare = start_server("--cluster-enabled", "yes", "--cluster-port", str(free_port()))
    file = write(f"redis+cluster://127.0.0.1:{bare.port}")
    said = beatd("check", "--connect", "--config", file).stderr
    assert "CLUSTERDOWN" in said
    assert "Traceback" not in said


def test_the_number_of_shards_does_not_change(cluster, beatd, start_beatd, write):
    start_beatd("--config", write(cluster.url, shards=3)).expect("Leading shard", times=3)
    for command in (("run",), ("check", "--connect")):
        done = beatd(*command, "--config", write(cluster.url, shards=5))
        assert done.returncode != 0
        assert "it was begun with [leader] shards = 3, which cannot change in a cluster" in done.stderr


def test_a_node_that_gives_a_wrong_address_is_named(cluster, beatd, write, wait_until):
    liar = cluster.owner(slots()[1])
    cluster.call(liar, "CONFIG", "SET", "cluster-announce-ip", "127.255.255.1")
    try:
        done = beatd("check", "--connect", "--config", write(f"redis+cluster://127.0.0.1:{liar.port}"))
        assert f"the cluster names its node 127.255.255.1:{liar.port} so" in done.stderr
        assert "cluster-announce-ip" in done.stderr
    finally:
        cluster.call(liar, "CONFIG", "SET", "cluster-announce-ip", "127.0.0.1")

    def addresses():
        return {node[2][0] for server in cluster.servers for node in cluster.call(server, "CLUSTER", "SLOTS")}

    wait_until(lambda: addresses() == {b"127.0.0.1"}, 20, "all nodes to know its address again")
