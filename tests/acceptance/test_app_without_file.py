"""Apps without a ``beat.toml``: schedule, time zone and state store are those of the app, and the start says which."""

import os
import signal
import subprocess
import sys

import pytest
import redis

APP = """
from {package} import {kind}
app = {kind}("proj", broker="{broker}", backend={backend!r})
app.conf.timezone = "Europe/Berlin"
@app.task(name="proj.tick")
def tick():
    return 1
app.conf.beat_schedule = {{"tick": {{"task": "proj.tick", "schedule": 0.5}}}}
if __name__ == "__main__":
    app.start()
"""


@pytest.fixture
def write_app(tmp_path):
    def write(broker, backend=None, *, package="celery", kind="Celery"):
        (tmp_path / "proj.py").write_text(APP.format(package=package, kind=kind, broker=broker, backend=backend))

    return write


@pytest.mark.parametrize(("package", "kind"), [("celery", "Celery"), ("beatd", "App")])
def test_the_apps_redis_keeps_the_state(package, kind, write_app, start_beatd, beatd, redis_url, wait_until, tmp_path):
    write_app(redis_url, package=package, kind=kind)
    daemon = start_beatd("-A", "proj", "beat", "-l", "info")
    daemon.expect("no beat.toml: schedule and time zone are those of proj; the state store is its broker", timeout=20)
    with redis.Redis.from_url(redis_url) as client:
        wait_until(lambda: client.llen("celery") >= 2, 20, "runs")
    for command in (("status",), ("list",), ("history",), ("reload",), ("pause", "tick")):
        done = beatd("-A", "proj", *command)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    assert "paused" in beatd("list", "-A", "proj").stdout
    assert beatd("status", "-A", "proj").stdout.count("leads") == 1
    assert daemon.end() == 0
    assert not list(tmp_path.glob("beat.toml"))


@pytest.mark.slow
def test_the_folder_of_a_killed_process_is_removed_and_that_of_a_living_one_is_not(
    write_app, start_beatd, beatd, redis_url, tmp_path
):
    write_app(redis_url)
    place = tmp_path / "tmp"
    place.mkdir()
    alive = None
    for end in (signal.SIGTERM, None, signal.SIGKILL):
        daemon = start_beatd("-A", "proj", "beat", TMPDIR=str(place))
        daemon.expect("entry in force|Standing by", timeout=30)
        (folder,) = set(place.glob("beatd-app-*")) - {alive}
        os.utime(folder, (0, 0))
        if end is None:
            alive = folder
        else:
            daemon.end(end, timeout=20)
    assert set(place.glob("beatd-app-*")) == {alive, folder}
    assert beatd("-A", "proj", "list", TMPDIR=str(place)).returncode == 0
    assert set(place.glob("beatd-app-*")) == {alive}
    assert (alive / "beat.toml").exists()


def test_the_result_backend_keeps_the_state_of_another_broker(write_app, beatd, redis_url):
    write_app("amqp://guest:secret9zq@localhost:1//", redis_url)
    done = beatd("-A", "proj", "doctor")
    assert "the state store is its result backend" in done.stdout
    assert "broker:   amqp://guest:***@localhost:1//" in done.stdout
    assert "secret9zq" not in done.stdout + done.stderr


def test_without_any_redis_the_store_is_embedded(write_app, beatd):
    write_app("amqp://localhost:1//")
    assert "the state store is an embedded server" in beatd("doctor", "-A", "proj").stdout


def test_what_cannot_be_used_is_named(write_app, beatd):
    for name, text in (("nowhere", "no module named 'nowhere'"), ("proj", "memory:// is its broker")):
        write_app("memory://")
        done = beatd("-A", name, "status")
        assert done.returncode == 2
        assert text in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize("line", ["", "\nfrom proj import app\napp.Beat(loglevel='info', max_interval=5).run()\n"])
def test_a_script_that_starts_its_own_beat(line, write_app, redis_url, wait_until, tmp_path):
    write_app(redis_url, package="beatd", kind="App")
    script = tmp_path / ("main.py" if line else "proj.py")
    if line:
        script.write_text(line)
    words = [sys.executable, str(script), *([] if line else ["beat"])]
    process = subprocess.Popen(words, cwd="/", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        with redis.Redis.from_url(redis_url) as client:
            wait_until(lambda: client.llen("celery") >= 2, 20, "runs")
    finally:
        process.terminate()
        assert process.wait(20) == 0
