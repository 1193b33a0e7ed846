"""A Redis Cluster whose nodes are reached by other ways than they think, slowly, or by some and not by others."""

import pytest
import redis

from tests.acceptance.test_cluster import ENTRIES, HEAD, entries_of, go_on, slots
from tests.acceptance.test_shards import ENTRY
from tests.chaos.cluster import ChaosCluster


@pytest.fixture
def queue(redis_url):
    """The broker: a plain server."""
    with redis.Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
def write(tmp_path, redis_url):
    """``write(url)``: a file of three shards with that state store."""

    def write(url, *, replicas=0, shards=3):
        path = tmp_path / "beat.toml"
        head = HEAD.format(url=url, shards=shards, replicas=replicas, broker=redis_url, queue="celery")
        path.write_text(head + "".join(ENTRY.format(number=number) for number in range(ENTRIES)))
        return str(path)

    return write


@pytest.fixture
def linked(server_kind):
    """A cluster of three primaries with a replica each, and a proxy in front of each node."""
    cluster = ChaosCluster(server_kind, 6, 3)
    yield cluster
    cluster.close()


@pytest.mark.slow
def test_a_primary_that_is_cut_off_from_the_others_is_left(linked, start_beatd, write, queue, wait_until):
    """It answers, and still says that the slots are its own: others know better, and are asked."""
    daemon = start_beatd("--config", write(linked.url, replicas=1))
    daemon.expect("Leading shard", times=3)
    first = linked.servers[0]
    shard = next(number for number, slot in enumerate(slots()) if linked.owner(slot) is first)
    go_on(queue, entries_of(shard), wait_until)
    linked.cut_off(first)
    wait_until(lambda: len(linked.primaries()) == 4, 20, "a replica to take over")
    for number in range(3):
        go_on(queue, entries_of(number), wait_until, timeout=15)
    linked.join()
