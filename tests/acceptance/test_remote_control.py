"""Remote control and events: Celery's tools before beatd's worker, beatd's before Celery's, and the same answers.

One worker of each make on each broker is asked everything; both hold two running tasks, one that waits, and one with
an ETA.
"""

from __future__ import annotations

import gc
import json
import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import celery
import pytest
import redis

import beatd as package
from tests.acceptance.celery_pairs import PREFIXED
from tests.acceptance.conftest import Running
from tests.celery_process import celeries
from tests.conftest import wait_for
from tests.forked import environment, run_python

pytestmark = [  # all of them about what Celery's client does with redis-py
    pytest.mark.filterwarnings("ignore:Call to deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::PendingDeprecationWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

TASKS = """
import time
from {package} import {app_class} as App
app = App("proj", broker={broker!r}, backend={backend!r})
app.conf.update({settings!r})

@app.task
def add(x, y):
    return x + y

@app.task
def boom():
    raise ValueError("boom", 7)

@app.task(rate_limit="1000/s")
def hold(seconds, why=None):
    time.sleep(seconds)

@app.task(ignore_result=True)
def quiet():
    return "hush"

@app.task(bind=True, max_retries=1)
def again(self):
    if not self.request.retries:
        raise self.retry(countdown=0.2)
"""
OURS, THEIRS = "ours@h", "theirs@h"


class Scene:
    """Two workers, a client, and what monitors hear."""

    def __init__(self, broker: str, backend: str, events: Path, settings: dict[str, Any]) -> None:
        self.broker = broker
        self.backend = backend
        self.client: Any = celery.Celery("proj", broker=broker, backend=backend, set_as_current=False)
        self.app = package.App("proj", broker=broker, backend=backend, set_as_current=False)
        for app in (self.client, self.app):
            app.conf.update(settings)
        self.events = events
        self.settings = settings
        self.worker: Running

    def send(self, node: str, name: str, *args: Any, **options: Any) -> Any:
        return self.client.send_task(f"proj.{name}", args, queue=node.partition("@")[0], **options)

    def ask(self, node: str, command: str, **arguments: Any) -> Any:
        """One node's answer, asked by Celery's client."""
        answers = self.client.control.broadcast(command, arguments, [node], reply=True, timeout=10)
        assert [*answers[0]] == [node]
        return answers[0][node]

    def heard(self, kind: str, task_id: str) -> str:
        """The line that ``celery events --dump`` wrote."""
        lines = self.events.read_text(errors="replace").splitlines()
        return next((line for line in lines if f"task {kind}: " in line and task_id in line), "")


def run(tool: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run_python(tool, ["-m", tool, *arguments], cwd=Path.cwd(), env=environment())


@pytest.fixture(
    scope="module",
    params=["redis", pytest.param("prefix", marks=pytest.mark.slow), pytest.param("rabbitmq", marks=pytest.mark.slow)],
)
def scene(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    server = request.getfixturevalue("redis_server").start()
    server.flush()
    broker = request.getfixturevalue("rabbitmq_node").start().url if request.param == "rabbitmq" else server.url
    settings = PREFIXED if request.param == "prefix" else {}
    ours, theirs = (tmp_path_factory.mktemp(name) for name in ("ours", "theirs"))
    for place, name, kind in ((ours, "beatd", "App"), (theirs, "celery", "Celery")):
        text = TASKS.format(package=name, app_class=kind, broker=broker, backend=server.url, settings=settings)
        (place / "proj.py").write_text(text)
    with celeries(theirs) as start:
        made = Scene(broker, server.url, theirs / "celery.log", settings)
        start("worker", "-n", THEIRS, "-Q", "theirs", "-c", "2", "-E", "-l", "warning", "--without-gossip")
        start("events", "--dump")
        worker = made.worker = Running(
            ("worker", "-A", "proj", "-n", OURS, "-Q", "ours", "-c", "2", "-E"), ours, {}, wait_for
        )
        try:
            for node in (OURS, THEIRS):
                wait_for(lambda node=node: made.client.control.ping([node], timeout=0.5), 30, node)  # type: ignore[misc]
            first = f"{OURS} ["
            wait_for(lambda: first in made.events.read_text(errors="replace"), 30, "the first event to be heard")
            yield made
        finally:
            worker.close()
            made.app.close()
            gc.collect()  # Celery's results unsubscribe when they are collected: the server must still be there
            made.client.backend.result_consumer.stop()
            made.client.backend.client.close()
            made.client.close()


@pytest.fixture(scope="module")
def busy(scene: Scene) -> dict[str, list[Any]]:
    """What both workers hold: two tasks that run, one that waits, one with an ETA."""
    held = {}
    for node in (OURS, THEIRS):
        for quick in [scene.send(node, "add", 1, n) for n in range(20)]:
            quick.get(timeout=20)  # after short tasks a worker takes more of them than it has processes
        later = scene.send(node, "hold", 1, countdown=3600, kwargs={"why": "later"})
        held[node] = [later, *(scene.send(node, "hold", 600) for _ in range(3))]
    for node in (OURS, THEIRS):
        wait_for(lambda node=node: len(scene.ask(node, "active")) == 2, 20, "two to run")  # type: ignore[misc]
        wait_for(lambda node=node: scene.ask(node, "reserved"), 20, "one to wait")  # type: ignore[misc]
        wait_for(lambda node=node: scene.ask(node, "scheduled"), 20, "one with an ETA")  # type: ignore[misc]
        runs = {each["id"] for each in scene.ask(node, "active")}
        later, *others = held[node]
        # Which of them waits is not said by the order in which they were sent: two processes take them.
        held[node] = [later, *sorted(others, key=lambda one: one.id not in runs)]
    return held


# -- the same answers -------------------------------------------------------------------------------------------------


def shape(value: Any) -> Any:
    """A value's keys and types. What differs by nature is named where it is compared."""
    if isinstance(value, dict):
        return {key: shape(each) for key, each in value.items()}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    return "number" if isinstance(value, int | float) and not isinstance(value, bool) else type(value).__name__


def of_stats(answer: Any) -> Any:
    answer["total"] = {name: shape(count) for name, count in answer["total"].items() if name == "proj.hold"}
    answer["pool"].pop("writes", None)  # how Celery's prefork pool spreads its work
    answer["broker"] = dict.fromkeys(answer["broker"]) | {"transport": "", "port": 0}
    return answer


def of_conf(answer: Any) -> Any:
    return {name: answer[name] for name in ("broker_url", "result_backend")}


QUESTIONS: dict[str, tuple[dict[str, Any], Callable[[Any], Any]]] = {
    "ping": ({}, shape),
    "stats": ({}, of_stats),
    "registered": ({}, sorted),
    "registered with attributes": ({"taskinfoitems": ["max_retries", "rate_limit"]}, sorted),
    "active": ({}, shape),
    "reserved": ({}, shape),
    "scheduled": ({}, shape),
    "revoked": ({}, shape),
    "conf": ({}, of_conf),
    "active_queues": ({}, shape),
    "report": ({}, shape),
    "clock": ({}, shape),
    "memdump": ({}, shape),
    "dump_active": ({}, shape),
    "dump_tasks": ({}, sorted),
    "heartbeat": ({}, shape),
    "hello": ({"from_node": "somebody@h", "revoked": ["an-id"]}, shape),
    "rate_limit": ({"task_name": "proj.add", "rate_limit": "100/s"}, shape),
    "rate_limit that is none": ({"task_name": "proj.add", "rate_limit": "often"}, shape),
    "rate_limit of nothing": ({"task_name": "nothing", "rate_limit": "1/s"}, repr),
    "time_limit": ({"task_name": "proj.add", "soft": 5, "hard": 10}, repr),
    "time_limit of nothing": ({"task_name": "nothing", "soft": 5, "hard": 10}, repr),
    "enable_events": ({}, repr),
    "add_consumer": ({"queue": "more"}, repr),
    "cancel_consumer": ({"queue": "more"}, repr),
    "autoscale": ({"max": 3, "min": 1}, repr),
    "pool_restart": ({}, repr),
    "revoke": ({"task_id": ["no-such-task"]}, repr),
    "revoke and terminate": ({"task_id": "no-such-task", "terminate": True}, repr),
    "terminate": ({"task_id": "no-such-task", "signal": "KILL"}, repr),
    "revoke_by_stamped_headers": ({"headers": {"a": ["b"]}}, repr),
    "revoke nothing": ({}, repr),
    "revoke by no signal": ({"task_id": "x", "terminate": True, "signal": "NOPE"}, shape),
    "ping with more": ({"more": 1}, repr),
    "report with more": ({"more": 1}, repr),
    "nonsense": ({}, repr),
}


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_worker_answers_as_celerys_does(question: str, scene: Scene, busy: Any) -> None:
    arguments, compared = QUESTIONS[question]
    command = question.partition(" ")[0]
    ours, theirs = (scene.ask(node, command, **arguments) for node in (OURS, THEIRS))
    if command == "conf":
        ours, theirs = ({**each, "result_backend": "", "broker_url": ""} for each in (ours, theirs))
    if command == "active_queues":
        assert [each["name"] for each in ours] == ["ours"]
    if command == "stats":
        ours, theirs = shape(compared(ours)), shape(compared(theirs))
    else:
        ours, theirs = compared(ours), compared(theirs)
    assert ours == theirs


def test_a_tasks_whereabouts_are_known(scene: Scene, busy: dict[str, list[Any]]) -> None:
    for node in (OURS, THEIRS):
        later, *others = [each.id for each in busy[node]]
        answer = scene.ask(node, "query_task", ids=[later, *others, "no-such-task"])
        states = {task_id: state for task_id, (state, _) in answer.items()}
        if node == OURS:  # after two seconds behind long tasks a message goes back to its queue
            states.setdefault(others[2], "reserved")
        assert states == {later: "scheduled", **dict(zip(others, ["active", "active", "reserved"], strict=True))}
        assert answer[later][1]["kwargs"] == {"why": "later"}
        assert answer[others[0]][1]["args"] == [600]
        assert answer[others[0]][1]["worker_pid"] in scene.ask(node, "stats")["pool"]["processes"]


def test_who_is_not_meant_does_not_answer(scene: Scene) -> None:
    for pattern, matcher in (("ours@*", "glob"), ("^ours.*$", "pcre")):
        answers = scene.client.control.broadcast(
            "ping", reply=True, timeout=10, limit=1, pattern=pattern, matcher=matcher
        )
        assert answers == [{OURS: {"ok": "pong"}}]
    assert scene.app.control.ping([OURS, THEIRS], timeout=10) in (
        [{OURS: {"ok": "pong"}}, {THEIRS: {"ok": "pong"}}],
        [{THEIRS: {"ok": "pong"}}, {OURS: {"ok": "pong"}}],
    )


# -- the command lines ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scene", [pytest.param("rabbitmq", marks=pytest.mark.slow)], indirect=True)
def test_each_others_tools_reach_both_workers(scene: Scene) -> None:
    who = ("-d", f"{OURS},{THEIRS}", "-t", "10")
    celerys = run("celery", "-b", scene.broker, "inspect", "ping", *who)
    beatds = run("beatd", "inspect", "ping", "-b", scene.broker, *who)
    for done in (celerys, beatds):
        assert (done.returncode, OURS in done.stdout, THEIRS in done.stdout) == (0, True, True), done.stderr


@pytest.mark.parametrize("scene", ["redis"], indirect=True)
def test_celerys_tools_before_beatds_worker(scene: Scene, busy: Any) -> None:
    status = run("celery", "-b", scene.broker, "status", "-d", OURS, "-t", "10")
    assert status.returncode == 0
    assert f"{OURS}: OK" in status.stdout.replace("\x1b[1;36m", "")
    active = run("celery", "-b", scene.broker, "inspect", "active", "-j", "-d", OURS, "-t", "10")
    assert [each["name"] for each in json.loads(active.stdout)[OURS]] == ["proj.hold", "proj.hold"]
    limited = run("celery", "-b", scene.broker, "control", "rate_limit", "proj.add", "50/s", "-d", OURS, "-t", "10")
    assert (limited.returncode, "new rate limit set successfully" in limited.stdout) == (0, True)


@pytest.mark.parametrize("scene", ["redis"], indirect=True)
def test_beatds_tools_before_celerys_worker(scene: Scene, busy: Any) -> None:
    both = f"{OURS},{THEIRS}"
    active = run("beatd", "inspect", "active", "-b", scene.broker, "-d", both, "-t", "10", "--json")
    answers = json.loads(active.stdout)
    assert {node: [each["name"] for each in found] for node, found in answers.items()} == {
        OURS: ["proj.hold", "proj.hold"],
        THEIRS: ["proj.hold", "proj.hold"],
    }
    listed = run("beatd", "inspect", "active", "-b", scene.broker, "-d", both, "-t", "10")
    assert (listed.returncode, listed.stdout.count("proj.hold"), "2 workers answered." in listed.stdout) == (0, 4, True)
    limited = run("beatd", "control", "rate_limit", "no.such", "5/s", "-b", scene.broker, "-d", both, "-t", "10")
    assert (limited.returncode, limited.stdout.count("error: unknown task")) == (1, 2)
    nobody = run("beatd", "inspect", "ping", "-b", scene.broker, "-d", "nobody@h", "-t", "0.3")
    assert (nobody.returncode, nobody.stderr) == (69, "Error: No nodes replied within 0.3 s\n")


# -- revoking ---------------------------------------------------------------------------------------------------------


def test_what_is_revoked_is_not_run(scene: Scene, busy: dict[str, list[Any]]) -> None:
    later, first, _second, waiting = busy[OURS]
    scene.app.AsyncResult(later.id).revoke()
    waiting.revoke()
    wait_for(lambda: later.state == waiting.state == "REVOKED", 10, "REVOKED at once")
    wait_for(lambda: not scene.ask(OURS, "reserved"), 10, "the one that waits to be taken back")
    assert later.id in scene.ask(OURS, "revoked")
    assert first.state == "PENDING"


def test_what_is_terminated_ends_and_its_neighbours_do_not(scene: Scene, busy: dict[str, list[Any]]) -> None:
    _later, first, second, _waiting = busy[OURS]
    before = scene.ask(OURS, "stats")["pool"]["processes"]
    scene.app.control.terminate(first.id, [OURS])
    with pytest.raises(celery.exceptions.TaskRevokedError, match="terminated"):
        first.get(timeout=10)
    wait_for(lambda: "terminated=True" in scene.heard("revoked", first.id), 10, "the event")
    (still,) = scene.ask(OURS, "active")
    assert still["id"] == second.id
    assert scene.send(OURS, "add", 2, 2).get(timeout=20) == 4
    after = scene.ask(OURS, "stats")["pool"]["processes"]
    assert (len(before), len(after), len(set(before) & set(after))) == (2, 2, 1)


def test_what_is_revoked_before_its_time_is_not_run_then(scene: Scene) -> None:
    soon = scene.send(OURS, "add", 1, 1, task_id=str(uuid.uuid4()), countdown=6)  # it may be heard of late
    wait_for(lambda: scene.heard("received", soon.id), 20, "the worker to put it aside")
    scene.client.control.revoke(soon.id)
    with pytest.raises(celery.exceptions.TaskRevokedError, match="revoked"):
        soon.get(timeout=30)
    wait_for(lambda: scene.heard("revoked", soon.id), 20, "the event when its time has come")


# -- events -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("node", [OURS, THEIRS])
def test_monitors_hear_what_happens(node: str, scene: Scene, busy: dict[str, list[Any]]) -> None:
    scene.client.control.terminate([each.id for each in busy[node]], destination=[node])
    sent = {name: scene.send(node, name, *args).id for name, args in
            {"add": (2, 3), "boom": (), "quiet": (), "again": ()}.items()}  # fmt: skip
    expected = [
        ("received", "add", "args=(2, 3) kwargs={}"),
        ("started", "add", ""),
        ("succeeded", "add", "result=5"),
        ("failed", "boom", "exception=ValueError('boom', 7)"),
        ("succeeded", "quiet", "result='hush'"),
        ("retried", "again", "exception=None"),
        ("succeeded", "again", "result=None"),
    ]
    for kind, name, words in expected:
        line = wait_for(lambda kind=kind, name=name: scene.heard(kind, sent[name]), 20, f"{name} {kind}")  # type: ignore[misc]
        assert line.startswith(f"{node} [")
        assert words in line


def test_monitors_hear_of_tasks_that_nobody_knows(scene: Scene) -> None:
    def told(node: str) -> list[str]:
        lines = scene.events.read_text(errors="replace").splitlines()
        return [line for line in lines if line.startswith(f"{node} [") and "task failed" in line and "unheard" in line]

    for node in (OURS, THEIRS):
        scene.send(node, "unheard_of")
        (line,) = wait_for(lambda node=node: told(node), 20, "task-failed")  # type: ignore[misc]
        assert "exception=NotRegistered('proj.unheard_of')" in line


def test_monitors_hear_what_clients_send(scene: Scene) -> None:
    client = package.App(
        "client", broker=scene.broker, backend=scene.backend, task_send_sent_event=True, set_as_current=False
    )
    client.conf.update(scene.settings)
    sent = client.send_task("proj.add", (4, 5), queue="ours")
    line = wait_for(lambda: scene.heard("sent", sent.id), 20, "task-sent")
    assert "args=(4, 5) kwargs={}" in line
    assert "queue=ours" in line
    assert sent.get(timeout=20) == 9
    client.close()


def test_monitors_see_the_worker(scene: Scene) -> None:
    def lines() -> list[str]:
        return [line for line in scene.events.read_text(errors="replace").splitlines() if line.startswith(f"{OURS} [")]

    def beats() -> int:
        return len(lines())

    heartbeats = wait_for(lambda: [line for line in lines() if "heartbeat" in line], 20, "a heartbeat")
    assert {"freq=2.0", "active=", "processed=", "sw_ident=beatd"} <= {
        word.split("=")[0] + "=" if word.split("=")[0] in {"active", "processed"} else word
        for word in heartbeats[-1].replace(",", "").split()
    }
    count = beats()
    wait_for(lambda: beats() > count, 10, "another heartbeat")


def test_a_pool_grows_and_shrinks(scene: Scene) -> None:
    assert scene.ask(OURS, "pool_grow", n=2) == {"ok": "pool will grow"}
    wait_for(lambda: len(scene.ask(OURS, "stats")["pool"]["processes"]) == 4, 20, "four processes")
    assert scene.ask(OURS, "pool_shrink", n=3) == {"ok": "pool will shrink"}
    wait_for(lambda: scene.ask(OURS, "stats")["pool"]["max-concurrency"] == 1, 20, "one process")
    assert scene.ask(OURS, "pool_grow", n="many") == {
        "error": "ValueError(\"a number from 1 to 1000 is needed, not 'many'\")"
    }
    assert scene.ask(OURS, "pool_grow", n=1000) == {
        "error": "ValueError('the pool has 1 processes or threads; with 1000 more it would have over 1000')"
    }
    assert scene.ask(OURS, "stats")["pool"]["max-concurrency"] == 1


def test_queues_come_and_go(scene: Scene) -> None:
    scene.ask(OURS, "add_consumer", queue="more")
    assert scene.client.send_task("proj.add", (3, 4), queue="more").get(timeout=20) == 7
    scene.ask(OURS, "cancel_consumer", queue="more")
    scene.worker.expect("Started consuming from more")
    scene.worker.expect("Canceling queue more")
    assert [each["name"] for each in scene.ask(OURS, "active_queues")] == ["ours"]


# -- the end ----------------------------------------------------------------------------------------------------------


def test_a_worker_whose_connections_are_cut_is_back_and_leaves_when_told(
    scene: Scene, request: pytest.FixtureRequest
) -> None:
    held = [*scene.ask(OURS, "active"), *scene.ask(OURS, "reserved")]
    scene.ask(OURS, "terminate", task_id=[each["id"] for each in held], signal="KILL")
    if scene.broker.startswith("redis"):
        with redis.Redis.from_url(scene.broker) as server:
            server.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
            server.execute_command("CLIENT", "KILL", "TYPE", "normal")
    else:
        request.getfixturevalue("rabbitmq_node").ctl("close_all_connections", "try it")
    scene.worker.expect("Remote control away", timeout=30)
    scene.worker.expect("Remote control is back", timeout=60)
    assert scene.app.control.ping([OURS], timeout=20) == [{OURS: {"ok": "pong"}}]
    assert scene.app.send_task("proj.add", (5, 6), queue="ours").get(timeout=30) == 11
    scene.app.control.shutdown([OURS])
    assert scene.worker.wait(30) == 0
    assert "Got shutdown from remote" in scene.worker.text
