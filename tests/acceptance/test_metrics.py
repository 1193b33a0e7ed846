"""Metrics and health of each process, as Prometheus and a container's probes ask for them."""

from __future__ import annotations

import json
import re
import select
import shutil
import signal
import socket
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import httpx
import pytest
import redis
from prometheus_client.parser import text_string_to_metric_families

from beatd import App
from beatd.metrics.families import FAMILIES
from beatd.metrics.server import CONNECTIONS_MAX

CONFIG = """
[redis]
url = "{url}"
[leader]
ttl = "10s"
renew = "1s"
[beat_schedule.tick]
task = "tasks.tick"
schedule = 1.0
[beat_schedule.never]
task = "tasks.tick"
schedule = "0 0 29 2 *"
"""
TASKS = """
import time
from beatd import App

app = App("tasks", broker="{url}")

@app.task
def tick(): pass

@app.task
def fail(): 1 / 0

@app.task
def long(seconds): time.sleep(seconds)
"""


@pytest.fixture
def file(tmp_path, redis_url):
    path = tmp_path / "beat.toml"
    path.write_text(CONFIG.format(url=redis_url))
    (tmp_path / "tasks.py").write_text(TASKS.format(url=redis_url))
    return str(path)


def get(url):
    """The answer of a process that may be slow on a loaded machine."""
    return httpx.get(url, timeout=20)


def served(process):
    """The URL at which a process says that it serves."""
    [found] = process.expect(r"Metrics and health at (http://\S+)")
    return found[1]


def samples(url):
    """``{(name, labels): value}`` of what is exposed, read by Prometheus' own parser; each name is documented."""
    answer = get(f"{url}/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    found = {}
    for family in text_string_to_metric_families(answer.text):
        if family.name.startswith("beatd_"):
            name = f"{family.name}_total" if family.type == "counter" else family.name
            assert FAMILIES[name].kind == family.type
        for sample in family.samples:
            key = (sample.name, *sorted(sample.labels.items()))
            assert key not in found, key
            found[key] = sample.value
    return found


def test_a_daemon_tells_of_its_runs_and_its_leadership(start_beatd, file, wait_until):
    daemon = start_beatd("--config", file, "--metrics-listen", "127.0.0.1:0")
    url = served(daemon)
    daemon.expect("Dispatched tick", times=2)
    wait_until(lambda: get(f"{url}/readyz").status_code == 200, what="readiness")
    found = samples(url)
    assert found["beatd_store_up",] == 1
    assert found["beatd_daemon_ready",] == 1
    assert found["beatd_entries",] == 2
    assert found["beatd_daemon_leading", ("shard", "0")] == 1
    assert found["beatd_daemon_term", ("shard", "0")] >= 1
    assert found["beatd_outbox_length", ("shard", "0")] == 0
    sent = ("outcome", "sent"), ("reason", "")
    assert found["beatd_daemon_runs_total", *sent] >= 2
    assert found["beatd_daemon_entry_runs_total", ("entry", "tick"), *sent] >= 2
    assert found["beatd_daemon_lateness_seconds_count",] == found["beatd_daemon_runs_total", *sent]
    assert found["beatd_daemon_claim_seconds_count",] >= 2
    assert found["process_cpu_seconds_total",] > 0
    assert found["beatd_entry_next_due_timestamp_seconds", ("entry", "tick")] > time.time() - 60
    assert found["beatd_entry_next_due_timestamp_seconds", ("entry", "never")] > time.time()
    assert found["beatd_dead_letters",] == found["beatd_notifications_waiting",] == 0
    assert found["beatd_daemon_config_faults",] == 0
    if shutil.which("promtool"):
        text = get(f"{url}/metrics").text
        lint = ["promtool", "check", "metrics"]
        done = subprocess.run(lint, input=text, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
    assert get(f"{url}/healthz").text == "ok\n"
    assert get(f"{url}/other").status_code == 404
    assert httpx.post(f"{url}/metrics").status_code == 501
    assert httpx.head(f"{url}/metrics").text == ""


def test_a_reload_is_counted_and_a_broken_file_shows(start_beatd, file, tmp_path, wait_until):
    url = served(daemon := start_beatd("--config", file, "--metrics-port", "0"))
    daemon.expect("Leading")
    (tmp_path / "beat.toml").write_text("nonsense")
    wait_until(lambda: samples(url)["beatd_daemon_reloads_total", ("outcome", "broken")] >= 1, what="a broken reload")
    found = samples(url)
    assert [value for key, value in found.items() if key[0] == "beatd_config_broken"] == [1]
    assert found["beatd_daemon_config_faults",] == 1
    assert get(f"{url}/readyz").status_code == 200, "the last valid schedule is in force"


def test_the_entries_with_metrics_of_their_own_are_bounded(start_beatd, tmp_path, redis_url, wait_until):
    entries = "".join(f'[beat_schedule.e{n}]\ntask = "t"\nschedule = 1.0\n' for n in range(3))
    bounds = {"all": 3, "top:2": 2, "none": 0}
    daemons = {}
    for setting in bounds:
        path = tmp_path / f"{setting[:3]}.toml"
        metrics = f'[metrics]\nlisten = "127.0.0.1:0"\nentries = "{setting}"\n'
        path.write_text(f'[redis]\nurl = "{redis_url}"\nprefix = "{setting[:3]}"\n{metrics}{entries}')
        daemons[setting] = start_beatd("run", "--config", str(path))
    total = ("beatd_daemon_runs_total", ("outcome", "sent"), ("reason", ""))
    for setting, daemon in daemons.items():
        url = served(daemon)
        found = wait_until(lambda url=url: (seen := samples(url)).get(total, 0) >= 3 and seen, what="three runs")
        named = [key for key in found if key[0] == "beatd_daemon_entry_runs_total"]
        assert len(named) == bounds[setting], setting


def test_a_daemon_answers_while_its_store_is_away(start_beatd, tmp_path, start_server, beatd, wait_until):
    server = start_server()
    file = tmp_path / "beat.toml"
    file.write_text(CONFIG.format(url=server.url))
    server.stop()
    url = served(start_beatd("--config", str(file), "--metrics-listen", "127.0.0.1:0"))
    assert samples(url)["beatd_store_up",] == 0
    wait_until(lambda: samples(url)["beatd_store_down_seconds",] > 0, what="an outage")
    assert get(f"{url}/healthz").status_code == 200
    wait_until(lambda: "Connection refused" in get(f"{url}/readyz").text, what="the reason")
    server.start()
    wait_until(lambda: get(f"{url}/readyz").status_code == 200, 30, "readiness")
    assert (samples(url)["beatd_store_up",], samples(url)["beatd_store_down_seconds",]) == (1, 0)
    server.pause()
    answer = wait_until(lambda: (seen := get(f"{url}/readyz")).status_code == 503 and seen, 30, "no readiness")
    assert "state store" in answer.text
    assert samples(url)["beatd_store_up",] == 0
    address = url.removeprefix("http://")
    wait_until(lambda: samples(url)["beatd_store_down_seconds",] > 1, 30, "an outage")
    assert ", for " in get(f"{url}/readyz").text
    file.write_text(f'{file.read_text()}\n[metrics]\nlisten = "{address}"\n')

    def told_since_when():  # the command waits for the daemon's answer for some seconds only
        told = beatd("status", "--json", "--config", str(file))
        return told if json.loads(told.stdout)["state_store"]["since"] else None

    told = wait_until(told_since_when, 40, "since when the store is away")
    away = json.loads(told.stdout)
    assert (told.returncode, away["ready"], away["problems"]) == (1, False, away["not_ready"])
    since = datetime.fromisoformat(away["state_store"]["since"])
    assert timedelta(seconds=1) < datetime.now(UTC) - since < timedelta(minutes=1)
    assert f", since {since:%Y-%m-%d %H:%M:%S} UTC" in away["problems"][0]
    assert beatd("healthcheck", "--timeout", "20", "--metrics-listen", address).returncode == 0
    done = beatd("healthcheck", "--timeout", "20", "--ready", BEATD_METRICS_LISTEN=address)
    assert done.returncode == 1
    assert "state store" in done.stderr
    server.resume()


def test_a_port_that_is_taken_does_not_stop_the_beat_and_is_tried_again(start_beatd, file, free_port):
    port = free_port()
    with socket.create_server(("127.0.0.1", port)):
        daemon = start_beatd("--config", file, "--metrics-port", str(port))
        daemon.expect(
            rf"No metrics and health checks: port {port} of 127.0.0.1 is taken; choose another with --metrics"
        )
        daemon.expect("Dispatched tick")
    assert served(daemon) == f"http://127.0.0.1:{port}"


@pytest.mark.slow
def test_many_scrapes_and_slow_clients_disturb_neither_the_beat_nor_each_other(
    start_beatd, file, tmp_path, redis_url, wait_until
):
    (tmp_path / "beat.toml").write_text(
        (tmp_path / "beat.toml").read_text().replace("schedule = 1.0", "schedule = 0.1")
    )
    daemon = start_beatd("--config", file, "--metrics-port", "0")
    url = served(daemon)
    port = int(url.rpartition(":")[2])
    daemon.expect("Dispatched tick")
    opened = [socket.create_connection(("127.0.0.1", port)) for _ in range(CONNECTIONS_MAX + 8)]
    wait_until(lambda: len(ended(opened)) >= 8, 20, "each connection beyond the limit to cost one")
    idle = [connection for connection in opened if connection not in ended(opened)]
    assert len(idle) == CONNECTIONS_MAX
    for connection in idle[8:]:
        connection.shutdown(socket.SHUT_WR)
        connection.settimeout(20)
        assert connection.recv(1) == b"", "there is room again"
    over = threading.Event()

    def scrape() -> int:
        count = 0
        with httpx.Client(timeout=20) as client:
            while not over.wait(0.1):
                assert client.get(f"{url}/metrics").status_code == 200
                count += 1
        return count

    with ThreadPoolExecutor(3) as scrapers:
        counts = [scrapers.submit(scrape) for _ in range(3)]
        try:
            idle[0].settimeout(20)
            assert idle[0].recv(1) == b"", "an idle connection is closed"
            assert samples(url)["beatd_daemon_ready",] == 1
        finally:
            over.set()
        assert sum(count.result(30) for count in counts) > 30
    assert daemon.end() == 0
    for connection in opened:
        connection.close()
    with redis.Redis.from_url(redis_url) as store:
        dues = [json.loads(raw)["headers"]["beatd-due-at"] for raw in reversed(store.lrange("celery", 0, -1))]
    moments = [datetime.fromisoformat(due) for due in dues]
    assert len(moments) > 50
    assert {later - earlier for earlier, later in pairwise(moments)} == {timedelta(milliseconds=100)}, (
        "no run is missed"
    )


def ended(connections):
    """Those that the other side has closed."""
    return select.select(connections, [], [], 0)[0]


@pytest.fixture
def send(redis_url):
    """``send("tasks.tick", times=3)``"""
    app = App("sender", broker=redis_url)

    def sent(name, *args, times=1):
        for _ in range(times):
            app.send_task(name, args)

    yield sent
    app.close()


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
@pytest.mark.usefixtures("file")
def test_a_worker_tells_of_its_tasks(start_beatd, send, wait_until, pool):
    worker = start_beatd("worker", "-A", "tasks", "-P", pool, "-c", "2", "--metrics-listen", "127.0.0.1:0")
    url = served(worker)
    worker.expect("ready")
    wait_until(lambda: get(f"{url}/readyz").status_code == 200, what="readiness")
    send("tasks.tick", times=3)
    send("tasks.fail")
    success = ("beatd_worker_tasks_total", ("state", "success"), ("task", "tasks.tick"))
    failure = (success[0], ("state", "failure"), ("task", "tasks.fail"))
    queue = "beatd_queue_length", ("queue", "celery")
    wait_until(lambda: samples(url).get(success) == 3, what="three tasks")
    wait_until(lambda: samples(url).get(failure) == 1, what="a failure")
    # queues are looked at every five seconds
    found = wait_until(lambda: (seen := samples(url)).get(queue) == 0 and seen, 20, "the empty queue")
    assert found["beatd_worker_tasks_total", ("state", "received"), ("task", "tasks.tick")] == 3
    assert found["beatd_worker_task_seconds_count", ("task", "tasks.tick")] == 3
    assert found["beatd_worker_pool_size",] == (1 if pool == "solo" else 2)
    assert found["beatd_queue_oldest_message_seconds", ("queue", "celery")] == 0
    assert found["beatd_broker_up",] == 1
    assert found["beatd_worker_ready",] == 1
    send("tasks.long", 30, times=4)
    if pool != "solo":  # whose loop stands still meanwhile
        found = wait_until(lambda: (seen := samples(url))["beatd_worker_pool_busy",] == 2 and seen, what="a busy pool")
        wait_until(
            lambda: (seen := samples(url)).get(queue, 0) + seen["beatd_worker_prefetched",] == 2, 20, "waiting messages"
        )
        assert found["beatd_worker_longest_running_seconds",] > 0
    assert get(f"{url}/healthz").status_code == 200
    worker.send(signal.SIGQUIT)
    worker.wait(15)
    with pytest.raises(httpx.ConnectError):
        get(f"{url}/healthz")


def test_a_worker_answers_before_it_reaches_its_broker_and_after_it_has_lost_it(
    start_beatd, tmp_path, start_server, wait_until
):
    server = start_server()
    (tmp_path / "tasks.py").write_text(TASKS.format(url=server.url))
    server.stop()
    url = served(start_beatd("worker", "-A", "tasks", "--metrics-port", "0"))
    assert get(f"{url}/healthz").status_code == 200
    wait_until(lambda: "Connection refused" in get(f"{url}/readyz").text, what="the reason")
    assert samples(url)["beatd_broker_up",] == 0
    server.start()
    wait_until(lambda: get(f"{url}/readyz").status_code == 200, 20, "readiness")
    server.stop()
    wait_until(lambda: get(f"{url}/readyz").status_code == 503, 20, "no readiness")


@pytest.mark.usefixtures("file")
def test_the_exporter_ends_with_a_worker_that_is_killed_and_is_replaced_if_it_is_killed(
    start_beatd, send, wait_until, free_port
):
    port = str(free_port())
    worker = start_beatd("worker", "-A", "tasks", "-c", "1", "--metrics-port", port)
    url = served(worker)
    worker.expect("ready")
    listening = subprocess.run(["ss", "-Hltnp", f"sport = :{port}"], capture_output=True, text=True, check=True).stdout
    [exporter] = set(re.findall(r"pid=(\d+)", listening))
    assert int(exporter) != worker.pid, "a process that forks has no threads"
    subprocess.run(["kill", "-KILL", exporter], check=True)
    worker.expect("No metrics and health checks: its process ended")
    worker.expect("Metrics and health at", times=2)
    wait_until(lambda: get(f"{url}/readyz").status_code == 200, what="readiness")
    send("tasks.long", 60)
    wait_until(lambda: samples(url)["beatd_worker_pool_busy",] == 1, what="a running task")
    worker.send(signal.SIGKILL)
    worker.process.wait(10)
    second = start_beatd("worker", "-A", "tasks", "-c", "1", "--metrics-port", port)
    assert served(second) == url


def test_the_page_has_a_port_for_its_own_health(start_beatd, file, redis_server):
    page = start_beatd("web", "--config", file, "--port", "0", "--metrics-port", "0")
    url = served(page)
    assert get(f"{url}/healthz").status_code == 200
    assert get(f"{url}/readyz").status_code == 200
    found = samples(url)
    assert found["beatd_daemons",] == 0
    redis_server.stop()
    assert get(f"{url}/healthz").status_code == 200


def test_an_address_that_is_none_is_refused(beatd, tmp_path):
    for command in ("run", "worker", "web", "healthcheck"):
        done = beatd(command, "--metrics-listen", "9464")
        assert done.returncode == 2
        assert 'expected HOST:PORT, as "127.0.0.1:9464"' in done.stderr
    (tmp_path / "beat.toml").write_text('[metrics]\nlisten = "9464"\nentries = "top"\n')
    done = beatd("check", "beat.toml")
    assert done.returncode == 2
    assert 'metrics.listen: expected HOST:PORT, as "127.0.0.1:9464"' in done.stderr + done.stdout
    assert 'metrics.entries: expected "all", "none" or "top:N"' in done.stderr + done.stdout
    done = beatd("healthcheck", "--metrics-port", "1", "--timeout", "1")
    assert done.returncode == 1
    assert "nobody answers at http://127.0.0.1:1/healthz" in done.stderr
