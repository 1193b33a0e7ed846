"""``beatd check --connect`` with a real RabbitMQ: each right that a daemon needs is tried."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import amqp
import pytest

from tests.rabbitmq import RabbitMQ

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

Beatd = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def users(rabbitmq_node: RabbitMQ) -> Iterator[dict[str, str]]:
    """URLs of users by what they may do: configure, write and read as patterns."""
    node = rabbitmq_node.start()
    rights = {
        "all": (".*", ".*", ".*"),
        "no-configure": ("", ".*", ".*"),
        "no-write": (".*", "", ".*"),
        "nothing": ("", "", ""),
    }
    for user, patterns in rights.items():
        node.ctl("add_user", user, "tail9zq")
        node.ctl("set_permissions", user, *patterns)
    node.ctl("add_user", "stranger", "tail9zq")
    place = f"tail9zq@127.0.0.1:{node.port}//"
    yield {user: f"amqp://{user}:{place}" for user in [*rights, "stranger"]}
    for user in [*rights, "stranger"]:
        node.ctl("delete_user", user)


@pytest.fixture
def check(beatd: Beatd, redis_url: str, tmp_path: Path) -> Callable[..., tuple[int, str]]:
    """``check(url, to)`` tries that broker; returns the exit code and what was said of the broker."""

    def check(url: str, to: str = 'queue = "check-not-there"') -> tuple[int, str]:
        (tmp_path / "beat.toml").write_text(
            f'[redis]\nurl = "{redis_url}"\n[broker]\nurl = "{url}"\n'
            f'[beat_schedule.a]\ntask = "t"\nschedule = 3600\n{to}\n'
        )
        done = beatd("check", "--connect")
        assert "tail9zq" not in done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done.returncode, next(
            line for line in (done.stdout + done.stderr).splitlines() if line.startswith("broker ")
        )

    return check


def test_a_broker_that_is_fit(users: dict[str, str], check: Callable[..., tuple[int, str]]) -> None:
    code, said = check(users["all"])
    assert code == 0, said
    assert ": reachable, 0 waiting in celery" in said


@pytest.mark.parametrize(
    ("user", "texts"),
    [
        ("no-configure", ["there is no queue check-not-there, and the user may not make it: add configure rights"]),
        ("no-write", ["the user may not publish: add write rights for amq.default"]),
        ("nothing", ["there is no queue check-not-there", "the user may not publish"]),
        ("stranger", ["access to vhost '/' refused for user 'stranger'"]),
    ],
)
def test_a_missing_right_is_named(
    user: str, texts: list[str], users: dict[str, str], check: Callable[..., tuple[int, str]]
) -> None:
    code, said = check(users[user])
    assert code == 1, said
    for text in texts:
        assert text in said


def test_a_virtual_host_that_is_not_there(users: dict[str, str], check: Callable[..., tuple[int, str]]) -> None:
    code, said = check(users["all"].removesuffix("/") + "nowhere")
    assert code == 1
    assert "vhost nowhere not found" in said


def test_a_wrong_password(users: dict[str, str], check: Callable[..., tuple[int, str]]) -> None:
    code, said = check(users["all"].replace("tail9zq@", "tail9zqx@"))
    assert code == 1
    assert "it refuses the user or the password" in said


def test_a_tls_url_of_a_plain_port(users: dict[str, str], check: Callable[..., tuple[int, str]]) -> None:
    code, said = check(users["all"].replace("amqp://", "amqps://"))
    assert code == 1
    assert "TLS" in said
    assert "write amqp://" in said


def test_an_exchange_that_is_not_there(users: dict[str, str], check: Callable[..., tuple[int, str]]) -> None:
    code, said = check(users["all"], 'exchange = "nowhere"\nrouting_key = "k"')
    assert code == 1
    assert "there is no exchange nowhere, and beatd makes none: declare it first" in said
    assert check(users["all"], 'exchange = "amq.direct"\nrouting_key = "k"')[0] == 0


def test_a_queue_with_arguments_of_its_own(
    users: dict[str, str], check: Callable[..., tuple[int, str]], rabbitmq_node: RabbitMQ
) -> None:
    connection = amqp.Connection(f"127.0.0.1:{rabbitmq_node.port}")
    connection.connect()
    channel = connection.channel()
    channel.queue_declare("check-priorities", durable=True, auto_delete=False, arguments={"x-max-priority": 5})
    try:
        code, said = check(users["all"], 'queue = "check-priorities"')
    finally:
        channel.queue_delete("check-priorities")
        connection.close()
    assert code == 0, said
    assert "the queue check-priorities has other arguments than Celery's default" in said
    assert "x-max-priority" in said


def test_a_broker_that_is_short_of_memory(
    users: dict[str, str], check: Callable[..., tuple[int, str]], rabbitmq_node: RabbitMQ
) -> None:
    rabbitmq_node.ctl("set_vm_memory_high_watermark", "0.000001")
    try:
        code, said = check(users["all"])
    finally:
        rabbitmq_node.ctl("set_vm_memory_high_watermark", "0.6")
    assert code == 1
    assert "it takes no messages for now: it is short of memory or disk space" in said
