"""Tasks, and the calls that a client of any Celery since 4.4 makes of them: a module for older versions to run.

No test, and not imported. ``python older_celery.py record FILE`` writes ``tests/data/celery/VERSION.json``: what a client of
the installed version sends, in both protocols, what its worker makes of it, and what its worker tells monitors. It needs
``redis-server``. ``python older_celery.py call`` makes the calls and prints what became of them as JSON; BROKER, BACKEND
and PROTOCOL are read from the environment. Tests give it to beatd's worker too, with ``celery`` in its imports replaced.
"""

# ruff: noqa
# mypy: ignore-errors

import json
import os
import socket
import subprocess
import sys
import threading
import time
from datetime import datetime, timedelta, timezone

from celery import Celery, chain, chord, group

app = Celery("older", broker=os.environ.get("BROKER"), backend=os.environ.get("BACKEND"))
app.conf.task_protocol = int(os.environ.get("PROTOCOL", "2"))
app.conf.worker_concurrency = 2


@app.task(name="older.add")
def add(x, y):
    return x + y


@app.task(name="older.total")
def total(numbers):
    return sum(numbers)


@app.task(name="older.boom")
def boom(*args):
    raise ValueError("boom", 7)


@app.task(name="older.echo")
def echo(value=None):
    return value


@app.task(name="older.again", bind=True, max_retries=2)
def again(self, wanted):
    if self.request.retries < wanted:
        raise self.retry(countdown=0.1)
    return self.request.retries


@app.task(name="older.facts", bind=True)
def facts(self):
    request = self.request
    return [
        request.id == request.correlation_id,
        request.delivery_info["routing_key"],
        request.retries,
        list(request.timelimit),
        request.eta is not None,
        request.expires is not None,
    ]


@app.task(name="older.told")
def told(task_id):
    app.backend.store_result("told-" + task_id, "told", "SUCCESS")


@app.task(name="older.hold")
def hold(seconds):
    time.sleep(seconds)


def far():
    return datetime(2099, 1, 1, tzinfo=timezone.utc)


CALLS = {
    "delay": lambda: add.delay(2, 3),
    "keywords": lambda: add.delay(x=2, y=3),
    "text and numbers": lambda: echo.delay(["\u00fc", 2.5, None, {"a": [True]}]),
    "datetime": lambda: echo.delay({"at": datetime(2020, 1, 2, 3, 4, 5)}),
    "facts": lambda: facts.apply_async(time_limit=30, soft_time_limit=20, priority=3),
    "countdown": lambda: facts.apply_async(countdown=0.2),
    "eta": lambda: facts.apply_async(eta=datetime.now(timezone.utc) + timedelta(seconds=0.2)),
    "eta without a zone": lambda: facts.apply_async(eta=datetime.utcnow() + timedelta(seconds=0.2)),
    "expires later": lambda: facts.apply_async(expires=far()),
    "expired": lambda: facts.apply_async(expires=datetime(2020, 1, 1, tzinfo=timezone.utc)),
    "gzip": lambda: echo.apply_async(("x" * 200,), compression="gzip"),
    "error": lambda: boom.delay(),
    "unknown": lambda: app.send_task("older.nobody", (1,)),
    "wrong arguments": lambda: app.send_task("older.add", (1, 2, 3)),
    "retry": lambda: again.delay(1),
    "retried in vain": lambda: again.delay(5),
    "link": lambda: add.apply_async((1, 1), link=echo.s()),
    "link_error": lambda: boom.apply_async(link_error=told.s()),
    "chain": lambda: chain(add.s(1, 1), add.s(10), add.s(100))(),
    "failed chain": lambda: chain(add.s(1, 1), boom.s(), add.s(100))(),
    "group": lambda: group(add.s(1, 1), add.s(2, 2))(),
    "chord": lambda: chord([add.s(1, 1), add.s(2, 2), add.s(3, 3)])(total.s()),
    "failed chord": lambda: chord([add.s(1, 1), boom.s()])(total.s()),
    "chain with a group": lambda: (add.s(1, 1) | group(add.s(1), add.s(2)) | total.s()).apply_async(),
    "chain with a chord": lambda: (add.s(1, 1) | chord([add.s(1), add.s(2)], total.s()) | add.s(5)).apply_async(),
    "yaml": lambda: echo.apply_async((1,), serializer="yaml"),
}
REFUSED = ("yaml",)  # a worker that takes only JSON leaves no result


def handles(result):
    """The ids of a result and of those before it, or of its members."""
    if hasattr(result, "results"):
        return [each.id for each in result.results]
    ids = []
    while result is not None:
        ids += handles(result) if hasattr(result, "results") else [result.id]
        result = result.parent
    return ids


def outcome(name, result):
    """What ``get`` returns or raises, in words that JSON can keep."""
    if name in REFUSED:
        return None
    try:
        value = result.get(timeout=30)
    except Exception as error:
        return ["raised", type(error).__name__, str(error)]
    return ["returned", json.loads(json.dumps(value, default=str))]


def call_all():
    left_out = set() if _has_yaml() else {"yaml"}
    if app.conf.broker_url.startswith("amqp"):
        left_out |= {"expired", "expires later"}  # RabbitMQ refuses what these versions make of them
    return {name: call() for name, call in CALLS.items() if name not in left_out}


def _has_yaml():
    try:
        import yaml
    except ImportError:
        return False
    return True


def worker(*options):
    """The installed version's worker."""
    command = [sys.executable, "-m", "celery", "-A", "older_celery", "worker", "-l", "info", "-c", "2", "-E"]
    return subprocess.Popen(
        [*command, "-n", "older@host", *options],
        cwd=os.path.dirname(os.path.abspath(__file__)),
        stdout=subprocess.DEVNULL,
    )


def dumped(store):
    """All keys, as commands that bring them back."""
    commands = []
    for key in sorted(store.scan_iter("*")):
        kind = store.type(key)
        if kind == "list":
            commands.append(["RPUSH", key, *store.lrange(key, 0, -1)])
        elif kind == "string":
            commands.append(["SET", key, store.get(key)])
        elif kind == "set":
            commands.append(["SADD", key, *sorted(store.smembers(key))])
        elif kind == "hash":
            commands.append(["HSET", key, *(word for pair in store.hgetall(key).items() for word in pair)])
    return commands


CONTROLS = {
    "ping": lambda control: control.ping(timeout=0.2),
    "stats": lambda control: control.inspect(timeout=0.2).stats(),
    "registered": lambda control: control.inspect(timeout=0.2).registered(),
    "active": lambda control: control.inspect(timeout=0.2).active(),
    "scheduled": lambda control: control.inspect(timeout=0.2).scheduled(),
    "reserved": lambda control: control.inspect(timeout=0.2).reserved(),
    "revoked": lambda control: control.inspect(timeout=0.2).revoked(),
    "conf": lambda control: control.inspect(timeout=0.2).conf(),
    "active_queues": lambda control: control.inspect(timeout=0.2).active_queues(),
    "query_task": lambda control: control.inspect(timeout=0.2).query_task("an-id"),
    "revoke": lambda control: control.revoke("an-id", reply=True, timeout=0.2),
    "revoke and terminate": lambda control: control.revoke("a-2nd-id", terminate=True, reply=True, timeout=0.2),
    "rate_limit": lambda control: control.rate_limit("older.add", "100/s", reply=True, timeout=0.2),
    "rate_limit of a stranger": lambda control: control.rate_limit("nobody", "100/s", reply=True, timeout=0.2),
    "time_limit": lambda control: control.time_limit("older.add", 60, 30, reply=True, timeout=0.2),
    "add_consumer": lambda control: control.add_consumer("more", reply=True, timeout=0.2),
    "cancel_consumer": lambda control: control.cancel_consumer("more", reply=True, timeout=0.2),
    "enable_events": lambda control: control.enable_events(reply=True, timeout=0.2),
    "disable_events": lambda control: control.disable_events(reply=True, timeout=0.2),
    "pool_grow": lambda control: control.pool_grow(1, reply=True, timeout=0.2),
    "pool_shrink": lambda control: control.pool_shrink(1, reply=True, timeout=0.2),
    "no such command": lambda control: control.broadcast("nonsense", reply=True, timeout=0.2),
}


WORDY = ("conf", "stats")  # their answers are about one machine


class Listener(threading.Thread):
    """Collects what is published on channels that begin with one of the prefixes."""

    def __init__(self, store, *patterns):
        super().__init__(daemon=True)
        self.heard, self.subscription = [], store.pubsub()
        self.subscription.psubscribe(*patterns)
        self.start()

    def run(self):
        for message in self.subscription.listen():
            if message["type"] == "pmessage":
                self.heard.append([message["channel"], message["data"]])


def record(path):
    """Record the installed version's messages, results, commands and events: each protocol in a process of its own."""
    import celery
    import redis

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(["redis-server", "--port", str(port), "--save", "", "--loglevel", "warning"])
    url = "redis://127.0.0.1:%d/0" % port
    store = redis.Redis.from_url(url)
    try:
        for _ in range(100):
            try:
                store.ping()
                break
            except redis.ConnectionError:
                time.sleep(0.1)
        recorded = {"celery": celery.__version__, "protocols": {}}
        for protocol in "12":
            store.flushdb()
            environment = dict(os.environ, BROKER=url, BACKEND=url, PROTOCOL=protocol)
            said = subprocess.check_output([sys.executable, os.path.abspath(__file__), "part"], env=environment)
            recorded["protocols"][protocol] = json.loads(said.decode())
        recorded["controls"] = recorded["protocols"]["1"].pop("controls") and recorded["protocols"]["2"].pop("controls")
        recorded["events"] = recorded["protocols"]["1"].pop("events") and recorded["protocols"]["2"].pop("events")
    finally:
        server.terminate()
    with open(path, "w") as file:
        json.dump(recorded, file, indent=1)
        file.write("\n")


def part():
    """What is recorded with one protocol."""
    import redis

    store = redis.Redis.from_url(os.environ["BROKER"], decode_responses=True)
    listener, controls = Listener(store, "/0.celery.pidbox*"), {}
    for name, ask in CONTROLS.items():
        listener.heard.clear()
        ask(app.control)
        controls[name] = {"published": listener.heard[0]}
    store.flushdb()
    results = call_all()
    recorded = {"before": dumped(store), "ids": {name: handles(result) for name, result in results.items()}}
    listener = Listener(store, "/0.celeryev*")
    running = worker()
    try:
        recorded["outcomes"] = {name: outcome(name, result) for name, result in results.items()}
        time.sleep(3)  # a heartbeat and the last events
        recorded["events"] = list(listener.heard)
        for name, answer in control_all().items():
            controls[name]["answer"] = answer
    finally:
        running.terminate()
        running.wait(20)
    kept = [command for command in dumped(store) if command[1].startswith("celery-task-meta-")]
    recorded["results"] = {command[1][len("celery-task-meta-") :]: command[2] for command in kept}
    recorded["controls"] = controls
    return recorded


class Patient:
    """Celery's control with a timeout that a busy host keeps."""

    def __init__(self, control):
        self.control = control

    def __getattr__(self, name):
        def ask(*args, **kwargs):
            kwargs.update(timeout=3, limit=1)
            return getattr(self.control, name)(*args, **kwargs)

        return ask


def control_all():
    """Ask the one worker that there is everything."""
    return {name: ask(Patient(app.control)) for name, ask in CONTROLS.items() if name not in WORDY}


if __name__ == "__main__":
    if sys.argv[1] == "record":
        record(sys.argv[2])
    elif sys.argv[1] == "part":
        print(json.dumps(part()))
    elif sys.argv[1] == "call":
        print(json.dumps({name: outcome(name, result) for name, result in call_all().items()}))
    else:
        print(json.dumps(control_all()))
