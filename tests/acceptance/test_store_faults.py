"""Faults of a state store that answers: they are said everywhere in words that help, once, and end by themselves."""

import signal

import httpx
import pytest
import redis

CONFIG = """
[redis]
url = "{url}"
[beat_schedule.tick]
task = "tasks.tick"
schedule = 0.5
queue = "ticks"
"""


class Night:
    """A daemon and a status page with a state store of their own."""

    def __init__(self, server, start_beatd, beatd, file, wait_until):
        self.url, self._beatd, self._file, self._wait_until = server.url, beatd, file, wait_until
        file.write_text(CONFIG.format(url=server.url))
        self.admin = redis.Redis.from_url(server.url)
        self.daemon = start_beatd("run", "--config", str(file))
        page = start_beatd("web", "--config", str(file), "--port", "0").expect(r"Status page at (http://\S+)")
        self.page = page[0][1].rstrip("/")
        self.goes_on()

    def command(self, *arguments):
        return self._beatd(*arguments, "--config", str(self._file))

    def goes_on(self):
        before = self.admin.llen("ticks")
        self._wait_until(lambda: self.admin.llen("ticks") >= before + 4, timeout=30, what="runs")

    def page_says(self, text):
        document = lambda: httpx.get(f"{self.page}/api/status", timeout=10).json()  # noqa: E731
        self._wait_until(lambda: any(text in one for one in document().get("problems", [])), timeout=20, what=text)


@pytest.fixture
def night(start_server, start_beatd, beatd, tmp_path, wait_until):
    night = Night(start_server(), start_beatd, beatd, tmp_path / "beat.toml", wait_until)
    yield night
    night.admin.close()


FAULTS = {
    "read-only replica": (
        lambda admin: admin.replicaof("127.0.0.1", "1"),
        lambda admin: admin.replicaof("NO", "ONE"),
        "it is a read-only replica",
    ),
    "full memory": (
        lambda admin: admin.config_set("maxmemory", "1"),
        lambda admin: admin.config_set("maxmemory", "0"),
        "its memory is full",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_store_that_takes_no_writes_is_named_and_no_daemon_is_missed(night, fault):
    break_it, mend, text = FAULTS[fault]
    try:
        night.daemon.send(signal.SIGSTOP)  # it must not end the pause before
        assert night.command("pause", "tick", "--for", "1s").returncode == 0
        break_it(night.admin)
        night.daemon.send(signal.SIGCONT)
        night.daemon.expect(f"{text}.* takes no writes")
        if fault == "read-only replica":  # a full memory lets keys be removed
            night.daemon.expect("1 pauses that are over cannot be ended")
        night.page_says(text)
        done = night.command("status")
        assert (done.returncode, done.stdout.startswith(f"! state store {night.url[8:-2]}")) == (1, True)
        assert text in done.stdout
        assert "no daemon is alive" not in done.stdout
        assert "Traceback" not in done.stdout + done.stderr
    finally:
        mend(night.admin)
    night.goes_on()
    # Each part that fails says it, once more after ten seconds. It tries several times a second.
    assert 1 <= len(night.daemon.find(rf"WARN +beatd\.beat  .*{text}.*; trying again in")) <= 2, night.daemon.text
    assert len(night.daemon.find(rf"WARN +beatd\.beat\.elector .*{text}.*; trying again in")) <= 2, night.daemon.text
    assert len(night.daemon.find("Runs are dispatched again")) == 1, night.daemon.text
    assert len(night.daemon.find("cannot be ended")) <= 2, night.daemon.text


def test_a_flushed_store_is_said_by_the_leader(night):
    night.admin.flushall()
    night.daemon.expect("ERROR .* lost writes that it had confirmed: key {beatd}:0:claims is at 0")
    night.goes_on()
    assert len(night.daemon.find("lost writes")) == 1


def test_commands_that_cannot_be_read_are_said_once(night, wait_until):
    night.admin.set("{beatd}:orders", "mine")
    night.daemon.expect("Commands to daemons cannot be read: .*{beatd}:orders is a string.*: rename or delete it")
    night.goes_on()
    assert night.command("add", "more", "--task", "tasks.more", "--schedule", "0.5").returncode == 0
    night.daemon.expect(r"Dispatched more")
    night.admin.delete("{beatd}:orders")
    night.daemon.expect("Commands to daemons can be read again")
    assert len(night.daemon.find("cannot be read")) <= 2, night.daemon.text  # once more after ten seconds
    assert night.command("reload").returncode == 0


def test_a_password_that_has_changed_is_said_and_nothing_else(night):
    night.admin.config_set("requirepass", "new")
    for kind in ("normal", "pubsub"):
        night.admin.execute_command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")
    try:
        night.daemon.expect("it demands a password", times=3)
    finally:
        night.admin.config_set("requirepass", "")
    night.goes_on()
    assert not night.daemon.find("ERROR|stay in the outbox|Traceback")
