"""The broker is a Redis, and not the one that has the state: whatever happens to it, no run is lost or doubled."""

import itertools
import json
from datetime import datetime

import pytest
import redis

from beatd.beat.loop import TURNS
from beatd.message.protocol import open_envelope

CONFIG = """
[redis]
url = "{store}"
[broker]
url = "{broker}"
[log]
format = "json"
level = "debug"
[beat_schedule.tick]
task = "tasks.tick"
schedule = 0.2
catch_up = "all"
priority = {priority}
"""


@pytest.mark.parametrize("priority", [0, 6])
def test_a_broker_that_is_killed_and_comes_back_gets_every_run_once(
    start_beatd, start_server, redis_url, tmp_path, wait_until, priority
):
    broker = start_server("--appendonly", "yes", "--appendfsync", "always")
    config = CONFIG.format(store=redis_url, broker=broker.url, priority=priority)
    (tmp_path / "beat.toml").write_text(config)
    key = "celery\x06\x166" if priority else "celery"
    with redis.Redis.from_url(broker.url, retry=None) as client, redis.Redis.from_url(redis_url) as store:
        daemon = start_beatd("--config", str(tmp_path / "beat.toml"))
        wait_until(lambda: client.llen(key) >= 5, timeout=20, what="messages")
        broker.kill()
        daemon.expect('"event": ?"broker_unavailable"', times=2, timeout=40)
        assert store.llen("{beatd}:0:outbox") <= TURNS, "no more is claimed than what one turn found due"
        broker.start()
        before = client.llen(key)
        wait_until(lambda: client.llen(key) >= before + 10, timeout=20, what="messages after the restart")
        assert daemon.end() == 0
        messages = [open_envelope(raw) for raw in reversed(client.lrange(key, 0, -1))]
        assert store.llen("{beatd}:0:outbox") == 0
    once = {message.id: message for message in messages}
    assert len(messages) - len(once) <= TURNS, "only what waited for its answer is sent again, under the same id"
    due = [round(datetime.fromisoformat(one.headers["beatd-due-at"]).timestamp() * 1000) for one in once.values()]
    assert {later - earlier for earlier, later in itertools.pairwise(due)} == {200}
    unavailable = json.loads(daemon.find('"event": ?"broker_unavailable"')[0].string)
    assert f"broker 127.0.0.1:{broker.port}/0: " in json.dumps(unavailable)
