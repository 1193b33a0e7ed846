"""Notifications of real daemons: a leader that is killed between a failure and its message, and the command."""

from __future__ import annotations

import json
import re
import signal
import urllib.request
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


@pytest.mark.slow
def test_the_next_leader_tells_of_a_failure_once(start_beatd, redis_url, web, tmp_path, wait_until):
    (tmp_path / "beat.toml").write_text(CONFIG.format(url=redis_url, web=web.url))
    with redis.Redis.from_url(redis_url) as client:
        outcomes = Outcomes(client, KEYS)
        first = start_beatd("run")
        first.expect("entry in force|entries in force")
        second = start_beatd("run")
        second.expect("Standing by")
        wait_until(lambda: client.exists(KEYS.led), what="the first look of the notifier")
        first.send(signal.SIGSTOP)  # it must not tell before it is killed
        outcomes.note([Ended("00000000-0000-0000-0000-000000000001", "invoices", None, FAILURE)])
        first.end(signal.SIGKILL)
        wait_until(lambda: web.of("/hook"), timeout=40)
        outcomes.note([Ended("00000000-0000-0000-0000-000000000002", "invoices", None, SUCCESS)])
        wait_until(lambda: len(web.of("/hook")) > 1, timeout=40)
    assert [got.json["title"] for got in web.of("/hook")] == ["beatd: invoices fails", "beatd: invoices succeeded"]
    second.expect("A message to broken failed: 127.0.0.1 answered 500")
    assert not second.find("Traceback")


@pytest.mark.slow
def test_a_target_that_is_not_reached_is_shown(start_beatd, beatd, redis_url, web, tmp_path, wait_until):
    text = CONFIG.format(url=redis_url, web=web.url).replace("/status/500", "/status/410")
    (tmp_path / "beat.toml").write_text(text)
    daemon = start_beatd("run")
    daemon.expect("entry in force|entries in force")
    with redis.Redis.from_url(redis_url) as client:
        wait_until(lambda: client.exists(KEYS.led), what="the first look of the notifier")
        outcomes = Outcomes(client, KEYS)
        failed = Ended("00000000-0000-0000-0000-000000000001", "invoices", None, FAILURE)
        succeeded = Ended("00000000-0000-0000-0000-000000000002", "invoices", None, SUCCESS)
        outcomes.note([failed, succeeded])
        wait_until(lambda: client.hexists(KEYS.undelivered, "broken"), timeout=20)
    daemon.expect("A message to broken is given up: 127.0.0.1 answered 410")
    assert [got.json["title"] for got in web.of("/hook")] == ["beatd: invoices failed and succeeded again"]
    said = (
        r"! no notification to broken is delivered since 20.* \(1 attempt, 1 notice given up\): .* answered 410 Gone;"
    )
    shown = beatd("status", "--check")
    assert shown.returncode == 1
    assert re.search(said + " try it: beatd notify test broken", shown.stdout)
    [undelivered] = json.loads(beatd("status", "--json").stdout)["undelivered"]
    assert (undelivered["target"], undelivered["given_up"]) == ("broken", 1)
    assert "no notification to broken is delivered" in beatd("doctor").stdout
    page = start_beatd("web", "--port", "0", "--metrics-listen", "off")
    [found] = page.expect(r"Status page at (http://\S+)")
    url = found[1].rstrip("/")
    with urllib.request.urlopen(f"{url}/metrics", timeout=20) as answer:
        assert re.search(r'beatd_notifications_undelivered_seconds\{target="broken"\} \d', answer.read().decode())
    with urllib.request.urlopen(url, timeout=20) as answer:
        assert "No notification to broken is delivered" in answer.read().decode()


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
