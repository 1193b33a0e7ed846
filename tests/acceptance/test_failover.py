"""Two daemons, one schedule: whatever happens to the leader, every due run is in the broker exactly once."""

import itertools
import signal
import time
from collections import Counter
from datetime import datetime

import pytest
import redis

from beatd.message.protocol import open_envelope
from tests.forked import environment, start_python

CONFIG = """
[redis]
url = "{url}"
[leader]
ttl = "2s"
renew = "500ms"
[beat_schedule.tick]
task = "tasks.tick"
schedule = 0.1
catch_up = "all"
catch_up_max = 1000
"""
LEASE = "{beatd}:0:lease"


class Daemons:
    """Real daemons on one file; each with its log."""

    def __init__(self, folder):
        self.folder = folder
        self.running = []
        self._numbers = itertools.count(1)

    def keep_leases_for(self, ttl):
        """For the daemons that start from now on."""
        config = self.folder / "beat.toml"
        config.write_text(config.read_text().replace('ttl = "2s"\nrenew = "500ms"', f'ttl = "{ttl}"'))

    def start(self):
        with (self.folder / f"daemon-{next(self._numbers)}.log").open("wb") as log:
            words = ["-m", "beatd", "--config", str(self.folder / "beat.toml"), "--log-format", "json"]
            process = start_python("beatd", words, cwd=self.folder, env=environment(), stdout=log)
        self.running.append(process)
        return process

    def leader(self, client):
        """The running daemon that holds the lease, or None."""
        value = client.get(LEASE)
        pid = int(value.decode().split("-")[-2]) if value else None
        return next((one for one in self.running if one.pid == pid and one.poll() is None), None)

    def end(self, process, number=signal.SIGTERM):
        process.send_signal(number)
        self.running.remove(process)
        return process.wait(15)

    def logs(self):
        return "\n".join(path.read_text() for path in sorted(self.folder.glob("*.log")))


@pytest.fixture
def daemons(tmp_path, redis_url):
    (tmp_path / "beat.toml").write_text(CONFIG.format(url=redis_url))
    daemons = Daemons(tmp_path)
    yield daemons
    for process in list(daemons.running):
        process.send_signal(signal.SIGCONT)
        daemons.end(process, signal.SIGKILL)


@pytest.fixture
def await_runs(client, wait_until):
    """``await_runs(3, "the first")`` waits until so many runs are in the queue, ``more=True`` for so many more."""

    def await_runs(number, what, *, more=False):
        least = number + (client.llen("celery") if more else 0)
        wait_until(lambda: client.llen("celery") >= least, timeout=20, what=what)

    return await_runs


def due_times(client):
    """The due times (ms) of everything in the queue, oldest first, and that ids are those of the runs."""
    messages = [open_envelope(raw) for raw in reversed(client.lrange("celery", 0, -1))]
    ids = Counter(message.id for message in messages)
    assert [run for run, times in ids.items() if times > 1] == [], "a run was sent twice"
    return [round(datetime.fromisoformat(m.headers["beatd-due-at"]).timestamp() * 1000) for m in messages]


def assert_every_run_once(due):
    steps = Counter(later - earlier for earlier, later in itertools.pairwise(due))
    assert set(steps) == {100}, f"runs are missing or doubled: {steps}"


def test_a_killed_leader_loses_and_doubles_nothing(daemons, client, wait_until, await_runs):
    daemons.start()
    daemons.start()
    await_runs(5, "the first runs")
    for _ in range(5):
        leader = wait_until(lambda: daemons.leader(client), timeout=20, what="a leader")
        await_runs(10, "runs of that leader", more=True)
        daemons.end(leader, signal.SIGKILL)
        daemons.start()
    await_runs(20, "runs after the last kill", more=True)
    assert_every_run_once(due_times(client))


def test_a_killed_leader_is_replaced_long_before_its_lease_ends(daemons, client, wait_until, await_runs):
    daemons.keep_leases_for("60s")
    first = daemons.start()
    await_runs(3, "the first runs")
    for standby in range(1, 4):
        daemons.start()
        wait_until(lambda standby=standby: daemons.logs().count("standing_by") == standby, timeout=20, what="a standby")
        leader = daemons.leader(client)
        daemons.end(leader, signal.SIGKILL)
        await_runs(1, "a run of the standby", more=True)
    assert daemons.logs().count("daemon_gone") >= 3
    assert first.poll() is not None
    await_runs(10, "more runs", more=True)
    assert_every_run_once(due_times(client))


def test_a_leader_that_is_told_to_stop_hands_over_long_before_its_lease_ends(daemons, client, wait_until, await_runs):
    daemons.keep_leases_for("60s")
    first = daemons.start()
    await_runs(3, "the first runs")
    daemons.start()
    wait_until(lambda: "standing_by" in daemons.logs(), timeout=20, what="a standby")
    assert daemons.end(first) == 0
    wait_until(lambda: daemons.leader(client), timeout=20, what="the standby to lead")
    await_runs(5, "runs of the new leader", more=True)
    assert_every_run_once(due_times(client))


def test_a_leader_that_was_frozen_sends_nothing_when_it_wakes(daemons, client, wait_until, await_runs):
    frozen = daemons.start()
    await_runs(3, "the first runs")
    daemons.start()
    wait_until(lambda: "standing_by" in daemons.logs(), timeout=20, what="a standby")
    frozen.send_signal(signal.SIGSTOP)
    wait_until(lambda: daemons.leader(client) not in (None, frozen), timeout=20, what="the standby to lead")
    frozen.send_signal(signal.SIGCONT)
    await_runs(15, "runs of the new leader", more=True)
    assert frozen.poll() is None, "a daemon that lost its term must stand by, not exit"
    assert_every_run_once(due_times(client))


def test_a_frozen_leader_sends_nothing_although_the_store_forgot_its_term(daemons, client, await_runs):
    """After FLUSHALL tokens begin anew; but a lease names its daemon, too, and so does what a write must match."""
    daemons.keep_leases_for("60s")
    frozen = daemons.start()
    await_runs(3, "the first runs")
    assert client.get(LEASE).endswith(b":1")
    frozen.send_signal(signal.SIGSTOP)
    client.flushall()
    daemons.start()
    await_runs(3, "runs of a daemon that knows nothing of the first")
    assert client.get(LEASE).endswith(b":1")
    frozen.send_signal(signal.SIGCONT)
    await_runs(15, "runs of the new leader", more=True)
    assert frozen.poll() is None
    assert_every_run_once(due_times(client))


def test_a_store_that_restarts_is_survived(daemons, start_server, wait_until, tmp_path):
    server = start_server("--appendonly", "yes", "--appendfsync", "always")
    (tmp_path / "beat.toml").write_text(CONFIG.format(url=server.url))
    daemons.start()
    client = redis.Redis.from_url(server.url, retry=None)
    wait_until(lambda: client.llen("celery") >= 5, timeout=20, what="the first runs")
    server.kill()
    time.sleep(1)  # how long the outage lasts
    server.start()
    before = client.llen("celery")
    wait_until(lambda: client.llen("celery") >= before + 15, timeout=30, what="runs after the restart")
    assert_every_run_once(due_times(client))
    client.close()
