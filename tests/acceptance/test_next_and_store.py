"""``beatd next`` and ``beatd list`` beside a real daemon: what the store knows counts; one entry hides no other."""

import json

import pytest
import redis

CONFIG = """
[redis]
url = "{url}"
[beat_schedule.tick]
task = "tasks.tick"
schedule = 1.0
[beat_schedule.hourly]
task = "tasks.hourly"
schedule = "1h"
"""


@pytest.fixture
def file(tmp_path, redis_url):
    path = tmp_path / "beat.toml"
    path.write_text(CONFIG.format(url=redis_url))
    return str(path)


def listed(beatd, file, *options):
    document = json.loads(beatd("list", "--config", file, "--json", *options).stdout)
    return {entry["name"]: entry for entry in document["entries"]}


def test_next_knows_pauses_and_when_an_interval_was_first_seen(start_beatd, file, beatd):
    start_beatd("--config", file).expect("Dispatched tick")
    hourly = listed(beatd, file)["hourly"]
    [run, *_] = json.loads(beatd("next", "hourly", "--config", file, "--json").stdout)
    assert run["due_at"] == hourly["next_due_at"], "one answer"
    assert beatd("pause", "hourly", "--config", file).returncode == 0
    assert beatd("next", "hourly", "--config", file).stdout == "Paused.\n"
    assert listed(beatd, file)["hourly"]["note"] == "paused"
    assert json.loads(beatd("next", "hourly", "-n", "1", "--config", file, "--offline", "--json").stdout)


def test_next_goes_on_without_the_store_and_says_so(file, beatd, tmp_path, free_port):
    path = tmp_path / "away.toml"
    path.write_text(CONFIG.format(url=f"redis://127.0.0.1:{free_port()}/0"))
    done = beatd("next", "hourly", "--config", str(path))
    assert done.returncode == 0
    assert "without the state store" in done.stderr
    assert "hourly" in done.stdout
    assert beatd("next", "hourly", "--config", str(path), "--offline").stderr == ""


def test_last_due_stays_when_an_entry_is_resumed(start_beatd, file, beatd, wait_until):
    daemon = start_beatd("--config", file)
    daemon.expect("Dispatched tick")
    beatd("pause", "tick", "--config", file)
    daemon.expect("paused tick")
    before = listed(beatd, file)["tick"]["last_due_at"]
    assert before is not None
    beatd("resume", "tick", "--config", file)
    daemon.expect("resumed tick")
    assert listed(beatd, file)["tick"]["last_due_at"] >= before


def test_held_back_entries_are_listed_alone(start_beatd, file, beatd, redis_url):
    start_beatd("--config", file).expect("Dispatched tick")
    with redis.Redis.from_url(redis_url) as store:
        held = {"reason": "no", "since_ms": 1_790_000_000_000, "again_ms": 1_790_000_060_000, "attempts": 2}
        store.hset("{beatd}:0:held", "hourly", json.dumps(held))
    assert set(listed(beatd, file, "--held")) == {"hourly"}
    assert "held back" in beatd("list", "--held", "--config", file).stdout


def test_one_state_that_cannot_be_computed_hides_no_other(start_beatd, file, beatd, redis_url):
    daemon = start_beatd("--config", file)
    daemon.expect("Dispatched tick")
    daemon.close()
    with redis.Redis.from_url(redis_url) as store:
        store.hset("{beatd}:known", "hourly", "999999999999999999 every 1h")
    for command in ("list", "next"):
        done = beatd(command, "--config", file)
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
        assert "tick" in done.stdout
    assert set(listed(beatd, file)) == {"hourly", "tick"}
