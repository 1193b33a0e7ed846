"""Chapters of Celery's user guide with changed imports: monitoring, routing, workers, signals, configuration.

Tasks and compositions are in test_celery_tasks and test_celery_canvas, the command line in test_celery_command_lines.
"""

from __future__ import annotations

import importlib
import signal
import uuid
from pathlib import Path

import celery
import pytest

from beatd import App, group
from beatd.exceptions import OperationalError

pytestmark = pytest.mark.slow

PROJ = """
import sys
from beatd import App
from beatd import signals
from beatd.log import get_task_logger
from beatd.worker.control import control_command, inspect_command
from kombu import Exchange, Queue
from kombu.common import Broadcast

app = App("proj", broker={broker!r}, backend={backend!r})
app.conf.update(result_extended=True, worker_send_task_events=True)
{conf}
logger = get_task_logger(__name__)

@app.task
def add(x, y):
    return x + y

@app.task
def fail():
    raise ValueError("boom")

@app.task(bind=True)
def priority(self):
    return self.request.delivery_info["priority"]

@app.task(bind=True)
def parent(self):
    return priority.delay().id

@app.task(ignore_result=True)
def shout(name):
    print("shout", name)

@app.task(bind=True)
def redirected(self, x, y):
    outs = sys.stdout, sys.stderr
    try:
        self.app.log.redirect_stdouts_to_logger(logger, self.app.conf.worker_redirect_stdouts_level)
        print("Adding {{0}} + {{1}}".format(x, y))
        return x + y
    finally:
        sys.stdout, sys.stderr = outs

@control_command(args=[("n", int)], signature="[N=1]")
def increase(state, n=1):
    return {{"ok": "increased by %d" % n}}

@control_command(args=[("n", int)])
def increase_prefetch_count(state, n=1):
    state.consumer.qos.increment_eventually(n)

@inspect_command()
def main_name(state):
    return {{"main": state.app.main}}

@signals.celeryd_init.connect
def configure(sender=None, conf=None, **kwargs):
    conf.worker_concurrency = 3

@signals.heartbeat_sent.connect
def alive(sender=None, **kwargs):
    open("alive", "w").close()
"""


class Project:
    def __init__(self, folder: Path, broker: str, backend: str) -> None:
        self.folder, self.broker, self.backend = folder, broker, backend
        self.app = App("client", broker=broker, backend=backend, set_as_current=False)

    def write(self, conf: str = "") -> None:
        text = PROJ.format(broker=self.broker, backend=self.backend, conf=conf)
        (self.folder / "proj.py").write_text(text)

    def send(self, name: str, *args: object, **options: object) -> object:
        return self.app.send_task(f"proj.{name}", args, **options).get(timeout=20)


@pytest.fixture
def project(tmp_path, redis_url):
    made = Project(tmp_path, redis_url, redis_url)
    made.write()
    yield made
    made.app.close()


@pytest.fixture
def worker(project, start_beatd):
    def start(*options: str, conf: str = ""):
        project.write(conf)
        running = start_beatd("-A", "proj", "worker", "-l", "INFO", "-P", "threads", *options)
        running.expect("ready\\.", timeout=30)
        return running

    return start


IDLE = """
app.conf.update(
    broker_pool_limit=1, worker_prefetch_multiplier=1, result_serializer="pickle", worker_pool_restarts=False,
    broker_transport_options={"visibility_timeout": 3600}, task_inherit_parent_priority=True,
    worker_log_datefmt="%H.%M.%S", worker_direct=True,
)
"""


def test_settings_have_their_effect_or_are_named(project, worker, tmp_path):
    running = worker("-n", "w@here", conf=IDLE)
    for text in (
        "The setting broker_pool_limit has no effect: each process has one connection for what it sends",
        "The setting worker_prefetch_multiplier has no effect",
        "The setting result_serializer has no effect: results are JSON",
        "The setting broker_transport_options.visibility_timeout has no effect",
    ):
        assert text in running.text
    assert "worker_pool_restarts" not in running.text
    assert running.find(r"\[\d\d\.\d\d\.\d\d: INFO/MainProcess\] w@here ready"), "the date's format"
    child = project.send("parent", priority=6)
    assert project.app.AsyncResult(child).get(timeout=20) == 6
    assert running.find(r"\.> w@here\.dq2 +exchange=C\.dq2\(direct\) key=w@here")
    with celery.Celery("x", broker=project.broker, backend=project.backend, set_as_current=False) as theirs:
        sent = theirs.send_task("proj.add", (2, 3), exchange="C.dq2", routing_key="w@here")
        assert project.app.AsyncResult(sent.id).get(timeout=20) == 5
    assert running.end() == 0


TOPICS = """
app.conf.update(
    task_default_queue="default",
    task_queues=(
        Queue("default", routing_key="task.#"),
        Queue("feed_tasks", routing_key="feed.#"),
        Queue("image_tasks", exchange=Exchange(MEDIA, type="direct"), routing_key="image.compress"),
    ),
    task_default_exchange=TASKS,
    task_default_exchange_type="topic",
    task_default_routing_key="task.default",
)
"""


@pytest.mark.parametrize("kind", ["redis", "rabbitmq"])
def test_a_celery_client_reaches_queues_by_their_exchanges(kind, project, worker, request):
    if kind == "rabbitmq":
        project.broker = request.getfixturevalue("rabbitmq").url
    name = uuid.uuid4().hex[:8]
    conf = TOPICS.replace("MEDIA", repr(f"media-{name}")).replace("TASKS", repr(f"tasks-{name}"))
    for queue in ("default", "feed_tasks", "image_tasks"):
        conf = conf.replace(f'"{queue}"', f'"{queue}-{name}"')
    running = worker(conf=conf)
    assert running.find(rf"\.> feed_tasks-{name} +exchange=tasks-{name}\(topic\) key=feed\.#")
    with celery.Celery("x", broker=project.broker, backend=project.backend, set_as_current=False) as theirs:
        addresses = [(f"media-{name}", "image.compress")]
        if kind == "rabbitmq":  # on Redis a client knows a topic only if it has declared it itself
            addresses.append((f"tasks-{name}", "feed.import"))
        for exchange, key in addresses:
            sent = theirs.send_task("proj.add", (2, 3), exchange=exchange, routing_key=key)
            assert project.app.AsyncResult(sent.id).get(timeout=20) == 5, key
    assert running.end() == 0


EVERYONE = """
app.conf.task_queues = (Broadcast(NAME), Queue(NAME + "-own"))
app.conf.task_default_queue = NAME + "-own"
"""


def test_a_broadcast_comes_to_all_workers(project, start_beatd, rabbitmq, redis_url):
    name = f"everyone-{uuid.uuid4().hex[:8]}"
    conf = EVERYONE.replace("NAME", repr(name))
    project.broker = rabbitmq.url
    project.write(conf)
    both = [start_beatd("-A", "proj", "worker", "-P", "threads", "-n", node) for node in ("a@h", "b@h")]
    for each in both:
        each.expect("ready\\.", timeout=30)
    with App("x", broker=rabbitmq.url, set_as_current=False) as client:
        client.conf.task_queues = importlib.import_module("kombu.common").Broadcast(name), f"{name}-own"
        client.send_task("proj.shout", ("hello",), queue=name, ignore_result=True)
    for each in both:
        each.expect("shout hello", timeout=20)
        assert each.end() == 0
    project.broker = redis_url
    project.write(conf)
    refused = start_beatd("-A", "proj", "worker")
    assert refused.wait(20) == 2
    assert refused.find("an exchange of the type fanout needs RabbitMQ")


def test_monitors_commands_and_signals(project, worker, beatd, tmp_path, wait_until, monkeypatch):
    running = worker("-n", "w@here")
    assert running.find(r"\.> concurrency: 3 \(threads\)"), "celeryd_init"
    wait_until((tmp_path / "alive").exists, 20, "heartbeat_sent")
    for line, expected in (
        ("-A proj control increase 3 -t 10", "increased by 3"),
        ("-A proj control --list", "increase_prefetch_count"),
        ("-A proj inspect main_name -t 10", "main: proj"),
        ("-A proj control increase_prefetch_count -t 10", "it takes what it can run at once"),
        ("-A proj.app inspect ping -t 10", "pong"),
        ("-A proj status -d w@here -t 10 -j", '"ok": "pong"'),
        ("-A proj result -t proj.add nothing", "nothing has not ended"),
    ):
        done = beatd(*line.split())
        assert expected in done.stdout + done.stderr, (line, done)
    assert project.send("redirected", 2, 3) == 5
    running.expect(r"WARNING/.*Adding 2 \+ 3")
    stamped = project.app.signature("proj.add", (2, 2))
    stamped.stamp(stamp="yours")
    sent = group([stamped], app=project.app).apply_async()
    assert sent.get(timeout=20) == [4]
    assert sent[0]._get_task_meta()["stamp"] == ["yours"]
    state, told, failing = project.app.events.State(), [], []

    def heard(event):
        state.event(event)
        if not failing:  # now that events come
            failing.append(project.app.send_task("proj.fail"))

    def announce(event):
        state.event(event)
        told.append(state.tasks.get(event["uuid"]).name)
        receiver.should_stop = True

    receiver = project.app.events.Receiver(handlers={"task-failed": announce, "*": heard})
    receiver.capture(timeout=20)
    assert told == ["proj.fail"]
    assert list(state.workers) == ["w@here"]
    with project.app.pool.acquire(block=True) as connection:
        assert connection.as_uri() == project.app.connection().as_uri()
    with project.app.producer_pool.acquire(block=True) as producer:
        producer.publish({}, routing_key="elsewhere")
    assert project.app.control.purge(queues=["elsewhere"]) == 1
    assert running.end() == 0


CAMERA = """
from celery.events.snapshot import Polaroid

class Camera(Polaroid):
    clear_after = True

    def on_shutter(self, state):
        if state.event_count:
            print("Workers:", sorted(state.workers), flush=True)
"""


def test_a_camera_takes_snapshots(worker, start_beatd, tmp_path):
    running = worker("-n", "w@here")
    (tmp_path / "camera.py").write_text(CAMERA)
    camera = start_beatd("-A", "proj", "events", "-c", "camera.Camera", "--frequency=0.5", "-r", "100/s")
    camera.expect(r"Workers: \['w@here'\]", timeout=30)
    camera.end()
    assert running.end() == 0


def test_a_hangup_starts_a_worker_again_and_sigusr1_shows_its_threads(worker):
    running = worker("-n", "w@here")
    running.send(signal.SIGUSR1)
    running.expect("Current thread 0x")
    running.send(signal.SIGHUP)
    running.expect("ready\\.", times=2, timeout=30)
    assert running.find(r"Warm shutdown")
    assert running.end(signal.SIGTERM) == 0


def test_a_client_that_does_not_retry_fails_at_once(monkeypatch):
    with App("x", broker="redis://localhost:1/0", set_as_current=False) as client:
        with pytest.raises(OperationalError):
            client.send_task("t", retry=False)
        tried = []
        monkeypatch.setattr("beatd.broker.publisher.sleep", tried.append)
        with pytest.raises(OperationalError):
            client.send_task("t", retry_policy={"max_retries": 2, "interval_start": 0.1, "interval_max": 0.1})
        assert tried == [0.1, 0.1]
