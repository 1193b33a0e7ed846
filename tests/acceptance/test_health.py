"""Health means that runs leave: what status and /readyz say beside real daemons, and what a service manager is told."""

import json
import socket
import statistics
import time

import httpx
import pytest
import redis

CONFIG = """
[redis]
url = "{url}"
[beat_schedule.tick]
task = "tasks.tick"
schedule = 1.0
"""


@pytest.fixture
def file(tmp_path, redis_url):
    path = tmp_path / "beat.toml"
    path.write_text(CONFIG.format(url=redis_url))
    return str(path)


@pytest.fixture
def page(start_beatd, file):
    web = start_beatd("web", "--config", file, "--port", "0")
    [found] = web.expect(r"Status page at (http://\S+)")
    with httpx.Client(base_url=found[1].rstrip("/"), timeout=10) as client:
        yield client


@pytest.mark.slow
def test_a_claim_that_the_store_refuses_is_not_ready_and_is_named(
    start_beatd, file, page, beatd, redis_url, wait_until
):
    daemons = [start_beatd("--config", file) for _ in range(2)]
    wait_until(lambda: any(each.find("Dispatched tick") for each in daemons), 20, "a run")
    wait_until(lambda: page.get("/readyz").status_code == 200, what="readiness")
    with redis.Redis.from_url(redis_url) as store:
        store.set("{beatd}:last_due", "x")
        reason = "{beatd}:last_due is a string and should be a hash"
        wait_until(lambda: reason in page.get("/readyz").text, 40, "no readiness, and why")
        assert page.get("/readyz").status_code == 503
        done = beatd("status", "--config", file)
        assert done.returncode == 1
        assert "! " in done.stdout
        assert "no run is sent since" in done.stdout
        assert "{beatd}:last_due is a string" in done.stdout
        document = json.loads(beatd("status", "--config", file, "--json").stdout)
        assert document["ready"] is False
        store.delete("{beatd}:last_due")
    wait_until(lambda: page.get("/readyz").status_code == 200, 25, "readiness again")
    assert beatd("status", "--config", file).returncode == 0


@pytest.mark.parametrize("value", ["garbage", "a:b", ":7", "\n! forged:0"])
def test_a_lease_that_is_not_a_daemons_is_nobodys(start_beatd, file, page, beatd, redis_url, wait_until, value):
    daemon = start_beatd("--config", file)
    daemon.expect("Dispatched tick")
    with redis.Redis.from_url(redis_url) as store:
        store.set("{beatd}:0:lease", value)
        wait_until(lambda: page.get("/readyz").status_code == 503, 20, "no readiness")
        done = beatd("status", "--config", file)
        assert done.returncode == 1
        assert "Leader       nobody: the key of its lease is not beatd's" in done.stdout
        assert "! nobody can lead shard 0: the key {beatd}:0:lease" in done.stdout
        assert "\n! forged" not in done.stdout
        store.delete("{beatd}:0:lease")
    wait_until(lambda: page.get("/readyz").status_code == 200, 20, "readiness again")


@pytest.mark.slow
def test_an_outbox_that_the_broker_does_not_take_is_a_problem(start_beatd, tmp_path, redis_url, beatd, wait_until):
    """The broker is there and refuses: as for a virtual host that does not exist."""
    with socket.create_server(("127.0.0.1", 0)) as nobody_answers:
        port = nobody_answers.getsockname()[1]
        path = tmp_path / "beat.toml"
        broker = f'[broker]\nurl = "amqp://guest:s3cret@127.0.0.1:{port}/wrong"\n'
        path.write_text(CONFIG.format(url=redis_url) + broker)
        start_beatd("--config", str(path)).expect("Leading")

        def problem():
            done = beatd("status", "--config", str(path))
            return done.stdout if done.returncode == 1 and "no run is sent" in done.stdout else None

        assert "s3cret" not in wait_until(problem, 60, "a problem")


def test_a_check_fails_for_any_problem(start_beatd, file, beatd, redis_url, tmp_path, wait_until):
    (tmp_path / "proj.py").write_text(f"""
from beatd import App
app = App("proj", broker="{redis_url}")
@app.task(name="tasks.tick")
def tick():
    pass
""")
    daemon = start_beatd("--config", file)
    daemon.expect("Dispatched tick")

    def is_unattended():
        done = beatd("status", "--check", "--config", file)
        return done.returncode == 1 and "and no worker; start one: beatd worker -Q celery" in done.stdout

    wait_until(is_unattended, what="a problem")
    assert beatd("status", "--config", file).returncode == 0, "messages may wait for a worker that is being started"
    start_beatd("worker", "-A", "proj", "-c", "1").expect("ready")
    wait_until(lambda: beatd("status", "--check", "--config", file).returncode == 0, 20, "all is well")
    with redis.Redis.from_url(redis_url) as store:
        held = {"reason": "a\n! forged", "since_ms": 1_790_000_000_000, "again_ms": 1_790_000_060_000, "attempts": 2}
        store.hset("{beatd}:0:held", "bad", json.dumps(held))
    done = beatd("status", "--config", file)
    assert done.returncode == 0
    assert "! entry bad is held back since 2026-09-21 14:13:20 UTC: a\\n! forged; next try at" in done.stdout
    assert beatd("status", "--check", "--config", file).returncode == 1
    document = json.loads(beatd("status", "--config", file, "--json").stdout)
    assert document["held_back"] == [
        {
            "entry": "bad",
            "reason": "a\n! forged",
            "since": "2026-09-21T14:13:20.000+00:00",
            "next_try_at": "2026-09-21T14:14:20.000+00:00",
            "attempts": 2,
        }
    ]


def test_a_service_manager_hears_signs_of_life_while_the_store_is_away(start_beatd, tmp_path, free_port, wait_until):
    file = tmp_path / "beat.toml"
    file.write_text(CONFIG.format(url=f"redis://127.0.0.1:{free_port()}/0"))
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(path)
        manager.settimeout(30)
        start_beatd("--config", str(file), NOTIFY_SOCKET=path, WATCHDOG_USEC="1000000")
        said = manager.recv(4096).decode()
        assert said == "READY=1\nSTATUS=waiting for the state store"
        signs, heard, began = [], [], time.monotonic()
        while len(signs) < 10:
            said = manager.recv(4096).decode()
            heard.append(said)
            if said == "WATCHDOG=1":
                signs.append(time.monotonic())
        assert any(text.startswith("STATUS=waiting for the state store: ") for text in heard)
        gaps = [after - before for before, after in zip([began, *signs], signs, strict=False)]
        assert statistics.median(gaps) < 1.0, "systemd would have ended it"  # a busy machine may delay some


def make_replica(store):
    store.execute_command("REPLICAOF", "127.0.0.1", "1")


def make_primary(store):
    store.execute_command("REPLICAOF", "NO", "ONE")


def take_scripts(store):
    store.execute_command("ACL", "SETUSER", "default", "-eval", "-evalsha")


def give_scripts(store):
    store.execute_command("ACL", "SETUSER", "default", "+@all")


@pytest.mark.parametrize(
    ("trouble", "end", "reason"),
    [(make_replica, make_primary, "read-only replica"), (take_scripts, give_scripts, "the user may not run EVAL")],
)
def test_a_store_that_is_read_and_takes_no_writes_makes_no_daemon_ready(
    start_beatd, start_server, tmp_path, free_port, wait_until, trouble, end, reason
):
    """Nobody leads then: a standby could not begin to."""
    server, file = start_server(), tmp_path / "beat.toml"
    listen = f"127.0.0.1:{free_port()}"
    file.write_text(CONFIG.format(url=server.url) + f'[leader]\nttl = "2s"\n[metrics]\nlisten = "{listen}"\n')
    daemon = start_beatd("--config", str(file))
    daemon.expect("Dispatched tick")
    with redis.Redis.from_url(server.url) as store, httpx.Client(base_url=f"http://{listen}", timeout=10) as client:
        assert client.get("/readyz").status_code == 200
        trouble(store)
        daemon.expect("Stepping down")
        wait_until(lambda: reason in client.get("/readyz").text, 20, "no readiness, and why")
        assert client.get("/readyz").text.count(reason) == 1
        assert 'beatd_problems{kind="store_' in client.get("/metrics").text
        end(store)
        wait_until(lambda: client.get("/readyz").status_code == 200, 20, "readiness again")


def test_a_worker_says_once_that_its_broker_takes_no_writes_and_once_that_it_does_again(
    start_beatd, start_server, tmp_path, wait_until
):
    server = start_server()
    (tmp_path / "tasks.py").write_text(f'from beatd import App\napp = App("tasks", broker="{server.url}")\n')
    worker = start_beatd("worker", "-A", "tasks", "-P", "solo")
    worker.expect("ready")
    with redis.Redis.from_url(server.url) as store:
        make_replica(store)
        worker.expect("A server is away")
        wait_until(lambda: store.info("commandstats")["cmdstat_set"]["rejected_calls"] > 3, 30, "more heartbeats")
        make_primary(store)
        worker.expect("All servers answer again")
    assert len(worker.find("A server is away")) == 1
    assert len(worker.find("All servers answer again")) == 1
