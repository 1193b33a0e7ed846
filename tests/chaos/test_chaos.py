"""A quarter of a minute of chaos each: ``make chaos`` runs five minutes of it. The seed is in the failure."""

import io
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.chaos.run import Trial, run
from tests.conftest import missing, server_binary

pytestmark = pytest.mark.slow

SEED = int(os.environ.get("BEATD_CHAOS_SEED") or 11)
RELEASE_0_1_0 = "54d3bd3"
"""The commit of that version."""


@pytest.fixture(autouse=True)
def _server(server_kind):
    if server_binary(server_kind) is None:
        missing(f"{server_kind}-server")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seconds", [14, pytest.param(60, marks=pytest.mark.soak)])
def test_nothing_is_lost_or_doubled_whatever_breaks(server_kind, seconds):
    result = run(Trial(seconds, SEED, ttl_ms=3_000, longest=5, store=server_kind))
    assert result.good, f"{result} (logs: {result.folder})\n" + "\n".join(result.faults)
    assert result.account.messages > 400 * seconds
    assert result.terms > 1, "nobody ever took over, which proves little"


@pytest.mark.timeout(300)
def test_nothing_is_lost_or_doubled_when_shards_change_hands(server_kind):
    kinds = ("kill_leader", "freeze_leader", "stop_leader", "stop_standby", "restart_store", "network")
    result = run(Trial(12, SEED, ttl_ms=3_000, longest=5, shards=4, kinds=kinds, store=server_kind))
    assert result.good, f"{result} (logs: {result.folder})\n" + "\n".join(result.faults)
    assert result.terms > 4, "no shard ever changed hands, which proves little"


@pytest.mark.timeout(300)
def test_nothing_is_lost_with_the_last_second_of_the_store(server_kind):
    """Messages that left in that second may come again, under the same ids."""
    kinds = ("restart_store", "restart_store", "kill_leader", "freeze_leader", "kill_clients")
    result = run(Trial(15, SEED, ttl_ms=3_000, longest=5, power_loss=True, kinds=kinds, store=server_kind))
    assert result.good, f"{result} (logs: {result.folder})\n" + "\n".join(result.faults)


@pytest.fixture
def version_0_1_0(tmp_path):
    """A folder with the code of 0.1.0."""
    command = ("git", "archive", RELEASE_0_1_0, "beatd")
    archive = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, check=False)
    if archive.returncode:
        pytest.skip("this copy has no history")
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as tar:
        tar.extractall(tmp_path, filter="data")
    return str(tmp_path)


@pytest.mark.soak
@pytest.mark.timeout(300)
@pytest.mark.parametrize("shards", [1, 4])
def test_nothing_is_lost_or_doubled_by_daemons_of_two_versions(server_kind, version_0_1_0, shards):
    trial = Trial(40, SEED, ttl_ms=3_000, longest=6, size=40, shards=shards, store=server_kind, older=version_0_1_0)
    result = run(trial)
    assert result.good, f"{result} (logs: {result.folder})\n" + "\n".join(result.faults)
    assert len(result.versions) == 2
    assert result.terms > 2, "nobody ever took over, which proves little"
