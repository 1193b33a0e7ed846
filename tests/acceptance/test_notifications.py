"""Notifications of real daemons: a leader that is killed between a failure and its message, and the command."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
import redis
from click.testing import CliRunner

from beatd.cli import main
from beatd.states import FAILURE, SUCCESS
from beatd.store.keys import Keys
from beatd.store.outcomes import Ended, Outcomes
from tests.receivers import Receiver, receiver

CONFIG = """
[redis]
url = "{url}"
[leader]
ttl = "2s"
[notify.ops]
webhook = "{web}/hook"
interval = 0
[notify.broken]
webhook = "{web}/status/500"
[beat_schedule.invoices]
task = "billing.invoices"
schedule = "0 3 1 1 *"
"""
KEYS = Keys("beatd")


@pytest.fixture
def web() -> Iterator[Receiver]:
    with receiver() as made:
        yield made


def test_the_next_leader_tells_of_a_failure_once(start_beatd, redis_url, web, tmp_path, wait_until):
    (tmp_path / "beat.toml").write_text(CONFIG.format(url=redis_url, web=web.url))
    with redis.Redis.from_url(redis_url) as client:
        outcomes = Outcomes(client, KEYS)
        first = start_beatd("run")
        first.expect("entry in force|entries in force")
        second = start_beatd("run")
        second.expect("Standing by")
        wait_until(lambda: client.exists(KEYS.led), what="the first look of the notifier")
        outcomes.note([Ended("00000000-0000-0000-0000-000000000001", "invoices", None, FAILURE)])
        first.end(signal.SIGKILL)
        wait_until(lambda: web.of("/hook"), timeout=20)
        outcomes.note([Ended("00000000-0000-0000-0000-000000000002", "invoices", None, SUCCESS)])
        wait_until(lambda: len(web.of("/hook")) > 1, timeout=20)
    assert [got.json["title"] for got in web.of("/hook")] == ["beatd: invoices fails", "beatd: invoices succeeded"]
    second.expect("A message to broken failed: 127.0.0.1 answered 500")
    assert not second.find("Traceback")


def test_a_target_is_tried(web, tmp_path, redis_url):
    path = tmp_path / "beat.toml"
    path.write_text(CONFIG.format(url=redis_url, web=web.url))

    def run(name: str) -> tuple[int, str]:
        done = CliRunner().invoke(main, ["notify", "test", name, "--config", str(path)])
        return done.exit_code, done.output

    assert run("ops") == (0, "ops: the message was sent\n")
    assert web.of("/hook")[0].json["kind"] == "test"
    code, text = run("broken")
    assert (code, "broken: 127.0.0.1 answered 500" in text) == (1, True)
    code, text = run("opps")
    assert (code, 'did you mean "ops"' in text) == (2, True)
