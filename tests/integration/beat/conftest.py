"""A real daemon in a process of its own, whose log is read as events."""

import contextlib
import itertools
import json
from pathlib import Path

import pytest
import redis

from beatd.message.protocol import open_envelope
from beatd.store.keys import Keys
from tests.chaos.ledger import due_ms_of
from tests.forked import environment, start_python

KEYS = Keys("beatd").shard()

CONFIG = """
[redis]
url = "{url}"
timeout = "1s"
[leader]
ttl = "2s"
[defaults]
catch_up = "all"
catch_up_window = "1h"
catch_up_max = 1000
[beat_schedule.tick]
task = "tasks.tick"
schedule = 0.1
[beat_schedule.tock]
task = "tasks.tick"
schedule = 0.2
queue = "other"
"""


class RunningDaemon:
    """One process, from its start to the end of the test; it must never end by itself."""

    def __init__(self, folder, url, wait_until, program=("-m", "beatd")):
        config = folder / "beat.toml"
        config.write_text(CONFIG.format(url=url))
        self._log = folder / "log"
        self._wait_until = wait_until
        words = [*program, "--config", str(config), "--log-format", "json"]
        with self._log.open("wb") as log:
            self.process = start_python("beatd", words, cwd=Path.cwd(), env=environment(), stdout=log)

    @property
    def records(self):
        found = []
        for line in self._log.read_text().splitlines():
            with contextlib.suppress(ValueError):  # the last one may not be written to its end
                found.append(json.loads(line))
        return found

    def says(self, event, text="", *, after=0, timeout=15):
        """Wait until an event was logged whose message has the text in it; returns the record."""

        def found():
            has_ended = self.process.poll() is not None
            records = [each for each in self.records[after:] if each.get("event") == event and text in each["message"]]
            assert records or not has_ended, f"the daemon ended: {self._log.read_text()[-2000:]}"
            return records[-1:] or None

        try:
            return self._wait_until(found, timeout, f"{event} {text!r}")[0]
        except BaseException:
            print("\n".join(str(each) for each in self.records if each["event"] != "run_dispatched"))
            raise

    def close(self):
        self.process.terminate()
        try:
            self.process.wait(15)
        finally:
            if self.process.poll() is None:
                self.process.kill()


@pytest.fixture
def start_daemon(tmp_path, wait_until):
    started = []

    def start(url, *program):
        folder = tmp_path / f"daemon-{len(started)}"
        folder.mkdir()
        started.append(RunningDaemon(folder, url, wait_until, program or ("-m", "beatd")))
        return started[-1]

    yield start
    for daemon in started:
        daemon.close()


class Queue:
    """What is in one queue."""

    def __init__(self, url, wait_until, name="celery"):
        self._url, self._wait_until, self._name = url, wait_until, name

    @property
    def dues(self):
        """The due times (ms) of the messages, in the order in which they came; empty while the server is away."""
        try:
            with redis.Redis.from_url(self._url, socket_timeout=20) as client:
                raws = client.lrange(self._name, 0, -1)
        except redis.RedisError:
            return []
        return [due_ms_of(open_envelope(raw).headers["beatd-due-at"]) for raw in reversed(raws)]

    def grows(self, by=4, timeout=20):
        before = len(self.dues)
        self._wait_until(lambda: len(self.dues) >= before + by, timeout, f"{by} more runs in {self._name}")

    def assert_every_run_once(self, period_ms=100):
        steps = {later - earlier for earlier, later in itertools.pairwise(self.dues)}
        assert steps == {period_ms}, f"runs are missing, doubled or out of order: {steps}"


@pytest.fixture
def queue_of(wait_until):
    return lambda url, name="celery": Queue(url, wait_until, name)
