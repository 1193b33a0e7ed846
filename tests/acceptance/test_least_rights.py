"""What docs/high-availability.md calls the least rights is enough, and less is not: its own text is what is tried."""

import re
from pathlib import Path

import pytest
import redis

PAGE = Path(__file__).parents[2] / "docs" / "high-availability.md"
CONFIG = """
[redis]
url = "redis://beatd:password@127.0.0.1:{port}/0"
{redis}
[leader]
ttl = "{ttl}"
{more}
[beat_schedule.tick]
task = "tasks.tick"
schedule = 0.2
catch_up = "all"
[beat_schedule.minds]
task = "tasks.minds"
schedule = 0.2
overlap = "skip"
max_runtime = "1s"
"""


def rights():
    """The rules of the user, and what is to be added to them in certain cases: by what the text says of the case."""
    _, _, text = PAGE.read_text().partition("## The least rights")
    rules = text.split("```")[1].split()
    assert rules[:3] == ["ACL", "SETUSER", "beatd"]
    return rules[3:], {case: more.split() for more, case in re.findall(r"^\* `([^`]+)` (.+)$", text, re.MULTILINE)}


@pytest.fixture
def server(start_server):
    return start_server()


@pytest.fixture
def admin(server):
    with redis.Redis.from_url(server.url, decode_responses=True) as admin:
        yield admin


@pytest.fixture
def permit(admin):
    """``permit("overlap", …)`` makes the user of the page, with what it adds for these cases."""

    def permit(*cases):
        rules, added = rights()
        if tuple(map(int, admin.info("server")["redis_version"].split(".")[:2])) >= (7, 2):
            cases = (*cases, "7.2")
        more = [
            right for case in cases for text, rights_of_it in added.items() if case in text for right in rights_of_it
        ]
        assert len(more) >= len(cases), f"the page says nothing of one of {cases}: {added}"
        admin.execute_command("ACL", "SETUSER", "beatd", *rules, *more)
        admin.execute_command("ACL", "LOG", "RESET")

    return permit


@pytest.fixture
def config(tmp_path, server):
    def write(*, redis="", more="", ttl="15s"):
        (tmp_path / "beat.toml").write_text(CONFIG.format(port=server.port, redis=redis, more=more, ttl=ttl))
        return "--config", str(tmp_path / "beat.toml")

    return write


def denied(admin):
    return [(one["reason"], one["object"], one["client-info"]) for one in admin.acl_log()]


def test_they_are_enough_for_all_that_daemons_do(start_beatd, beatd, start_server, config, permit, admin, wait_until):
    replica = start_server("--replicaof", "127.0.0.1", str(admin.get_connection_kwargs()["port"]))
    wait_until(lambda: admin.info("replication")["connected_slaves"] == 1, 20, "the replica")
    permit("wait_replicas", "overlap", "beatd status")
    arguments = config(redis="wait_replicas = 1")
    first, second = start_beatd(*arguments), start_beatd(*arguments)
    wait_until(lambda: admin.llen("celery") >= 10, 20, "runs")
    for command in (("status",), ("list",), ("history",), ("trigger", "tick"), ("pause", "tick"), ("resume", "tick")):
        done = beatd(*command, *arguments)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    assert first.end() == 0
    before = admin.llen("celery")
    wait_until(lambda: admin.llen("celery") >= before + 10, 20, "runs of whoever is left")
    assert second.end() == 0
    assert denied(admin) == []
    with redis.Redis.from_url(replica.url) as client:
        wait_until(lambda: client.llen("celery") == admin.llen("celery"), 20, "the replica to have all messages")


def test_they_are_enough_for_an_outbox(start_beatd, start_server, config, permit, admin, wait_until):
    broker = start_server()
    permit("overlap")
    daemon = start_beatd(*config(more=f'[broker]\nurl = "{broker.url}"'))
    with redis.Redis.from_url(broker.url) as client:
        wait_until(lambda: client.llen("celery") >= 10, 20, "runs at the broker")
    assert daemon.end() == 0
    assert admin.llen("{beatd}:0:outbox") == 0
    assert denied(admin) == []


def test_without_the_rights_for_presence_a_dead_leader_is_replaced_when_its_lease_ends(
    start_beatd, beatd, config, permit, admin, wait_until
):
    permit("overlap")
    admin.execute_command("ACL", "SETUSER", "beatd", "resetchannels", "&{beatd}:wake", "-pubsub")
    arguments = config(ttl="2s")
    checked = beatd("check", "--connect", *arguments)
    assert checked.returncode == 0
    assert "only when its lease ends: add +pubsub|numsub &{beatd}:present:*" in checked.stdout
    first = start_beatd(*arguments)
    first.expect("A dead leader is replaced only when its lease ends", timeout=20)
    second = start_beatd(*arguments)
    second.expect("Standing by", timeout=20)
    first.process.kill()
    second.expect("Leading shard 0, term", timeout=20)
    assert "is gone: its connection" not in second.text
    assert second.end() == 0


def test_what_is_missing_is_named_and_waited_for(start_beatd, config, permit, admin, wait_until):
    permit("overlap")
    daemon = start_beatd(*config(redis="wait_replicas = 1"))
    daemon.expect("may not run WAIT: add \\+wait", timeout=20)
