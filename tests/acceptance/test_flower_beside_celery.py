"""Flower shows the same of beatd's worker as of Celery's: both run the same tasks, and everything it knows is compared.

The tasks are in ``tests/data/flower``. Celery's client sends them to both workers under the same labels, beatd's client
some of them.
"""

from __future__ import annotations

import html
import re
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import celery
import pytest

import beatd
from tests.acceptance.celery_pairs import WARNINGS
from tests.acceptance.celery_project import WORKERS, Project
from tests.acceptance.flower import Flower, flower
from tests.conftest import wait_for

pytestmark = [*WARNINGS, pytest.mark.slow]

SOURCE = Path(__file__).parents[1] / "data/flower"

ENDED = {
    "add": "SUCCESS",
    "chained": "SUCCESS",
    "step": "SUCCESS",
    "by-beatd": "SUCCESS",
    "nothing-wanted": "SUCCESS",
    "limited": "SUCCESS",
    "state": "SUCCESS",
    "eta": "SUCCESS",
    "long": "SUCCESS",
    "retried": "SUCCESS",
    "silent": "PENDING",
    "boom": "FAILURE",
    "deep": "FAILURE",
    "wrong": "FAILURE",
    "expected": "FAILURE",
    "retried-in-vain": "FAILURE",
    "reject": "FAILURE",
    "late-reject": "FAILURE",
    "soft": "FAILURE",
    "hard": "FAILURE",
    "die": "FAILURE",
    "unknown": "FAILURE",
    "ignore": "STARTED",
    "revoked": "REVOKED",
    "expired": "REVOKED",
    "terminated": "REVOKED",
    "waits": "RECEIVED",
    "running": "STARTED",
}
"""What Flower shows in the end of the task with each label."""

OWN_TEXT = {
    "hard": "TimeLimitExceeded(1)",
    "die": "WorkerLostError('Worker exited prematurely: exitcode 3.')",
    "soft": "SoftTimeLimitExceeded(1.0)",
}
"""Exceptions as beatd shows them; Celery's are ``ExceptionWithTraceback()``, and the last one without the limit."""


class Shown:
    """What Flower shows of both workers when all is over."""

    def __init__(self, api: Flower, folder: Path) -> None:
        self.folder = folder
        self.tasks: dict[str, Any] = api("tasks")
        self.metrics = str(api.page("metrics"))
        for make in WORKERS:
            api(f"workers?refresh=1&workername={node(make)}")
        self.workers: dict[str, Any] = api("workers")
        self.pages = {make: str(api.page(f"worker/{node(make)}")) for make in WORKERS}

    def task(self, make: str, label: str) -> dict[str, Any]:
        """A task's fields, without what differs between any two runs."""
        shown = {key: self.neutral(value, make) for key, value in self.tasks[f"{make}-{label}"].items()}
        shown["traceback"] = own_frames(shown["traceback"])
        shown["client"] = shown["client"] and shown["client"].partition("@")[2]
        return shown | dict.fromkeys(("clock", "pid"), 0)

    def neutral(self, value: Any, make: str) -> Any:
        """The value with neither times nor names of the worker."""
        if isinstance(value, dict):
            return {key: self.neutral(each, make) for key, each in value.items()}
        if isinstance(value, list):
            return [self.neutral(each, make) for each in value]
        if isinstance(value, float):
            return "<number>"
        if isinstance(value, str):
            value = value.replace(str(self.folder / make), "").replace(node(make), "<node>")
            value = re.sub(rf"\b{make}-", "", value)
            value = re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+(\+00:00)?", "<time>", value)
            return "<queue>" if value == f"queue-{make}" else value
        return value

    def counts(self, make: str) -> list[str]:
        """The lines of Flower's metrics that count.

        Not ``hard``, which fails twice in Celery, nor the prefetched ``flaky``: a worker's child says that it has sent
        one again, and Flower does not count those with an ETA; whether it knows in time is chance. Nor the revoked
        ``add`` and the unknown ``nobody``: their names are in the client's events only, which may come after those of
        the worker.
        """
        counting = r"flower_(events_total|worker_prefetched_tasks|task_runtime_seconds_count|worker_online)\{"
        lines = [line for line in self.metrics.splitlines() if re.match(counting, line) and node(make) in line]
        left_out = "hard|worker-|prefetched.*flaky"
        left_out += '|task="(proj.add)?",type="task-revoked"|task="(proj.nobody)?",type="task-failed"'
        return sorted(line.replace(node(make), "<node>") for line in lines if not re.search(left_out, line))


def node(make: str) -> str:
    return f"w@{make}"


def own_frames(traceback: str | None) -> list[str] | None:
    """The lines of a traceback that are about the tasks' file, and its last line; imports differ by a line."""
    if traceback is None:
        return None
    shown, inside = [], False
    for line in traceback.splitlines():
        if line.startswith("  File"):
            inside = 'File "/proj.py"' in line
        if inside or not line.startswith(" "):
            shown.append(re.sub(r"^(celery|billiard|beatd)\.exceptions\.|(?<=py\", )line \d+", "", line))
    return [line for line in shown if line.strip()]


def send(client: Any, make: str, label: str, name: str, *args: Any, **options: Any) -> Any:
    sent = {"task_id": f"{make}-{label}", "queue": f"queue-{make}", **options}
    return client.send_task(f"proj.{name}", args, **sent)


def send_all(client: Any, own: Any, make: str) -> None:
    def to(label: str, name: str, *args: Any, **options: Any) -> None:
        send(client, make, label, name, *args, **options)

    to("expired", "add", 1, 2, countdown=9, expires=8)  # first, so that it comes in before that
    to("add", "add", 2, 3, kwargs={"note": "é"})
    send(own, make, "by-beatd", "add", 2, 3, kwargs={"note": "é"}, expires=300)
    to("nothing-wanted", "unwanted")
    to("limited", "limited", 1)
    to("state", "state")
    to("eta", "add", 1, 2, countdown=0.3, expires=60)
    to("long", "long", "x" * 3000)
    to("retried", "flaky", 2, 1.0)  # Flower shows for ever what it hears last: "retried", if that comes too late
    to("silent", "silent")
    to("boom", "boom")
    to("deep", "deep", 120)
    to("wrong", "add")
    to("expected", "expected")
    to("retried-in-vain", "flaky", 9, 1.0)
    to("reject", "reject")
    to("late-reject", "late_reject")
    to("soft", "soft")
    to("hard", "hard")
    to("die", "die")
    to("unknown", "nobody")
    to("ignore", "ignore")
    to("waits", "add", 1, 2, countdown=600)
    first, second = (
        client.signature("proj.add", args, task_id=f"{make}-{label}", options={"queue": f"queue-{make}"})
        for label, args in (("chained", (1, 1)), ("step", (2,)))
    )
    (first | second).apply_async()


def revoke_some(client: Any, api: Flower, make: str) -> None:
    to_worker = {"destination": [node(make)], "reply": True, "timeout": 10}
    client.control.revoke(f"{make}-revoked", **to_worker)
    send(client, make, "revoked", "add", 1, 2)
    send(client, make, "terminated", "sleep", 60)
    wait_for(lambda: state(api, f"{make}-terminated") == "STARTED", 40, "the start of a task")
    client.control.revoke(f"{make}-terminated", terminate=True, **to_worker)
    wait_for(lambda: state(api, f"{make}-terminated") == "REVOKED", 40, "its end")
    send(client, make, "running", "sleep", 100)


def state(api: Flower, task_id: str) -> str | None:
    task = api(f"task/info/{task_id}")
    return task and task["state"]


@pytest.fixture(scope="module", params=["redis", "rabbitmq"])
def shown(request, redis_server, tmp_path_factory, free_port) -> Iterator[Shown]:
    redis_server.start().flush()
    broker = redis_server.url
    if request.param == "rabbitmq":
        broker = request.getfixturevalue("rabbitmq_node").start().url
    folder = tmp_path_factory.mktemp("flower")
    project = Project(folder, SOURCE, broker=broker, backend=redis_server.url)
    with ExitStack() as stack:
        for make in WORKERS:
            stack.enter_context(project.worker(make, "-c", "2", node=node(make), QUEUE=f"queue-{make}"))
        api = stack.enter_context(flower(folder, broker, free_port()))
        wait_for(lambda: {*map(node, WORKERS)} <= set(api("workers?status=1") or {}), 40, "Flower to hear both")
        for make in WORKERS:
            wait_for(lambda make=make: "nabled by remote" in (folder / f"{make}.log").read_text(), 30, "events")
        client = celery.Celery("client", broker=broker, set_as_current=False)
        client.conf.task_send_sent_event = True
        own = beatd.App("client", broker=broker, task_send_sent_event=True, set_as_current=False)
        for make in WORKERS:
            send_all(client, own, make)
        for make in WORKERS:
            wait_ended(api, make, ENDED.keys() - {"revoked", "terminated", "running"})
        for make in WORKERS:
            revoke_some(client, api, make)
            wait_ended(api, make, ENDED.keys())
        yield Shown(api, folder)
        client.control.revoke([f"{make}-running" for make in WORKERS], terminate=True)
        client.close()
        own.close()


def wait_ended(api: Flower, make: str, labels: Any) -> None:
    def open_ones() -> dict[str, Any]:
        tasks = api("tasks") or {}
        found = {label: tasks.get(f"{make}-{label}", {}).get("state") for label in labels}
        return {label: (found[label], ENDED[label]) for label in labels if found[label] != ENDED[label]}

    deadline = time.monotonic() + 60
    while left := open_ones():
        assert time.monotonic() < deadline, f"{make}: {left}"
        time.sleep(0.2)


def test_tasks(shown):
    for label in ENDED:
        ours, theirs = (shown.task(make, label) for make in ("beatd", "celery"))
        if label in OWN_TEXT:
            assert ours["exception"] == OWN_TEXT[label]
            for task in (ours, theirs):
                del task["exception"], task["traceback"]
        if label == "long":  # cut where the task says; Celery adds a quotation mark
            assert (ours.pop("result")[:17], 20) == (
                theirs.pop("result")[:17],
                len(shown.tasks["beatd-long"]["result"]),
            )
        assert ours == theirs, label


def test_clients_make_the_same_events(shown):
    fields = ("state", "name", "args", "kwargs", "result", "routing_key", "exchange", "retries", "root_id", "parent_id")
    for make in WORKERS:
        ours, theirs = (shown.task(make, label) for label in ("by-beatd", "add"))
        assert ours["root_id"] == "by-beatd"
        ours["root_id"] = "add"
        assert {field: ours[field] for field in fields} == {field: theirs[field] for field in fields}
        assert (ours["sent"] is None) == (theirs["sent"] is None)


def test_counts(shown):
    assert shown.counts("beatd") == shown.counts("celery")


def test_workers(shown):
    ours, theirs = (shown.neutral(shown.workers[node(make)], make) for make in ("beatd", "celery"))
    assert ours.keys() == theirs.keys()
    for listed in ("registered", "active", "reserved", "scheduled"):
        for task in (*ours[listed], *theirs[listed]):
            if isinstance(task, dict):
                task.get("request", task).update(worker_pid=0)
        assert ours[listed] == theirs[listed], listed
    assert ours["revoked"] == [each for each in theirs["revoked"] if each != "expired"]
    assert ours["active_queues"] == theirs["active_queues"]
    assert ours["stats"].keys() == theirs["stats"].keys()
    assert ours["stats"]["total"] == theirs["stats"]["total"]
    assert ours["stats"]["rusage"].keys() == theirs["stats"]["rusage"].keys()
    assert ours["stats"]["pool"].keys() == theirs["stats"]["pool"].keys() - {"writes"}
    assert ours["stats"]["pool"]["max-concurrency"] == theirs["stats"]["pool"]["max-concurrency"] == 2
    broker = {key: value for key, value in theirs["stats"]["broker"].items() if key not in ("heartbeat", "userid")}
    assert {key: ours["stats"]["broker"][key] for key in broker} == broker


def test_pages_of_the_workers(shown):
    """The same tables with the same rows, but for settings, the pool's writes, and what has expired."""
    ours, theirs = (shown.neutral(rows(shown.pages[make]), make) for make in ("beatd", "celery"))
    assert ours.keys() == theirs.keys()
    for table in ours.keys() - {"Configuration options"}:
        assert ours[table] == [row for row in theirs[table] if row not in ("Writes", "expired")], table
    assert {"broker_url", "result_backend", "task_default_queue", "task_send_sent_event"} <= {
        *ours["Configuration options"]
    } & {*theirs["Configuration options"]}


def rows(page: str) -> dict[str, list[str]]:
    """The first cells of the rows of a page's tables, by caption."""
    tables = {}
    for table in re.findall(r"<table.*?</table>", page, re.DOTALL):
        caption = re.search(r"<caption[^>]*>(.*?)</caption>", table, re.DOTALL)
        cells = re.findall(r"<tr>\s*<t[dh][^>]*>(.*?)</t[dh]>", table, re.DOTALL)
        texts = [html.unescape(re.sub(r"<[^>]+>|\s+", " ", cell)).strip() for cell in cells]
        tables[caption[1].strip() if caption else ""] = sorted(text.split("  ")[0] for text in texts)
    return tables
