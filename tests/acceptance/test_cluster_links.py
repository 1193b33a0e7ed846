"""A Redis Cluster whose nodes are reached by other ways than they think, slowly, or by some and not by others."""

import re
import signal
import time
from functools import partial
from itertools import pairwise

import pytest
import redis

from tests.acceptance.test_cluster import ENTRIES, HEAD, entries_of, go_on, slots, status
from tests.acceptance.test_shards import ENTRY, PERIOD_MS, runs
from tests.chaos.cluster import ChaosCluster
from tests.chaos.proxy import Proxy


@pytest.fixture
def write(tmp_path, redis_url):
    """``write(url)``: a file of three shards with that state store."""

    def write(url, *, replicas=0, shards=3, period=PERIOD_MS / 1000, **settings):
        path = tmp_path / "beat.toml"
        text = HEAD.format(url=url, shards=shards, replicas=replicas, broker=redis_url, queue="celery")
        for name, value in settings.items():
            text = re.sub(f"^{name} = .*$", f'{name} = "{value}"', text, flags=re.MULTILINE)
        entry = ENTRY.replace("schedule = 0.25", f"schedule = {period}")
        path.write_text(text + "".join(entry.format(number=number) for number in range(ENTRIES)))
        return str(path)

    return write


@pytest.fixture
def make_linked(server_kind):
    """``make_linked(nodes)``: a cluster of three primaries and replicas, with a proxy in front of each node."""
    made = []

    def make(nodes):
        # What nodes say goes through proxies of this process: they must not take one for failed when it stands still.
        made.append(ChaosCluster(server_kind, nodes, 3, node_timeout_ms=4_000))
        return made[0]

    yield make
    for cluster in made:
        cluster.close()


@pytest.fixture
def linked(make_linked):
    return make_linked(6)


def shard_at(cluster, server):
    """The shard whose slot a node has."""
    return next(number for number, slot in enumerate(slots()) if cluster.owner(slot) is server)


def assert_runs_are_complete(client, period_ms=PERIOD_MS):
    """No run is missing, and none came twice."""
    found = runs(client)
    assert len(found) == ENTRIES
    assert {b - a for dues in found.values() for a, b in pairwise(sorted(dues))} <= {period_ms}


@pytest.mark.slow
def test_a_primary_that_is_cut_off_from_the_others_is_left(linked, start_beatd, write, client, wait_until):
    """It answers, and still says that the slots are its own: others know better, and are asked."""
    daemon = start_beatd("--config", write(linked.url, replicas=1))
    daemon.expect("Leading shard", times=3)
    first = linked.servers[0]
    go_on(client, entries_of(shard_at(linked, first)), wait_until)
    linked.cut_off(first)
    wait_until(lambda: len(linked.primaries()) == 4, 40, "a replica to take over")
    for number in range(3):
        go_on(client, entries_of(number), wait_until)
    linked.join(first)


@pytest.mark.slow
def test_nobody_is_gone_who_listened_at_a_node_that_is_cut_off(linked, start_beatd, write, client, wait_until):
    """Connections to it do not end, and the others listen elsewhere by now."""
    daemons = [start_beatd("--config", write(linked.url, replicas=1)) for _ in range(3)]
    wait_until(lambda: len({one.pid for one in daemons if one.find("Leading shard")}) == 3, 30, "three leaders")
    node = linked.owner(slots()[0])
    for number in range(3):
        go_on(client, entries_of(number), wait_until)
    linked.cut_off(node)
    wait_until(lambda: len(linked.primaries()) == 4, 40, "a replica to take over")
    until = time.monotonic() + 6  # as long as nobody is taken for gone after an interruption, and longer
    while time.monotonic() < until:
        for number in range(3):
            go_on(client, entries_of(number), wait_until)
    assert [one.find("is gone") for one in daemons] == [[], [], []]
    linked.join(node)


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_node_that_answers_in_two_seconds(make_linked, beatd, start_beatd, write, client, wait_until):
    """It is named; all runs come, the others in between. Nobody takes it for gone."""
    linked = make_linked(3)
    file = write(linked.url, period=2.0, timeout="10s", ttl="30s", renew="5s")
    daemon = start_beatd("--config", file)
    daemon.expect("Leading shard", times=3)
    slow = linked.servers[1]
    way = linked.ways(slow).clients
    way.mode = "slow"
    [told] = daemon.expect("The state store answers slowly, and runs are late: (.*) took", timeout=30)
    assert told[1] == f"127.0.0.1:{way.port}"
    for number in (shard_at(linked, slow), shard_at(linked, linked.servers[0])):
        go_on(client, entries_of(number), wait_until, timeout=40)
    assert any("answers slowly" in problem and told[1] in problem for problem in status(beatd, file)["problems"])
    assert not daemon.find("does not answer|Stepping down|trying again")
    way.mode = "pass"
    daemon.expect("The state store answers quickly again", timeout=30)
    daemon.end(signal.SIGTERM)
    assert_runs_are_complete(client, 2_000)


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_daemon_starts_though_all_nodes_answer_late(make_linked, start_beatd, write, client, wait_until):
    linked = make_linked(3)
    for server in linked.servers:
        way = linked.ways(server).clients
        way.delay, way.mode = 0.55, "slow"
    daemon = start_beatd("--config", write(linked.url, period=0.5, timeout="5s", ttl="30s", renew="10s"))
    daemon.expect("Leading shard", times=3, timeout=90)
    wait_until(lambda: len(runs(client)) == ENTRIES, 60, "a run of each entry")
    for server in linked.servers:
        linked.ways(server).clients.mode = "pass"
    daemon.expect("answers quickly again", timeout=60)
    daemon.end(signal.SIGTERM)
    assert_runs_are_complete(client, 500)


@pytest.mark.slow
def test_a_proxy_whose_address_no_node_gives(cluster, beatd, start_beatd, write, client, wait_until):
    """It leads to the cluster, as a load balancer does; what it leads to may die."""
    with Proxy(cluster.servers[0].port) as balancer:
        file = write(f"redis+cluster://127.0.0.1:{balancer.port}")
        daemon = start_beatd("--config", file)
        daemon.expect("Leading shard", times=3)
        assert "a cluster of 3 nodes" in beatd("check", "--connect", "--config", file).stdout
        shard = shard_at(cluster, cluster.servers[0])
        cluster.servers[0].kill()
        daemon.expect(f"The node of shard {shard} does not answer")
        for number in {0, 1, 2} - {shard}:
            go_on(client, entries_of(number), wait_until)
        balancer.target = cluster.servers[1].port
        assert f"node of shard {shard} does not answer" in " ".join(status(beatd, file)["problems"])
        cluster.servers[0].start()
        go_on(client, entries_of(shard), wait_until, timeout=30)
        daemon.end(signal.SIGTERM)
    assert_runs_are_complete(client)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_node_that_gives_a_wrong_address(
    make_linked, beatd, start_beatd, write, client, wait_until, start_server, start_node, free_port
):
    """Its shard waits, the others go on, and nothing is written to who lives at that address."""
    linked = make_linked(3)
    file = write(linked.url)
    daemon = start_beatd("--config", file)
    daemon.expect("Leading shard", times=3)
    _, liar, third = linked.servers
    shard, stranger, other_node = shard_at(linked, liar), start_server(), start_node()

    def ports_at(server):
        return {node[2][1] for node in linked.call(server, "CLUSTER", "SLOTS")}

    def problem_with(file, reason):
        """The reason is that of the last attempt: the first ones may have met a connection of before."""
        return next((one for one in status(beatd, file)["problems"] if reason in one), None)

    def announce(port):
        linked.call(liar, "CONFIG", "SET", "cluster-announce-port", port)
        wait_until(lambda: all(port in ports_at(server) for server in linked.servers), 20, "the address to be known")

    is_other, way = "is another server than the node", linked.ways(liar).clients
    lies = {free_port(): "Connection refused", stranger.port: is_other, other_node.port: is_other}
    lies[linked.peer_port(third)] = "several nodes give the same address"
    for number, (port, reason) in enumerate(lies.items()):
        announce(port)
        way.mode = "refuse"
        daemon.expect(f"The node of shard {shard} does not answer", times=number + 1, timeout=30)
        for other in {0, 1, 2} - {shard}:
            go_on(client, entries_of(other), wait_until)
        told = wait_until(partial(problem_with, file, reason), 30, f"a problem that says {reason!r}")
        assert f"node of shard {shard} does not answer" in told
        assert reason in beatd("check", "--connect", "--config", file).stderr
        way.mode = "pass"
        announce(way.port)
        daemon.expect(f"The node of shard {shard} answers again", times=number + 1, timeout=30)
        go_on(client, entries_of(shard), wait_until, timeout=30)
    for server in (stranger, other_node):
        with redis.Redis(port=server.port) as other:
            assert other.keys("*") == []
    daemon.end(signal.SIGTERM)
    assert_runs_are_complete(client)


@pytest.mark.slow
def test_a_slot_without_a_node(make_linked, beatd, start_beatd, write, client, wait_until):
    """Its shard waits, and with full coverage required all of them; both is said, and nothing is lost."""
    linked = make_linked(3)
    file = write(linked.url)
    daemon = start_beatd("--config", file)
    daemon.expect("Leading shard", times=3)
    node = linked.servers[1]
    shard, unused = shard_at(linked, node), slots()[shard_at(linked, node)] + 1
    go_on(client, entries_of(shard), wait_until)

    linked.take_away(slots()[shard])
    daemon.expect(f"The node of shard {shard} does not answer.*CLUSTERDOWN")
    for number in {0, 1, 2} - {shard}:
        go_on(client, entries_of(number), wait_until)
    problems = status(beatd, file)["problems"]
    assert any(f"shard {shard} does not answer" in one and "runs wait: " in one and "slot" in one for one in problems)
    said = beatd("check", "--connect", "--config", file).stderr
    assert "1 slot has no node" in said
    for server in linked.servers:
        linked.call(server, "CONFIG", "SET", "cluster-require-full-coverage", "yes")
    linked.take_away(unused)  # so that the nodes look at their state

    def states():
        return {linked.facts(server, "CLUSTER", "INFO")["cluster_state"] for server in linked.servers}

    wait_until(lambda: states() == {"fail"}, 20, "the cluster to stop")
    said = beatd("status", "--config", file).stderr
    assert "CLUSTERDOWN The cluster is down; with cluster-require-full-coverage no, only the shards in slots" in said
    assert "Traceback" not in said
    linked.call(node, "CLUSTER", "ADDSLOTS", slots()[shard], unused)
    wait_until(linked.settled, 30, "the cluster to serve all slots")
    for number in range(3):
        go_on(client, entries_of(number), wait_until, timeout=30)
    daemon.end(signal.SIGTERM)
    assert_runs_are_complete(client)
