"""A quarter of a minute of chaos with a Redis Cluster: ``make chaos ARGS="--cluster 6"`` runs five minutes of it."""

import os

import pytest

from tests.chaos.run import Trial, run
from tests.conftest import missing, server_binary

pytestmark = pytest.mark.slow

SEED = int(os.environ.get("BEATD_CHAOS_SEED") or 31)
KINDS = (
    "kill_node", "kill_unreplicated", "freeze_node", "cut_off_node", "node_network", "failover", "move_slot",
    "move_slot", "kill_leader", "freeze_leader", "kill_worker",
)  # fmt: skip


@pytest.fixture(autouse=True)
def _server(server_kind):
    if server_binary(server_kind) is None:
        missing(f"{server_kind}-server")


@pytest.mark.timeout(400)
@pytest.mark.parametrize("seconds", [18, pytest.param(60, marks=pytest.mark.soak)])
def test_nothing_is_lost_whatever_breaks_in_a_cluster(server_kind, seconds):
    """With replicas that confirm. A message that comes again has the same id."""
    trial = Trial(seconds, SEED, ttl_ms=3_000, longest=5, broker="redis", cluster=6, wait_replicas=1, shards=3, size=20)
    result = run(trial._replace(kinds=KINDS, store=server_kind))
    assert result.good, f"{result} (logs: {result.folder})\n" + "\n".join(result.faults)
    assert result.account.messages > 60 * seconds
    assert result.executions.executed > 15 * seconds
    assert result.terms > 3, "no shard ever changed hands, which proves little"


@pytest.mark.timeout(300)
def test_nothing_is_lost_or_doubled_without_replicas(server_kind):
    """Nodes that die come back with all that they had confirmed."""
    kinds = ("kill_node", "freeze_node", "node_network", "move_slot", "kill_leader", "freeze_leader")
    trial = Trial(14, SEED, ttl_ms=3_000, longest=5, broker="redis", cluster=3, shards=3, size=20, kinds=kinds)
    result = run(trial._replace(store=server_kind))
    assert result.good, f"{result} (logs: {result.folder})\n" + "\n".join(result.faults)
    assert result.terms > 3, "no shard ever changed hands, which proves little"
