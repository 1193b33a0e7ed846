"""Environments that share one Redis, each with its ``global_keyprefix``: neither sees anything of the other."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from beatd import App
from tests.celery_process import celeries

pytestmark = [  # all of them about what Celery's client does with redis-py
    pytest.mark.filterwarnings("ignore:Call to deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

TASKS = """
from {package} import {kind}
from kombu import Exchange, Queue

app = {kind}("proj", broker="{url}", backend="{url}")
app.conf.update({settings!r})
app.conf.task_queues = [
    Queue("celery", Exchange("celery"), "celery"),
    Queue("reports", Exchange("events", type="topic"), "report.*"),
]

@app.task(name="proj.where")
def where():
    return "{name}"

@app.task(name="proj.boom", bind=True, max_retries=1)
def boom(self):
    raise self.retry(countdown=0.1)

@app.task(name="proj.total")
def total(values):
    return sorted(values)
"""


def settings_of(name: str) -> dict[str, Any]:
    return {
        "broker_transport_options": {"global_keyprefix": f"{name}:"},
        "result_backend_transport_options": {"global_keyprefix": f"{name}_"},
        "worker_send_task_events": True,
    }


def write_app(directory: Path, url: str, name: str, *, package: str = "beatd", kind: str = "App") -> None:
    directory.mkdir(exist_ok=True)
    text = TASKS.format(package=package, kind=kind, url=url, name=name, settings=settings_of(name))
    (directory / "proj.py").write_text(text)


@contextmanager
def client_of(url: str, name: str) -> Iterator[App]:
    with App("client", broker=url, backend=url, set_as_current=False) as app:
        app.conf.update(settings_of(name))
        yield app


def foreign_keys(server: redis.Redis, *names: str) -> list[str]:
    """Keys that begin with none of the prefixes of these environments."""
    own = tuple(begin for name in names for begin in (f"{name}:", f"{name}_", f"{{{name}:beatd}}:"))
    return sorted(key for key in server.scan_iter(count=1000) if not key.startswith(own))


def heard(app: App, seen: list[Any], until: Callable[[], bool]) -> None:
    """Read events until the condition holds."""
    receiver = app.events.Receiver(handlers={"*": seen.append})
    for _ in receiver.itercapture(timeout=20):
        if until():
            return


@pytest.mark.slow
def test_environments_do_not_see_each_other(tmp_path, redis_url, server, start_beatd, wait_until):
    """Two with workers of beatd's, and one with a worker of Celery's; tasks, results, events and commands."""
    names = ("env1", "env2", "env3")
    write_app(tmp_path / "env3", redis_url, "env3", package="celery", kind="Celery")
    with celeries(tmp_path / "env3") as start:
        start("worker", "-P", "threads", "-n", "env3@h", "-l", "warning", "--without-gossip", "--without-mingle")
        for name in names[:2]:
            write_app(tmp_path / name, redis_url, name)
            worker = start_beatd("worker", "-A", "proj", "-n", f"{name}@h", "-c", "1", cwd=tmp_path / name)
            worker.expect(r"ready\.", timeout=30)
        for name in names:
            with client_of(redis_url, name) as app:
                assert_only_its_own(app, name, wait_until)
    assert foreign_keys(server, *names) == []


def assert_only_its_own(app: App, name: str, wait_until: Callable[..., Any]) -> None:
    node = f"{name}@h"
    wait_until(lambda: app.control.ping(timeout=1) == [{node: {"ok": "pong"}}], 30, "the one worker to answer")
    sent = [app.send_task("proj.where") for _ in range(10)]
    assert {each.get(timeout=30) for each in sent} == {name}
    later = app.send_task("proj.where", countdown=3600)
    find = app.control.inspect(timeout=2).scheduled
    wait_until(lambda: [one["request"]["id"] for one in (find() or {}).get(node, [])] == [later.id], 30, "the ETA")
    later.revoke()
    wait_until(lambda: app.control.inspect(timeout=2).revoked() == {node: [later.id]}, 30, "the revoked one")
    other = {"env1": "env2", "env2": "env3", "env3": "env1"}[name]
    with client_of(app.conf["broker_url"].partition("?")[0], other) as elsewhere:
        assert elsewhere.AsyncResult(sent[0].id).state == "PENDING"
    seen: list[Any] = []
    asked: list[Any] = []

    def until() -> bool:
        if not asked:  # it listens by now: the workers have answered with a heartbeat
            asked.append(app.send_task("proj.where"))
        return any(one["type"] == "task-succeeded" and one["uuid"] == asked[0].id for one in seen)

    heard(app, seen, until)
    assert {one["hostname"] for one in seen} == {node}


DAEMON = """
[redis]
url = "{store}"
prefix = "env1"

[broker]
url = "{url}?global_keyprefix=env1%3A"

[results]
url = "{url}?global_keyprefix=env1_"

[beat_schedule.plain]
task = "proj.where"
schedule = 1.0
overlap = "skip"

[beat_schedule.urgent]
task = "proj.where"
schedule = 1.0
priority = 3
max_queue_depth = 100

[beat_schedule.report]
task = "proj.where"
schedule = 1.0
exchange = "events"
routing_key = "report.daily"
"""


@pytest.mark.parametrize("is_broker", [True, False], ids=["the store is the broker", "the store is another server"])
def test_a_daemon_sends_to_a_celery_worker_and_learns_the_outcomes(
    is_broker, tmp_path, redis_url, server, start_server, start_beatd, beatd, wait_until
):
    store = redis_url if is_broker else start_server().url
    write_app(tmp_path / "theirs", redis_url, "env1", package="celery", kind="Celery")
    (tmp_path / "beat.toml").write_text(DAEMON.format(store=store, url=redis_url))
    with celeries(tmp_path / "theirs") as start:
        start.worker("-P", "solo", "-l", "warning")
        wait_until(lambda: server.scard("env1:_kombu.binding.events"), 40, "Celery's worker to bind its queues")
        start_beatd("--config", "beat.toml")

        def ended() -> bool:
            document = json.loads(beatd("history", "--json", "-n", "200").stdout)
            done = {run["entry"] for run in document["runs"] if run.get("outcome") == "SUCCESS"}
            return done == {"plain", "urgent", "report"}

        wait_until(ended, 40, "the outcome of each entry")
    assert [key for key in foreign_keys(server, "env1") if not key.startswith("{env1}:")] == []
    assert beatd("check", "--connect").returncode == 0


def test_overlap_minds_the_results_of_celerys_workers(tmp_path, redis_url, server, start_beatd, wait_until):
    """``overlap = "skip"``: the next run is sent when the result of the last one is there."""
    text = DAEMON.format(store=redis_url, url=redis_url).partition("[beat_schedule.urgent]")[0]
    (tmp_path / "beat.toml").write_text(text)
    daemon = start_beatd("--config", "beat.toml")
    daemon.expect("overlap|still running|skipped", timeout=20)
    raw = json.loads(server.lindex("env1:celery", -1))
    assert server.llen("env1:celery") == 1
    done = {"task_id": raw["headers"]["id"], "status": "SUCCESS", "result": None}
    server.set(f"env1_celery-task-meta-{raw['headers']['id']}", json.dumps(done))
    wait_until(lambda: server.llen("env1:celery") == 2, 20, "the next run")


def test_messages_of_a_killed_worker_and_dead_letters(tmp_path, redis_url, server, start_beatd, beatd, wait_until):
    """Recovery, dead letters and requeueing stay within an environment."""
    for name in ("env1", "env2"):
        write_app(tmp_path / name, redis_url, name)
    with client_of(redis_url, "env1") as app:
        server.lpush("env1:celery", "no message", "none either")
        later = [app.send_task("proj.where", countdown=3600).id for _ in range(3)]
        first = start_beatd("worker", "-A", "proj", "-c", "1", "-P", "solo", "-n", "a@h", cwd=tmp_path / "env1")
        wait_until(lambda: server.llen("{env1:beatd}:dead_letters") == 2, 30, "the dead letters")
        wait_until(lambda: server.zcard("{env1:beatd}:parked") == len(later), 30, "the parked ones")
    first.process.kill()
    other = start_beatd("worker", "-A", "proj", "-c", "1", "-P", "solo", "-n", "b@h", cwd=tmp_path / "env2")
    other.expect(r"ready\.", timeout=30)
    for name, count in (("env1", 2), ("env2", 0)):
        listed = json.loads(beatd("dead-letters", "list", "--json", "-A", "proj", cwd=tmp_path / name).stdout)
        assert [one["queue"] for one in listed] == ["celery"] * count
    done = beatd("dead-letters", "requeue", "--all", "-A", "proj", cwd=tmp_path / "env1")
    assert "2 messages sent again" in done.stdout, done.stderr
    assert server.llen("env1:celery") == 2
    assert server.llen("{env1:beatd}:dead_letters") == 0
    assert foreign_keys(server, "env1", "env2") == []


@pytest.mark.slow
def test_a_worker_gives_back_what_a_killed_one_held(tmp_path, redis_url, server, start_beatd, wait_until):
    text = (
        TASKS + '\n@app.task(name="proj.hold", acks_late=True)\ndef hold(key):\n    import time\n    time.sleep(3600)\n'
    )
    (tmp_path / "proj.py").write_text(
        text.format(package="beatd", kind="App", url=redis_url, name="env1", settings=settings_of("env1"))
    )
    first = start_beatd("worker", "-A", "proj", "-c", "1", "-n", "a@h")
    with client_of(redis_url, "env1") as app:
        app.send_task("proj.hold", ("x",), task_id="held")
        wait_until(lambda: len(server.keys("{env1:beatd}:worker:a@h:*:unacked")) == 1, 30, "it to be taken")
        first.process.kill()
        second = start_beatd("worker", "-A", "proj", "-c", "1", "-n", "b@h")
        second.expect("gave back the 1 messages", timeout=30)
        active = app.control.inspect(["b@h"], timeout=2).active
        wait_until(
            lambda: [one["id"] for one in (active() or {}).get("b@h", [])] == ["held"], 30, "the second to run it"
        )


@pytest.mark.parametrize(("package", "kind"), [("celery", "Celery"), ("beatd", "App")])
def test_command_lines_of_an_app(package, kind, tmp_path, redis_url, server, start_beatd, beatd, wait_until):
    """The daemon of an app without a file, ``call``, ``result``, ``purge``, ``list bindings``, ``status``."""
    write_app(tmp_path, redis_url, "env1", package=package, kind=kind)
    write_app(tmp_path / "worker", redis_url, "env1")
    schedule = '\napp.conf.beat_schedule = {"tick": {"task": "proj.where", "schedule": 0.5}}\n'
    with (tmp_path / "proj.py").open("a") as file:
        file.write(schedule)
    assert beatd("-A", "proj", "call", "proj.where", "--countdown", "1h").returncode == 0
    assert server.llen("env1:celery") == 1
    assert "Purged 1 message" in beatd("-A", "proj", "purge", "-f").stdout
    daemon = start_beatd("-A", "proj", "beat", "-l", "info")
    wait_until(lambda: server.llen("env1:celery") >= 2, 30, "runs")
    worker = start_beatd("worker", "-A", "proj", "-c", "1", "-n", "node@h", cwd=tmp_path / "worker")
    worker.expect(r"ready\.", timeout=30)
    called = beatd("-A", "proj", "call", "proj.where").stdout.strip()
    assert beatd("-A", "proj", "result", called).stdout.strip() == "env1"
    assert "node@h" in beatd("-A", "proj", "inspect", "ping", "-t", "5").stdout
    for command in (("status", "-A", "proj"), ("list", "bindings", "-A", "proj")):
        done = beatd(*command)
        assert done.returncode == 0, done.stderr
        assert "node@h" in done.stdout or "report.*" in done.stdout
    assert beatd("history", "-A", "proj").stdout.count("success") >= 1
    assert daemon.end() == 0
    assert foreign_keys(server, "env1") == []


def test_messages_move_between_prefixes(tmp_path, redis_url, server, beatd):
    with client_of(redis_url, "env1") as app:
        ids = [app.send_task("proj.where", priority=priority).id for priority in (0, 9)]
    to = f"{redis_url}?global_keyprefix=env2%3A"
    done = beatd("migrate", f"{redis_url}?global_keyprefix=env1%3A", to, "-y")
    assert done.stdout.splitlines()[-1].split() == ["celery", "celery", "2", "0"], done.stderr
    moved = [json.loads(server.lindex(key, 0))["headers"]["id"] for key in ("env2:celery", "env2:celery\x06\x169")]
    assert moved == ids
    back = beatd("migrate", to, redis_url, "-y")
    assert back.returncode == 0, back.stderr
    assert server.llen("celery") == server.llen("celery\x06\x169") == 1


def test_an_app_and_a_file_that_differ_are_refused(tmp_path, redis_url, beatd):
    write_app(tmp_path, redis_url, "env1")
    (tmp_path / "beat.toml").write_text(f'[redis]\nurl = "{redis_url}"\n')
    done = beatd("worker", "-A", "proj", "--config", "beat.toml")
    assert done.returncode == 2
    fault = (
        "it has no global_keyprefix, and the app's is 'env1:': write ?global_keyprefix=env1%3A into the URL of [broker]"
    )
    assert fault in " ".join(done.stderr.split())
    checked = beatd("check", "-A", "proj", "beat.toml")
    assert fault in " ".join((checked.stdout + checked.stderr).split())


@pytest.mark.slow
@pytest.mark.parametrize("client", ["celery", "beatd"])
def test_results_by_messages(client, tmp_path, redis_url, server, start_beatd):
    """``rpc://``: the queue of the answers has the prefix, too."""
    write_app(tmp_path, redis_url, "env1")
    text = (tmp_path / "proj.py").read_text().replace(f'backend="{redis_url}"', 'backend="rpc://"')
    (tmp_path / "proj.py").write_text(text)
    worker = start_beatd("worker", "-A", "proj", "-c", "1")
    worker.expect(r"ready\.", timeout=30)
    if client == "celery":
        from celery import Celery

        app: Any = Celery("client", broker=redis_url, backend="rpc://", set_as_current=False)
    else:
        app = App("client", broker=redis_url, backend="rpc://", set_as_current=False)
    app.conf.update(settings_of("env1"))
    assert app.send_task("proj.where").get(timeout=30) == "env1"
    app.close()
    assert foreign_keys(server, "env1") == []


def test_a_user_may_be_confined_to_the_keys_of_an_environment(tmp_path, start_server, start_beatd, wait_until):
    """No key and no channel is used that is not the environment's: the server would refuse it."""
    server = start_server()
    user = server.url.replace("redis://", "redis://env1:secret@")
    write_app(tmp_path, user, "env1")
    with redis.Redis.from_url(server.url, decode_responses=True) as admin:
        keys = ("~env1:*", "~env1_*", "~{env1:beatd}:*")
        channels = ("&env1:*", "&env1:/0.celeryev/*", "&env1_*", "&{env1:beatd}:*")  # patterns must be there literally
        admin.execute_command("ACL", "SETUSER", "env1", "on", ">secret", "+@all", *keys, *channels)
        beat = '\napp.conf.beat_schedule = {"tick": {"task": "proj.where", "schedule": 0.5}}\n'
        with (tmp_path / "proj.py").open("a") as file:
            file.write(beat)
        daemon = start_beatd("-A", "proj", "beat")
        worker = start_beatd("worker", "-A", "proj", "-c", "1", "-n", "a@h")
        worker.expect(r"ready\.", timeout=30)
        daemon.expect("Leading", timeout=30)
        with client_of(user, "env1") as app:
            assert app.send_task("proj.where").get(timeout=30) == "env1"
            assert app.control.ping(timeout=20, limit=1) == [{"a@h": {"ok": "pong"}}]
            app.send_task("proj.where", countdown=3600).revoke()
            seen: list[Any] = []
            heard(app, seen, lambda: any(one["type"] == "task-succeeded" for one in seen))
        assert (daemon.end(), worker.end()) == (0, 0), daemon.text
        assert [(one["reason"], one["object"]) for one in admin.acl_log()] == []
