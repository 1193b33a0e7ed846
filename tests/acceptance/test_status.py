"""``beatd status`` beside real daemons: who is alive, who leads, what is wrong, and what the exit code says."""

import json
import os
import pty
import re
import signal
import subprocess
import sys

import pytest

CONFIG = """
[redis]
url = "{url}"
[leader]
ttl = "10s"
renew = "500ms"
shards = {shards}
[beat_schedule.tick]
task = "tasks.tick"
schedule = 1.0
"""


@pytest.fixture
def write(tmp_path, redis_url):
    def write(name="beat.toml", *, shards=1, url=redis_url, more=""):
        path = tmp_path / name
        path.write_text(CONFIG.format(url=url, shards=shards) + more)
        return str(path)

    return write


@pytest.fixture
def status(beatd, wait_until):
    """``status(file, predicate)``: the JSON document as soon as the predicate holds."""

    def until(file, predicate, what):
        def look():
            document = json.loads(beatd("status", "--config", file, "--json").stdout)
            return document if predicate(document) else None

        return wait_until(look, timeout=20, what=what)

    return until


def has(document, words):
    return any(words in problem for problem in document["problems"])


def leads(document):
    return {daemon["pid"]: [one["shard"] for one in daemon["shards"]] for daemon in document["daemons"]}


def test_a_leader_and_a_standby(start_beatd, write, beatd, status):
    file = write()
    first = start_beatd("--config", file)
    first.expect("Leading")
    second = start_beatd("--config", file)
    document = status(file, lambda seen: len(seen["daemons"]) == 2 and not seen["problems"], "two daemons in order")
    assert leads(document) == {first.pid: [0], second.pid: []}
    assert document["same_schedule"]
    assert {daemon["entries"] for daemon in document["daemons"]} == {1}
    [shard] = document["shards"]
    assert shard["term"] == 1
    assert 0 < shard["lease_ms"] <= 10_000
    done = beatd("status", "--config", file)
    assert done.returncode == 0
    assert "standby" in done.stdout
    assert f"Leader       {shard['leader']}, term 1" in done.stdout


def test_shards_are_shown_with_their_leaders(start_beatd, write, status):
    file = write(shards=4)
    daemons = [start_beatd("--config", file) for _ in range(2)]
    document = status(file, lambda seen: sorted(map(len, leads(seen).values())) == [2, 2], "an even share")
    assert set(leads(document)) == {daemon.pid for daemon in daemons}
    assert [shard["outbox"] for shard in document["shards"]] == [0, 0, 0, 0]


def test_no_daemon_is_exit_code_1(start_beatd, write, beatd, wait_until):
    file = write()
    done = beatd("status", "--config", file)
    assert done.returncode == 1
    assert "no daemon is alive" in done.stdout
    daemon = start_beatd("--config", file)
    daemon.expect("Leading")
    wait_until(lambda: beatd("status", "--config", file).returncode == 0, 20, "its first heartbeat")
    assert daemon.end(signal.SIGTERM) == 0
    done = beatd("status", "--config", file, "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["daemons"] == [], "a daemon that ends in order is struck off"


def test_a_daemon_that_was_killed_is_missed(start_beatd, write, status):
    file = write()
    daemon = start_beatd("--config", file)
    status(file, lambda seen: seen["daemons"], "its first heartbeat")
    daemon.end(signal.SIGKILL)
    document = status(file, lambda seen: has(seen, "no daemon is alive"), "the daemon to be missed")
    assert any("last heartbeat" in problem for problem in document["problems"])


def test_different_schedules_are_shown_and_logged(start_beatd, write, status):
    file = write()
    other = write("other.toml", more='[beat_schedule.more]\ntask = "tasks.more"\nschedule = 5.0\n')
    first, second = start_beatd("--config", file), start_beatd("--config", other)
    status(file, lambda seen: has(seen, "2 different schedules"), "the difference")
    first.expect("config_mismatch|is not that of")
    second.expect("config_mismatch|is not that of")
    second.end(signal.SIGTERM)
    first.expect("same schedule again")


def test_a_broken_file_is_shown(start_beatd, write, status):
    file = write()
    start_beatd("--config", file).expect("Leading")
    looking = write("looking.toml")
    write(more="[beat_schedule.bad]\n")

    def configs(seen):
        return [daemon["config"] for daemon in seen["daemons"]]

    document = status(looking, lambda seen: configs(seen) == ["broken"], "the broken file")
    assert any("files have errors" in problem for problem in document["problems"])
    write()
    status(looking, lambda seen: configs(seen) == ["ok"], "the mended file")


def test_another_number_of_shards_is_shown_while_it_waits(start_beatd, write, status):
    file = write()
    start_beatd("--config", file).expect("Leading")
    waiting = start_beatd("--config", write("two.toml", shards=2))
    document = status(file, lambda seen: has(seen, "not eligible to lead"), "the other")
    assert leads(document)[waiting.pid] == []
    assert any("wants 2 shards, and" in problem for problem in document["problems"])


def test_a_wrong_file_is_exit_code_2(write, beatd):
    done = beatd("status", "--config", write(more="[leadr]\n"))
    assert done.returncode == 2
    assert 'unknown setting "leadr"' in done.stderr


READS = """
import sys
reads = []
sys.addaudithook(lambda event, args: event == "open" and str(args[0]).endswith(".toml") and reads.append(args[0]))
from beatd.cli import main
try:
    main(["status", "--json", "--config", "beat.toml"])
finally:
    print(len(reads), file=sys.stderr)
"""


def test_the_file_is_read_once(write, beatd, tmp_path):
    write(more='queue = "own"\n')
    environment = {key: value for key, value in os.environ.items() if not key.startswith("BEATD_")}
    command = [sys.executable, "-c", READS]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=30, check=False
    )
    assert done.stderr.splitlines()[-1] == "1", done.stderr
    assert "own" in {one["name"] for one in json.loads(done.stdout)["queues"]}


def test_it_looks_while_an_entry_is_wrong(write, beatd):
    done = beatd("status", "--config", write(more="[beat_schedule.bad]\n"))
    assert (done.returncode, done.stderr) == (1, "")
    assert "! no daemon is alive" in done.stdout


def test_a_store_out_of_reach_is_exit_code_1_in_words(write, beatd, free_port):
    done = beatd("status", "--config", write(url=f"redis://:s3cret@127.0.0.1:{free_port()}/0"))
    assert done.returncode == 1
    assert "refused" in done.stderr
    assert "s3cret" not in done.stderr + done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("right", ["-eval", "-get", "-@all"])
def test_json_says_that_the_store_refuses(write, beatd, redis_url, client, right):
    client.execute_command("ACL", "SETUSER", "low", "reset", "on", ">s3cret", "~*", "&*", "+@all", right)
    done = beatd("status", "--json", "--config", write(url=redis_url.replace("redis://", "redis://low:s3cret@")))
    document = json.loads(done.stdout)
    assert done.returncode == 1
    assert document["ready"] is False
    assert [one["kind"] for one in document["problem_details"]] == ["store_refused"]
    assert "s3cret" not in done.stdout + done.stderr


def test_an_embedded_store_is_joined_and_never_started(start_beatd, write, beatd, tmp_path, status):
    file = write(url="embedded")
    done = beatd("status", "--config", file)
    assert done.returncode == 1
    assert "does not run" in done.stderr
    assert not (tmp_path / ".beatd").exists()
    start_beatd("--config", file).expect("Leading")
    status(file, lambda seen: seen["ready"], "its first heartbeat")
    done = beatd("status", "--config", file)
    assert done.returncode == 0
    assert "term 1" in done.stdout


def test_it_fits_80_columns(start_beatd, write, status):
    file = write(shards=3)
    start_beatd("--config", file).expect("Leading shard 2")
    status(file, lambda seen: seen["ready"], "its first heartbeat")
    here, there = pty.openpty()
    command = [sys.executable, "-m", "beatd", "status", "--config", file]
    subprocess.run(command, stdout=there, env={**os.environ, "COLUMNS": "80", "NO_COLOR": "1"}, timeout=60, check=True)
    os.close(there)
    lines = os.read(here, 65_536).decode().splitlines()
    assert any("Redis" in line or "Valkey" in line for line in lines)
    assert max(map(len, lines)) <= 80


def test_workers_are_shown_beside_daemons(start_beatd, write, beatd, status, tmp_path, redis_url, wait_until):
    (tmp_path / "proj.py").write_text(
        f"from beatd import App\napp = App('proj', broker='{redis_url}')\n@app.task\ndef tick():\n    pass\n"
    )
    file = write()
    start_beatd("--config", file).expect("Leading")
    waiting = status(file, lambda seen: seen["unattended_queues"], "messages without a worker")
    assert (waiting["unattended_queues"][0]["name"], waiting["workers"]) == ("celery", [])
    assert (waiting["queues"][0]["name"], waiting["queues"][0]["messages"] > 0) == ("celery", True)
    name = "a-worker-with-a-very-long-name@and-a-host-with-a-long-name"
    queues = "celery,invoices-of-the-european-customers,reports"
    worker = start_beatd("worker", "-A", "proj", "-c", "2", "-P", "threads", "-n", name, "-Q", queues)
    worker.expect("ready", timeout=20)

    def states(seen):
        return [one["state"] for one in seen["workers"]]

    def has_answered(seen):
        """To all questions."""
        return states(seen) == ["online"] and all(seen["workers"][0][part] for part in ("pool", "queues"))

    (seen,) = status(file, has_answered, "it")["workers"]
    assert (seen["name"], seen["concurrency"], seen["pool"]) == (name, 2, "thread")
    assert seen["queues"] == sorted(queues.split(","))
    assert seen["heartbeat_at"] is not None
    row = rf"{name} +online +\d of 2 +[\d.]+ m?s ago +celery, invoices"
    wait_until(lambda: re.search(row, beatd("status", "--config", file).stdout), 20, "its row in the table")
    worker.send(signal.SIGSTOP)
    try:
        silent = status(file, lambda seen: states(seen) not in ([], ["online"]), "a worker that does not answer")
        assert silent["workers"][0]["running"] is None
    finally:
        worker.send(signal.SIGCONT)
