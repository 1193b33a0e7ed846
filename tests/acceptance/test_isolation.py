"""Two daemons and a healthy entry: each of its runs is made exactly once, whatever is beside it or in the store."""

import contextlib
import itertools
import json
import uuid
from datetime import datetime

import httpx
import kombu
import pytest
import redis

from beatd.message.protocol import open_envelope

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

CONFIG = """
[redis]
url = "{url}"
{more}
[beat_schedule.good]
task = "tasks.good"
schedule = 0.25
queue = "good"
catch_up = "all"
catch_up_max = 1000
"""

NAMED_WITHIN = 30
"""Seconds until the bad one is named; an idle machine needs less than 5."""


class Fleet:
    """Two daemons with one file, the status page, and the state store."""

    def __init__(self, start_beatd, beatd, url, path, wait_until, *, more=""):
        self.file, self._url, self._more = path, url, more
        self._start_beatd, self._beatd, self._wait_until = start_beatd, beatd, wait_until
        self.write("")
        self.daemons = []
        for _ in range(2):
            self.start_daemon()
        page = start_beatd("web", "--config", str(path), "--port", "0").expect(r"Status page at (http://\S+)")
        self._page = httpx.Client(base_url=page[0][1].rstrip("/"), timeout=10)
        self.store = redis.Redis.from_url(url)
        self.wait(lambda: self.get("/readyz").status_code == 200, 30, "readiness")

    def start_daemon(self):
        self.daemons.append(self._start_beatd("run", "--config", str(self.file)))

    def end_leader(self):
        """End the daemon that leads, and start another one."""

        def leading():
            daemons = self.get("/api/status").json()["daemons"]
            return next((each["pid"] for each in daemons if each["shards"]), None)

        pid = self.wait(leading, 20, "a leader")
        leader = next(each for each in self.daemons if each.pid == pid)
        assert leader.end() == 0
        self.daemons.remove(leader)
        self.start_daemon()

    def close(self):
        self._page.close()
        self.store.close()

    def write(self, entry):
        """The healthy entry, and beside it another; both daemons read it by themselves."""
        self.file.write_text(CONFIG.format(url=self._url, more=self._more) + entry)

    def wait(self, predicate, timeout, what):
        return self._wait_until(predicate, timeout=timeout, what=what)

    def get(self, path):
        return self._page.get(path)

    def command(self, *arguments):
        return self._beatd(*arguments, "--config", str(self.file))

    def named(self, needle, *, by_page=True):
        """Wait until the page's status says it; then ``beatd status`` does, too. The page looks at the keys of each
        entry once a minute only."""
        problems = []

        def is_named():
            problems[:] = self.get("/api/status").json()["problems"] if by_page else [self.command("status").stdout]
            return any(needle in text for text in problems)

        try:
            self.wait(is_named, NAMED_WITHIN, f"a problem with {needle!r}")
        finally:
            print(f"problems: {problems}")
        assert needle in self.command("status").stdout

    def all_is_well(self):
        document = lambda: self.get("/api/status").json()  # noqa: E731
        self.wait(lambda: (seen := document())["ready"] and not seen["problems"], 75, "an end of all problems")

    def runs(self):
        return self.store.llen("good")

    def goes_on(self, runs=3):
        before = self.runs()
        self.wait(lambda: self.runs() >= before + runs, 20, "runs of the healthy entry")

    def assert_each_run_once(self):
        headers = [open_envelope(raw).headers for raw in self.store.lrange("good", 0, -1)[::-1]]
        assert_each_run_once([each["beatd-due-at"] for each in headers])
        assert len({each["id"] for each in headers}) == len(headers)

    def logged(self, pattern):
        return any(daemon.find(pattern) for daemon in self.daemons)


def assert_each_run_once(dues):
    instants = [datetime.fromisoformat(due).timestamp() for due in dues]
    steps = {round(later - earlier, 3) for earlier, later in itertools.pairwise(instants)}
    assert steps == {0.25}, f"{len(instants)} runs, apart by {steps}"


@pytest.fixture
def fleet(start_beatd, beatd, redis_url, tmp_path, wait_until):
    fleet = Fleet(start_beatd, beatd, redis_url, tmp_path / "beat.toml", wait_until)
    yield fleet
    fleet.close()


BAD = '\n[beat_schedule.bad]\ntask = "tasks.bad"\nschedule = 0.5\n'

WORSE = "[beat_schedule.worse]\ntask = 't'\nschedule = "
REFUSED = {
    "beat_schedule.bad.expires": 'expires = "9999999d"',
    "beat_schedule.bad.countdown": 'countdown = "9999999d"',
    "beat_schedule.bad.headers": 'headers = { id = "fixed", task = "other" }',
    "beat_schedule.worse.schedule": f"{WORSE}999999999999",
    "beat_schedule.worse.schedule: at": f"{WORSE}{{ at = 9999-12-31T23:59:59 }}\ntimezone = 'America/New_York'",
}
"""What the file is refused for: the last good schedule stays in force."""


def test_what_is_typed_into_the_file(fleet):
    for place, line in REFUSED.items():
        fleet.write(BAD + line + "\n")
        done = fleet.command("check")
        assert done.returncode == 2
        assert place in done.stdout + done.stderr
        fleet.named("its files have errors")
        fleet.named(place)
        fleet.goes_on(1)
        fleet.write("")
        fleet.all_is_well()
    fleet.store.hset("badq", "a", "1")
    fleet.write(BAD + 'queue = "badq"\n')
    fleet.named("bad is held back since")
    assert "badq" in fleet.get("/api/status").json()["held_back"][0]["reason"]
    assert fleet.get("/readyz").status_code == 200, "runs leave"
    assert "held back" in fleet.command("list").stdout
    [held] = json.loads(fleet.command("list", "--held", "--json").stdout)["entries"]
    assert held["name"] == "bad"
    assert 'beatd_entry_held_back{entry="bad"} 1' in fleet.get("/metrics").text
    assert "badq" in fleet.get("/").text
    fleet.goes_on()
    fleet.store.delete("badq")
    fleet.all_is_well()
    assert fleet.logged("bad is not held back any more")
    arguments = f'{{ url = "http://127.0.0.1:1/", body = "{"a" * 400_000}" }}'
    fleet.write(BAD.replace("tasks.bad", "beatd.http") + f'queue = "big"\nkwargs = {arguments}\n')
    fleet.wait(lambda: fleet.store.llen("big") > 2, 20, "runs with large bodies")
    fleet.goes_on()
    fleet.assert_each_run_once()


def test_what_is_put_into_the_store(fleet):
    done = fleet.command(
        "add", "never", "--task", "t", "--schedule", "{at=9999-12-31T23:59:59}", "--timezone", "America/New_York"
    )
    assert done.returncode == 2
    assert "9999" in done.stderr
    assert "Traceback" not in done.stderr
    table = {"task": "t", "schedule": {"at": "9999-12-31T23:59:59"}, "timezone": "America/New_York"}
    fleet.store.hset(
        "{beatd}:schedules", mapping={"never": json.dumps(table), "junk": b"\xff", "huge": b"x" * (3 << 20)}
    )
    fleet.named("not in force: huge, junk, never")
    listed = fleet.command("list")
    assert (listed.returncode, "Traceback" in listed.stderr) == (0, False)
    assert "runtime:huge: not read: it has 3,072 KiB" in listed.stdout
    assert fleet.get("/api/entries").status_code == 200
    fleet.goes_on()
    fleet.store.delete("{beatd}:schedules")
    fleet.all_is_well()
    fleet.write(BAD + 'overlap = "skip"\nqueue = "bads"\nmax_runtime = "1h"\n')
    raw = fleet.wait(lambda: fleet.store.lindex("bads", 0), 20, "a run")
    fleet.store.set(f"celery-task-meta-{open_envelope(raw).headers['id']}", b"\x80\x04K\x01.")
    fleet.wait(lambda: fleet.store.llen("bads") > 1, 20, "the next run")
    fleet.wait(lambda: fleet.logged("The result of the last run of bad cannot be read"), 20, "that to be said")
    fleet.write(BAD + 'queue = "bads"\n')
    for key in ("{beatd}:last_due", "{beatd}:known", "{beatd}:runs"):
        fleet.store.hset(key, "bad", "garbage")
        fleet.write(BAD + f'queue = "bads"\nargs = ["{key}"]\n')
        fleet.named("bad is held back since")
        fleet.goes_on(1)
        fleet.store.hdel(key, "bad")
        fleet.all_is_well()
    fleet.assert_each_run_once()


def test_keys_that_all_runs_need(fleet):
    for key in ("{beatd}:last_due", "{beatd}:runs", "{beatd}:0:claims"):
        fleet.goes_on(1)
        with fleet.store.pipeline() as at_once:  # else a run may be claimed in between
            at_once.rename(key, "kept")
            at_once.lpush(key, "mine")
            at_once.execute()
        fleet.wait(lambda key=key: key in fleet.get("/readyz").text, 40, f"no readiness without {key}")
        assert fleet.get("/readyz").status_code == 503
        done = fleet.command("status")
        assert done.returncode == 1
        assert f"! the key {key} is a list and should be a" in done.stdout
        fleet.store.rename("kept", key)
        fleet.all_is_well()
    fleet.goes_on()
    fleet.assert_each_run_once()


def test_keys_that_no_run_needs(fleet):
    for name in ("gaps", "tally", "running", "0:outbox", "0:held", "history:good", "outcomes:good"):
        key = f"{{beatd}}:{name}"
        fleet.goes_on(1)
        kind = "list" if name == "history:good" else "string"
        with fleet.store.pipeline() as at_once:  # else a run may be claimed in between
            at_once.delete(key)
            at_once.lpush(key, "mine") if kind == "list" else at_once.set(key, "mine")
            at_once.execute()
        fleet.named(f"the key {key} is a {kind} and should be a", by_page=not name.endswith(":good"))
        assert fleet.get("/readyz").status_code == 200, key
        assert fleet.command("list").returncode == 0, key
        fleet.end_leader()
        fleet.goes_on()
        fleet.write(BAD)  # an entry that begins, and one that is changed
        fleet.write(BAD.replace("0.5", "0.7"))
        fleet.goes_on()
        fleet.store.delete(key)
        fleet.write("")
        fleet.all_is_well()
    fleet.assert_each_run_once()


def test_keys_of_the_commands(fleet):
    """Reloads, heartbeats and requests suffer; the schedule in force goes on."""
    for name in ("schedules", "paused", "revision", "changes", "daemons", "orders", "requests", "known"):
        key = f"{{beatd}}:{name}"
        fleet.goes_on(1)
        fleet.store.delete(key)
        fleet.store.set(key, "mine")
        fleet.goes_on(20)
        done = fleet.command("status")
        assert key in done.stdout + done.stderr
        assert "Traceback" not in done.stderr, key
        fleet.store.delete(key)
        fleet.goes_on()
        fleet.all_is_well()
    fleet.assert_each_run_once()


def test_a_queue_that_rabbitmq_refuses(start_beatd, beatd, redis_url, tmp_path, wait_until, rabbitmq):
    good, full = (f"isolation-{uuid.uuid4().hex[:12]}" for _ in range(2))
    with kombu.Connection(rabbitmq.url, connect_timeout=5) as connection:
        channel = connection.channel()
        channel.queue_declare(full, arguments={"x-max-length": 0, "x-overflow": "reject-publish"}, auto_delete=False)
        channel.queue_declare(good, auto_delete=False)
        channel.queue_declare("good", durable=True, auto_delete=False)
        more = f'[broker]\nurl = "{rabbitmq.url}"\n'
        fleet = Fleet(start_beatd, beatd, redis_url, tmp_path / "beat.toml", wait_until, more=more)
        fleet.runs = lambda: channel.queue_declare("good", passive=True).message_count
        with contextlib.closing(fleet):
            before = fleet.runs()
            fleet.write(BAD + f'queue = "{full}"\n')
            fleet.wait(lambda: fleet.logged("run_refused|does not take"), 20, "a refusal")
            shown = fleet.wait(
                lambda: (seen := fleet.command("history", "bad", "--failed")).stdout.count("refused: ") > 1 and seen,
                20,
                "it",
            )
            assert shown.returncode == 0
            [run, *_] = json.loads(fleet.command("history", "bad", "--failed", "--json").stdout)["runs"]
            assert run["outcome"] == "REFUSED"
            assert run["reason"]
            [run, *_] = [each for each in fleet.get("/api/entries/bad/history").json()["runs"] if each["outcome"]]
            assert (run["outcome"], bool(run["reason"])) == ("REFUSED", True)
            done = fleet.command("trigger", "bad")
            assert done.returncode == 1
            assert "the broker refused it: " in done.stderr
            assert "Traceback" not in done.stderr
            done = fleet.command("trigger", "bad", "--wait", "--json")
            assert done.returncode == 1
            assert json.loads(done.stdout)["refused"]
            done = fleet.command("trigger", "bad", "--queue", good, "--json")
            assert (done.returncode, json.loads(done.stdout)["refused"]) == (0, None)
            assert channel.queue_declare(good, passive=True).message_count == 1
            fleet.goes_on(10)
            assert fleet.runs() > before
        messages = list(iter(lambda: channel.basic_get("good", no_ack=True), None))
        channel.queue_delete(full)
        channel.queue_delete(good)
        channel.queue_delete("good")
    assert_each_run_once([message.headers["beatd-due-at"] for message in messages])
