"""A state store that goes away while runs end: each part says so once, in words, and goes on by itself."""

import resource
import signal

import pytest
import redis

CONFIG = """
[redis]
url = "{url}"
[beat_schedule.tick]
task = "tasks.tick"
schedule = 0.2
queue = "ticks"
"""


@pytest.fixture
def store(start_server):
    return start_server()


@pytest.fixture
def daemon(store, start_beatd, tmp_path):
    (tmp_path / "beat.toml").write_text(CONFIG.format(url=store.url))
    daemon = start_beatd("run")
    daemon.expect("Dispatched tick", times=3)
    return daemon


def goes_on(daemon):
    daemon.expect("Dispatched tick", times=len(daemon.find("Dispatched tick")) + 5, timeout=30)


def ends_in_order(daemon):
    assert daemon.end(signal.SIGTERM) == 0
    assert not daemon.find("Traceback|unexpected"), daemon.text


def test_a_store_that_is_away_is_said_once_by_each_part(store, daemon):
    store.kill()
    daemon.expect("Outcomes cannot be read: state store .*: Connection refused; trying again", timeout=20)
    store.start()
    goes_on(daemon)
    assert len(daemon.find("Outcomes cannot be read")) == 1
    ends_in_order(daemon)


def test_a_process_without_free_files_goes_on_when_it_has_some(store, daemon):
    """It says so, and no connection is counted that was never made."""
    soft, hard = resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (3, hard))
    with redis.Redis.from_url(store.url) as admin:
        for kind in ("normal", "pubsub"):
            admin.execute_command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")
        daemon.expect("state store .*: Too many open files; trying again")
        daemon.expect("Outcomes cannot be read: .*: Too many open files", timeout=20)
    resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (soft, hard))
    goes_on(daemon)
    ends_in_order(daemon)
