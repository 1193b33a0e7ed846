"""State stores of managed services: commands that are renamed away, passwords that live for seconds, idle connections
that are cut."""

import json
import re
import sys
from pathlib import Path

import pytest
import redis

PAGE = Path(__file__).parents[2] / "docs" / "managed-stores.md"
TASKS = """
from beatd import App
app = App("tasks", broker="{url}", backend="{url}")
@app.task(name="tasks.add")
def add(a, b):
    return a + b
@app.task(name="tasks.later")
def later(a):
    add.apply_async((a, a), countdown=0.5)
"""
CONFIG = """
app = "tasks"
[redis]
url = "{url}"
{redis}
[leader]
ttl = "10s"
renew = "500ms"
[beat_schedule.add]
task = "tasks.add"
args = [1, 2]
schedule = 0.5
overlap = "skip"
max_runtime = "1s"
[beat_schedule.later]
task = "tasks.later"
args = [1]
schedule = 1
"""


def needed_commands():
    """The commands that the page names as needed."""
    _, _, text = PAGE.read_text().partition("## Commands")
    return set(text.split("```")[1].lower().split())


@pytest.fixture
def write(tmp_path):
    def write(url, redis=""):
        (tmp_path / "tasks.py").write_text(TASKS.format(url=url))
        (tmp_path / "beat.toml").write_text(CONFIG.format(url=url, redis=redis))

    return write


@pytest.mark.slow
def test_the_commands_of_the_page_are_enough(start_server, start_beatd, beatd, write, wait_until):
    """A server on which all other commands are renamed away serves daemons, workers, clients and commands."""
    plain = start_server()
    with redis.Redis.from_url(plain.url) as client:
        known = set(client.command())
    away = {name for name in known if "|" not in name} - needed_commands() - {"hello"}  # which the test itself needs
    assert {"config", "wait", "debug", "keys", "monitor", "save", "bgsave", "client"} <= away
    words = [word for name in sorted(away) for word in ("--rename-command", name, "")]
    server = start_server(*words)
    write(server.url)
    daemon, worker = start_beatd("run"), start_beatd("worker", "-A", "tasks", "-c", "2")
    daemon.expect("Leading", timeout=20)
    worker.expect("tasks.add.* succeeded", times=3, timeout=30)
    for command in (
        ("status",),
        ("list",),
        ("history", "add"),
        ("describe", "add"),
        ("trigger", "add"),
        ("pause", "add"),
        ("resume", "add"),
        ("why", "add", "now"),
        ("call", "-A", "tasks", "tasks.add", "--args", "[1, 2]"),
        ("check", "--connect"),
        ("dead-letters", "list"),
        ("inspect", "-A", "tasks", "ping"),
        ("audit",),
    ):
        done = beatd(*command)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    assert worker.end() == 0
    assert daemon.end() == 0
    assert "unknown command" not in daemon.text + worker.text


@pytest.fixture
def tokens(tmp_path):
    """``tokens(server)``: a program that makes a password of the user ``beatd`` at each run, and counts runs."""

    def make(server, *, fails=False):
        program, runs = tmp_path / "token", tmp_path / "runs"
        program.write_text(
            f"#!{sys.executable}\n"
            "import secrets, sys, redis\n"
            f"open({str(runs)!r}, 'a').write('run\\n')\n"
            f"if {fails}: sys.exit('no token: the role is missing')\n"
            "token = secrets.token_urlsafe(40)\n"
            f"redis.Redis.from_url({server.url!r}).execute_command('ACL', 'SETUSER', 'beatd', 'on',"
            " '>' + token, '~*', '&*', '+@all')\n"
            "print(token)\n"
        )
        program.chmod(0o755)
        return program, lambda: runs.read_text().count("run") if runs.exists() else 0

    return make


@pytest.mark.slow
def test_a_password_from_a_command_is_read_again_for_new_connections(
    start_server, start_beatd, beatd, write, tokens, wait_until
):
    """All passwords are taken back, and connections cut: whoever connects again needs a new one."""
    server = start_server()
    program, runs = tokens(server)
    write(f"redis://beatd@127.0.0.1:{server.port}/0?password_command={program}", "")
    daemon, worker = start_beatd("run"), start_beatd("worker", "-A", "tasks", "-c", "1")
    worker.expect("tasks.add.* succeeded", times=3, timeout=40)
    with redis.Redis.from_url(server.url) as admin:
        for _ in range(3):
            admin.execute_command("ACL", "SETUSER", "beatd", "resetpass", ">another")
            admin.execute_command("CLIENT", "KILL", "USER", "beatd")
            worker.expect("tasks.add.* succeeded", times=len(worker.find("tasks.add.* succeeded")) + 3, timeout=40)
        wait_until(lambda: beatd("status").returncode == 0, 30, "a leader")
    assert "held back" not in daemon.text
    assert runs() > 5
    assert worker.end() == 0
    assert daemon.end() == 0
    assert not re.search("[A-Za-z0-9_-]{50}", daemon.text + worker.text), "no password is logged"


def test_a_password_command_of_the_file_is_named_when_it_fails(start_server, beatd, write, tokens):
    server = start_server()
    program, runs = tokens(server, fails=True)
    write(
        f"redis://beatd@127.0.0.1:{server.port}/0",
        f"password_command = {json.dumps([str(program), '--user', 'beatd'])}",
    )
    failed = beatd("status")
    assert failed.returncode != 0
    assert "failed with exit code 1: no token: the role is missing" in failed.stdout + failed.stderr
    assert "Traceback" not in failed.stderr
    assert runs() >= 1


@pytest.mark.parametrize(
    ("redis", "said"),
    [
        ('password_command = "token"', "expected a list of words"),
        ("password_command = []", "expected"),
        ('password_command = ["token"]\npassword = "x"', "leave one"),
    ],
)
def test_a_wrong_password_command_is_named_with_its_place(beatd, write, redis, said):
    write("redis://127.0.0.1:1/0", redis)
    checked = beatd("check", "--no-app")
    assert checked.returncode == 2
    assert said in checked.stdout + checked.stderr
    assert "beat.toml:" in checked.stdout + checked.stderr


@pytest.mark.slow
def test_connections_that_are_cut_while_idle_are_opened_again(start_server, start_beatd, write, wait_until):
    """Services close what was silent for a while: here after two seconds."""
    server = start_server("--timeout", "2")
    write(server.url)
    daemon, worker = start_beatd("run"), start_beatd("worker", "-A", "tasks", "-c", "1")
    worker.expect("tasks.add.* succeeded", times=20, timeout=60)
    assert worker.end() == 0
    assert daemon.end() == 0
    assert "store_unavailable" not in daemon.text
