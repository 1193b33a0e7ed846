# ruff: noqa
"""Like celery-exporter and operators' scripts: events as metrics, questions to the workers, tasks that are stopped."""

import os
import threading
import time
from collections import Counter
from celery import Celery, states
from celery.exceptions import TaskRevokedError
from celery.result import AsyncResult
from celery.utils.log import get_task_logger
from waiting import WAIT, wait_for

app = Celery("exporter", broker=os.environ["BROKER_URL"], backend=os.environ["RESULT_BACKEND"])
app.conf.worker_send_task_events = True
app.conf.task_send_sent_event = True
logger = get_task_logger(__name__)


@app.task(bind=True, track_started=True)
def export(self, rows):
    for row in range(rows):
        self.update_state(state="PROGRESS", meta={"done": row + 1, "of": rows})
        logger.info("row %s", row)
        time.sleep(0.1)
    return {"rows": rows}


@app.task
def failing():
    raise LookupError("no table")


class Exporter:
    """Counts the events of tasks by type and name, and the online workers."""

    def __init__(self, app):
        self.app = app
        self.state = app.events.State()
        self.counts, self.runtimes, self.workers = Counter(), [], set()
        self.ready = threading.Event()

    def track_task(self, event):
        self.state.event(event)
        task = self.state.tasks.get(event["uuid"])
        self.counts[event["type"], task.name] += 1
        if event["type"] == "task-succeeded":
            self.runtimes.append(task.runtime)

    def track_worker(self, event):
        self.state.event(event)
        self.workers.add(event["hostname"])
        self.ready.set()

    def run(self):
        with self.app.connection() as connection:
            handlers = {
                "task-received": self.track_task,
                "task-started": self.track_task,
                "task-succeeded": self.track_task,
                "task-failed": self.track_task,
                "task-revoked": self.track_task,
                "worker-heartbeat": self.track_worker,
                "worker-online": self.track_worker,
            }
            self.receiver = self.app.events.Receiver(connection, handlers=handlers)
            self.receiver.capture(limit=None, timeout=None, wakeup=True)


def shown(result):
    """What a page that polls shows of a task that runs: how far it is."""
    info = AsyncResult(result.id, app=app)
    return info.state == "PROGRESS" and info.info


def calls():
    exporter = Exporter(app)
    threading.Thread(target=exporter.run, daemon=True).start()
    assert exporter.ready.wait(WAIT)
    result = export.delay(4)
    wait_for(lambda: result.state, lambda state: state in states.READY_STATES)
    bad = failing.delay()
    wait_for(lambda: bad.state, lambda state: state == "FAILURE")
    long = export.delay(600)
    progress = wait_for(lambda: shown(long), bool)
    inspect = app.control.inspect(["node@here"], timeout=10)
    active = [(task["id"] == long.id, task["name"], task["args"]) for task in inspect.active()["node@here"]]
    app.control.revoke(long.id, terminate=True, signal="SIGTERM")
    try:
        long.get(timeout=WAIT)
    except TaskRevokedError as error:
        ended = str(error)
    queues = [queue["name"] for queue in wait_for(app.control.inspect().active_queues, bool)["node@here"]]
    registered = inspect.registered()["node@here"]
    wait_for(lambda: exporter.counts["task-revoked", "proj.export"], bool)
    exporter.receiver.should_stop = True
    counts = sorted([*key, count] for key, count in exporter.counts.items())
    ping = app.control.ping(destination=["node@here"], timeout=10)
    return [
        [sorted(progress), progress["of"], result.get(timeout=WAIT)],
        [active, ended, queues, registered, ping],
        [counts, exporter.runtimes[0] > 0.3, sorted(exporter.workers)],
    ]


EXPECTED = [
    [["done", "of"], 600, {"rows": 4}],
    [
        [[True, "proj.export", [600]]],
        "terminated",
        ["celery"],
        ["proj.export", "proj.failing"],
        [{"node@here": {"ok": "pong"}}],
    ],
    [
        [
            ["task-failed", "proj.failing", 1],
            ["task-received", "proj.export", 2],
            ["task-received", "proj.failing", 1],
            ["task-revoked", "proj.export", 1],
            ["task-started", "proj.export", 2],
            ["task-started", "proj.failing", 1],
            ["task-succeeded", "proj.export", 1],
        ],
        True,
        ["node@here"],
    ],
]
