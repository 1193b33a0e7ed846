"""Celery 4.4 and 5.2 beside beatd: what their clients send, in both protocols, and what their workers leave and say.

``tests/data/celery`` has recordings of real ones, made by ``older_celery.py``: messages with the results that Celery's
own worker stored for them, control commands with its answers, events. The tests marked ``soak`` do it live.
"""

from __future__ import annotations

import base64
import json
import re
import subprocess
from pathlib import Path

import pytest
import redis

from beatd import App
from tests.acceptance.celery_pairs import WARNINGS, paired, workers
from tests.celery_process import older_python
from tests.forked import environment

pytestmark = [*WARNINGS, pytest.mark.slow]

VERSIONS = ("4.4", "5.2")
PROTOCOLS = ("1", "2")
MODULE = Path(__file__).with_name("older_celery.py")
RECORDINGS = Path(__file__).parents[1] / "data" / "celery"
WAIT = 60.0


@pytest.fixture(params=VERSIONS)
def recorded(request):
    return json.loads((RECORDINGS / f"{request.param}.json").read_text())


@pytest.fixture
def store(redis_url):
    with redis.Redis.from_url(redis_url, decode_responses=True, socket_timeout=2 * WAIT) as client:
        yield client


@pytest.fixture
def client(redis_url):
    app = App("client", broker=redis_url, backend=redis_url, set_as_current=False)
    yield app
    app.close()


@pytest.fixture
def start_worker(tmp_path, start_beatd):
    """``start_worker(broker, backend)``: beatd's worker with the module's tasks."""

    def start(broker, backend):
        text = MODULE.read_text().replace("from celery import Celery,", "from beatd import App as Celery,")
        (tmp_path / "proj.py").write_text(text)
        worker = start_beatd(
            "worker", "-A", "proj", "-c", "2", "-n", "older@host", "-E", BROKER=broker, BACKEND=backend
        )
        worker.expect(r" ready\.", timeout=60)
        return worker

    return start


def test_messages_of_older_clients(recorded, store, redis_url, start_worker, wait_until, client):
    for protocol in PROTOCOLS:
        for command in recorded["protocols"][protocol]["before"]:
            store.execute_command(*command)
    worker = start_worker(redis_url, redis_url)
    for protocol in PROTOCOLS:
        part = recorded["protocols"][protocol]
        for name, ids in part["ids"].items():
            for task_id in ids:
                assert_same_result(store, part, name, task_id, wait_until)
        [failed] = part["ids"]["link_error"]
        assert client.AsyncResult(f"told-{failed}").get(timeout=WAIT) == "told"
    worker.expect(r"application/x-yaml", times=2)
    assert client.send_task("older.add", (1, 2)).get(timeout=WAIT) == 3
    assert worker.process.poll() is None


def assert_same_result(store, part, name, task_id, wait_until):
    key, theirs = f"celery-task-meta-{task_id}", part["results"].get(task_id)
    if theirs is None:  # a task after a failed one
        return
    theirs = json.loads(theirs)

    def ended():
        found = json.loads(store.get(key) or "{}")
        return found if found.get("status") in ("SUCCESS", "FAILURE", "REVOKED") else None

    ours = wait_until(ended, WAIT, f"the result of {name!r}, {task_id}")
    if name == "failed chord" and ours["status"] == "FAILURE":  # versions put it in different words
        assert ours["result"]["exc_type"] == theirs["result"]["exc_type"], task_id
        return
    assert (ours["status"], ours["result"]) == (theirs["status"], theirs["result"]), name
    assert bool(ours["traceback"]) == bool(theirs["traceback"]), name
    assert bool(ours["children"]) == bool(theirs["children"]), name


def test_results_of_older_workers(recorded, store, client):
    for part in recorded["protocols"].values():
        for task_id, document in part["results"].items():
            store.set(f"celery-task-meta-{task_id}", document)
        for name, expected in part["outcomes"].items():
            if expected is None:
                continue
            results = [client.AsyncResult(task_id) for task_id in part["ids"][name]]
            if name == "group":
                assert [result.get(timeout=WAIT) for result in results] == expected[1]
            elif expected[0] == "returned":
                assert json.loads(json.dumps(results[0].get(timeout=WAIT), default=iso)) == expected[1], name
            elif name == "failed chain":
                with pytest.raises(ValueError, match="boom"):
                    results[1].get(timeout=WAIT)
            else:
                with pytest.raises(Exception, match=re.escape(expected[2].strip("'"))) as caught:
                    results[0].get(timeout=WAIT)
                stored = (
                    "ChordError" if name == "failed chord" else expected[1]
                )  # its client has asked the header first
                assert caught.type.__name__ == stored, name


def iso(value):
    return str(value).replace(" ", "T")


ANSWERS_OF_OUR_OWN = {
    "active_queues": None,  # names of queues are all that there is to declare
    "revoke": {"ok": "tasks {'an-id'} flagged as revoked"},  # as later versions say it
    "revoked": [],  # Celery's worker has run tasks before, and one of them had expired
    "disable_events": {"ok": "task events disabled"},  # Celery cannot take back -E
}


def test_commands_of_older_clients(recorded, store, redis_url, start_worker, wait_until):
    worker = start_worker(redis_url, redis_url)
    wait_until(lambda: store.pubsub_numsub("/0.celery.pidbox")[0][1], WAIT, "the worker to listen")
    for name, control in recorded["controls"].items():
        channel, text = control["published"]
        message = json.loads(text)
        message["headers"]["expires"] = 0  # the client waited a fifth of a second
        key = json.loads(base64.b64decode(message["body"]))["reply_to"]["routing_key"]
        queue = f"{key}.reply.celery.pidbox"
        store.sadd("_kombu.binding.reply.celery.pidbox", f"{key}\x06\x16\x06\x16{queue}")
        store.publish(channel, json.dumps(message))
        popped = store.blpop([queue], WAIT)
        assert popped is not None, name
        [ours] = json.loads(base64.b64decode(json.loads(popped[1])["body"])).values()
        theirs = control.get("answer")
        if theirs is None:
            assert isinstance(ours, dict), name
            assert "error" not in ours, name
            continue
        [theirs] = (theirs[0] if isinstance(theirs, list) else theirs).values()
        expected = ANSWERS_OF_OUR_OWN.get(name, theirs)
        if expected is not None:
            assert ours == expected, name
    assert worker.process.poll() is None


def test_events_of_older_workers(recorded, store, redis_url, start_beatd, wait_until):
    dump = start_beatd("events", "--dump", "-b", redis_url)
    wait_until(lambda: store.pubsub_numpat() or store.pubsub_channels("/0.celeryev*"), WAIT, "the command to listen")
    for channel, message in recorded["events"]:
        store.publish(channel, message)
    part = recorded["protocols"]["2"]
    for name, shown in (("delay", "succeeded"), ("error", "failed"), ("retried in vain", "retried")):
        dump.expect(rf"older@host .* task {shown} \({part['ids'][name][0]}\)", timeout=WAIT)
    dump.expect(rf"older@host .* worker heartbeat .* sw_ver={recorded['celery']}", timeout=WAIT)
    assert dump.process.poll() is None


@pytest.fixture(params=VERSIONS)
def python(request):
    return older_python(request.param)


@pytest.fixture
def ask(tmp_path):
    """``ask(python, "call", broker, backend, "1")``: what the module prints when that Python runs it."""

    def asked(python, what, broker, backend, protocol="2"):
        env = environment(BROKER=broker, BACKEND=backend, PROTOCOL=protocol)
        command = [python, str(MODULE), what]
        done = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return asked


@pytest.fixture(params=["redis", "rabbitmq"])
def broker(request, redis_url):
    return redis_url if request.param == "redis" else request.getfixturevalue("rabbitmq_node").start().url


@pytest.mark.soak
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_older_client_and_our_worker(python, ask, protocol, broker, redis_url, start_worker):
    worker = start_worker(broker, redis_url)
    version = Path(python).parents[1].name
    theirs = json.loads((RECORDINGS / f"{version}.json").read_text())["protocols"][protocol]["outcomes"]
    ours = ask(python, "call", broker, redis_url, protocol)
    identity = re.compile(r"\[[-0-9a-f]{36}\]")
    for name, outcome in ours.items():
        assert identity.sub("", json.dumps(outcome)) == identity.sub("", json.dumps(theirs[name])), name
    answers = ask(python, "control", broker, redis_url)
    assert answers["ping"] == [{"older@host": {"ok": "pong"}}]
    assert answers["rate_limit"] == [{"older@host": {"ok": "new rate limit set successfully"}}]
    assert worker.process.poll() is None


@pytest.mark.soak
def test_our_client_and_an_older_worker(python, broker, redis_url, tmp_path):
    with (
        workers(tmp_path, broker, redis_url, python=python),
        paired("beatd's client, celery's worker", broker, redis_url) as pair,
    ):
        s, canvas = pair.s, pair.canvas
        assert pair.run("add", 1, 2) == pair.run("add", 1, 2, countdown=0.2) == 3
        assert pair.run("flaky", 2) == 2
        assert pair.run("who", headers={"tenant": "a"}, time_limit=20, soft_time_limit=10)["limits"] == [20, 10]
        for name, error in (("boom", ValueError), ("nobody", pair.errors.NotRegistered)):
            with pytest.raises(error):
                pair.run(name)
        with pytest.raises(pair.errors.TaskRevokedError):
            pair.run("add", 1, 2, expires=-5)
        assert (s("add", 1, 1) | s("add", 2) | s("mul", 10))().get(timeout=WAIT) == 40
        assert canvas.group(s("add", 1, 1), s("add", 2, 2))().get(timeout=WAIT) == [2, 4]
        members = canvas.group(s("add", 1), s("add", 2))
        assert (s("add", 1, 1) | members | s("total") | s("mul", 10))().get(timeout=WAIT) == 70
        control = pair.app.control
        answers = {name: answer for each in control.ping(timeout=5, limit=2) for name, answer in each.items()}
        [node] = [name for name in answers if name.startswith("theirs@")]
        assert answers[node] == {"ok": "pong"}
        [limited] = control.rate_limit("proj.add", "100/s", destination=[node], reply=True, timeout=5)
        assert limited == {node: {"ok": "new rate limit set successfully"}}
        assert "proj.echo" in control.inspect([node], timeout=5).registered()[node]
        control.revoke("to-come", destination=[node], reply=True, timeout=5)
        with pytest.raises(pair.errors.TaskRevokedError):
            pair.run("add", 1, 2, task_id="to-come")
