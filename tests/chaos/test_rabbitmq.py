"""A quarter of a minute of chaos with RabbitMQ: ``make chaos ARGS="--broker rabbitmq"`` runs five minutes of it."""

import os

import pytest

from tests.chaos.run import Trial, run
from tests.conftest import missing, server_binary
from tests.rabbitmq import installed

pytestmark = pytest.mark.slow

SEED = int(os.environ.get("BEATD_CHAOS_SEED") or 21)
KINDS = (
    "kill_leader", "freeze_leader", "stop_leader", "kill_clients", "restart_store",
    "kill_broker", "close_connections", "block_broker", "broker_network", "kill_worker",
)  # fmt: skip


@pytest.fixture(autouse=True)
def _servers(server_kind):
    if server_binary(server_kind) is None:
        missing(f"{server_kind}-server")
    if not installed():
        missing("rabbitmq-server")


@pytest.mark.soak
@pytest.mark.timeout(400)
def test_nothing_is_lost_and_nothing_is_executed_twice(server_kind):
    trial = Trial(15, SEED, ttl_ms=3_000, longest=5, broker="rabbitmq", size=30, kinds=KINDS, store=server_kind)
    result = run(trial)
    assert result.good, f"{result} (logs: {result.folder})\n" + "\n".join(result.faults)
    assert result.account.messages > 2_000
    assert result.executions.executed > 1_000
