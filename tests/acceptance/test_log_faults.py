"""A log that cannot be written keeps no run from being sent, and its loss is said without a flood."""

import contextlib
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
def goes_on(redis_url, wait_until, tmp_path):
    """Wait for more runs in the queue."""
    (tmp_path / "beat.toml").write_text(CONFIG.format(url=redis_url))
    with redis.Redis.from_url(redis_url) as client:

        def check():
            before = client.llen("ticks")
            wait_until(lambda: client.llen("ticks") >= before + 10, timeout=30, what="runs")

        yield check


def test_a_full_disk_is_said_on_standard_error_once(start_beatd, goes_on):
    daemon = start_beatd("run", "--logfile", "/dev/full")
    daemon.expect("^beatd: log lines are lost: No space left on device$")
    goes_on()
    assert not daemon.find("Traceback")
    assert len(daemon.lines) <= 2
    assert daemon.end(signal.SIGTERM) == 0


def test_a_log_file_that_cannot_be_opened_again_harms_nobody(start_beatd, goes_on, tmp_path, wait_until):
    """As after a rotation that puts a folder in its place."""
    file = tmp_path / "beatd.log"
    daemon = start_beatd("run", "--logfile", str(file))
    goes_on()

    def put_a_folder_in_its_place():
        file.rename(tmp_path / "beatd.log.1")
        with contextlib.suppress(FileExistsError):  # a line was written in between
            file.mkdir()
        return file.is_dir()

    wait_until(put_a_folder_in_its_place, what="a moment without a line")
    daemon.expect("log lines are lost: Is a directory")
    goes_on()
    file.rmdir()
    wait_until(lambda: file.is_file() and "could not be written" in file.read_text(), timeout=20, what="the new log")
    goes_on()
    assert "unexpected" not in file.read_text()
    assert not daemon.find("Traceback")
    assert daemon.end(signal.SIGTERM) == 0


def test_sigusr1_shows_the_threads_and_ends_nothing(start_beatd, goes_on):
    daemon = start_beatd("run")
    goes_on()
    daemon.send(signal.SIGUSR1)
    daemon.expect(r"most recent call first")
    goes_on()
    assert daemon.end(signal.SIGTERM) == 0
