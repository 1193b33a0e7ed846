"""A store with a replica and three sentinels: its primary is killed, twice, and the schedule goes on."""

import itertools
import json
import threading
from collections import Counter
from contextlib import suppress

import pytest
import redis

from beatd.message.protocol import open_envelope
from tests.chaos.ledger import due_ms_of
from tests.sentinels import watched

pytestmark = pytest.mark.slow

CONFIG = """
[redis]
url = "{url}"
timeout = "1s"
[leader]
ttl = "3s"
[log]
format = "json"
[defaults]
catch_up = "all"
[beat_schedule.tick]
task = "tasks.tick"
schedule = 0.2
[beat_schedule.tock]
task = "tasks.tick"
schedule = 0.2
queue = "other"
"""
PERIOD_MS = 200


@pytest.fixture
def sentinels(start_server, tmp_path, free_port):
    with watched(start_server, tmp_path, free_port) as sentinels:
        yield sentinels


def dues(server, queue="celery"):
    """The due times of what is in a queue of a server, oldest first; none while it does not answer."""
    try:
        with redis.Redis.from_url(server.url, socket_timeout=2, retry=None) as client:
            raws = client.lrange(queue, 0, -1)
    except redis.RedisError:
        return []
    return [due_ms_of(open_envelope(raw).headers["beatd-due-at"]) for raw in reversed(raws)]


def assert_every_run_once(found):
    steps = Counter(later - earlier for earlier, later in itertools.pairwise(found))
    assert set(steps) == {PERIOD_MS}, f"runs are missing, doubled or out of order: {steps}"


def test_no_run_is_missing_at_the_new_primary_and_no_daemon_ends(start_beatd, sentinels, tmp_path, wait_until):
    (tmp_path / "beat.toml").write_text(CONFIG.format(url=sentinels.url))
    daemons = [start_beatd("--config", str(tmp_path / "beat.toml")) for _ in range(2)]
    for _ in range(2):
        primary = wait_until(lambda: sentinels.primary, 20, "the sentinels to agree")
        wait_until(lambda primary=primary: len(dues(primary)) >= 20, 20, "runs")
        wait_until(lambda: sentinels.ready, 30, "the replica to be known to all sentinels")
        [last] = wait_until(lambda primary=primary: dues(primary)[-1:], 20, "the last run")
        primary.kill()
        new = wait_until(
            lambda primary=primary: (found := sentinels.primary) not in (None, primary) and found, 40, "one"
        )
        wait_until(lambda new=new, last=last: dues(new)[-1:] > [last + 10 * PERIOD_MS], 20, "runs at the new primary")
        primary.start()  # it becomes the replica
    for queue in ("celery", "other"):
        found = wait_until(lambda new=new, queue=queue: dues(new, queue), 20, "the runs of a queue")
        assert_every_run_once(found)
    for daemon in daemons:
        assert daemon.process.poll() is None
        said = {record["event"] for record in loud(daemon)}
        stalled = {"store_slow", "daemon_gone", "daemon_back"}  # what a loaded machine adds
        unread = {"runtime_unreadable", "outcomes_unreadable"}
        away = {"store_unavailable", "store_refused"}  # the former primary takes no writes when it is back
        assert said <= {*away, "store_went_back", "term_ended", "fenced_off", *unread, *stalled}
        assert daemon.end() == 0


def loud(daemon):
    """What it has said above the level of information."""
    records = []
    for line in daemon.lines:
        with suppress(ValueError):
            records.append(json.loads(line))
    return [record for record in records if record["level"] not in ("debug", "info")]


class Taker:
    """A worker that takes messages as soon as they come, from whatever the primary is; it remembers them."""

    def __init__(self, sentinels):
        self._sentinels = sentinels
        self.taken = Counter()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def runs(self):
        """What it has taken so far."""
        return set(self.taken)  # in one step, which taking cannot interrupt

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stopping.set()
        self._thread.join(10)

    def _run(self):
        while not self._stopping.is_set():
            if (server := self._sentinels.primary) is None:
                continue
            # Whoever stops to wait for an answer may lose the message that is in it.
            with suppress(redis.RedisError), redis.Redis.from_url(server.url, socket_timeout=60, retry=None) as client:
                while not self._stopping.is_set():
                    if found := client.brpop("celery", timeout=1):
                        message = open_envelope(found[1])
                        self.taken[message.id, due_ms_of(message.headers["beatd-due-at"])] += 1


def test_what_was_taken_and_not_replicated_comes_again_with_the_same_id(start_beatd, sentinels, tmp_path, wait_until):
    """The bound of what asynchronous replication can do: the replica is away, then the primary dies."""
    (tmp_path / "beat.toml").write_text(CONFIG.format(url=sentinels.url))
    primary, replica = sentinels.servers
    with Taker(sentinels) as taker:
        daemon = start_beatd("--config", str(tmp_path / "beat.toml"))
        wait_until(lambda: len(taker.runs()) >= 10, 20, "runs")
        replicated = taker.runs()
        with redis.Redis.from_url(primary.url) as client:
            client.set("mark", "what comes after these runs")
            assert client.wait(1, 30_000) == 1, "the replica has them"
        replica.stop()
        known = len(taker.runs())
        wait_until(lambda: len(taker.runs()) >= known + 5, 20, "runs that the replica knows nothing of")
        primary.kill()
        replica.start()  # with what it had
        last = max(due_ms for _, due_ms in taker.runs())
        wait_until(lambda: max(due for _, due in taker.runs()) > last + 3_000, 40, "runs after the failover")
        assert daemon.end() == 0
    assert_every_run_once(sorted(due_ms for _, due_ms in taker.taken))
    again = {run for run, times in taker.taken.items() if times > 1}
    assert again, "the writes that were lost are made again"
    assert not again & replicated
    assert max(taker.taken.values()) == 2


WITH_WORK = """
[redis]
url = "{url}"
timeout = "1s"
[log]
format = "json"
[beat_schedule.tick]
task = "beatd.command"
schedule = 0.5
args = ["true"]
"""


def test_a_worker_follows_the_primary_too(start_beatd, beatd, sentinels, tmp_path, wait_until):
    config = str(tmp_path / "beat.toml")
    (tmp_path / "beat.toml").write_text(WITH_WORK.format(url=sentinels.url.replace("://", "://:${NONE:-}@", 1)))
    daemon = start_beatd("--config", config)
    worker = start_beatd("worker", "--config", config, "--builtin", "command", "-c", "1")
    worker.expect("task_succeeded|succeeded in", times=4, timeout=30)
    status = beatd("status", "--config", config)
    assert (status.returncode, "of the sentinels 127.0.0.1:" in status.stdout) == (0, True), status.stdout
    primary = wait_until(lambda: sentinels.primary, 20, "the sentinels to agree")
    primary.kill()
    wait_until(lambda: sentinels.primary not in (None, primary), 40, "another primary")
    done = len(worker.find("task_succeeded|succeeded in"))
    worker.expect("task_succeeded|succeeded in", times=done + 6, timeout=30)
    assert worker.end() == 0
    assert daemon.end() == 0
