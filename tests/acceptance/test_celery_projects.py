"""Celery parts of ten public projects in miniature: they run in beatd's worker when only their imports are changed."""

from __future__ import annotations

import re

import pytest

from beatd import App, chain, chord, group
from tests.acceptance import celery_projects as projects

WAIT = 40.0
IMPORTS = {
    r"from celery import Celery\b": "from beatd import App as Celery\nfrom beatd import App",
    r"from celery\.utils\.log": "from beatd.log",
    r"from celery\.schedules": "from beatd.schedules",
    r"celery\.(result|exceptions|signals|worker)": r"beatd.\1",
    r"from celery import": "from beatd import",
}


def converted(text):
    for theirs, ours in IMPORTS.items():
        text = re.sub(theirs, ours, text)
    assert not re.search(r"(from|import) celery\b", text)
    return text


@pytest.fixture
def start(tmp_path, redis_url, start_beatd):
    """``start(project)`` runs a worker for it; returns a client that knows only the names of its tasks."""
    clients = []

    def started(text, *options, **files):
        (tmp_path / "proj.py").write_text(re.sub(r"\bURL\b", repr(redis_url), converted(text)))
        for name, more in files.get("packages", {}).items():
            path = tmp_path / name
            path.parent.mkdir()
            (path.parent / "__init__.py").touch()
            path.write_text(converted(more))
        start_beatd("worker", "-A", "proj", "-c", "1", *options).expect(r" ready\.", timeout=60)
        clients.append(App("client", broker=redis_url, backend=redis_url, set_as_current=False))
        return clients[-1]

    yield started
    for client in clients:
        client.close()


def value(client, name, *args, queue="celery", **kwargs):
    return client.send_task(name, args, kwargs, queue=queue).get(timeout=WAIT)


def test_a_subclass_of_the_app_and_its_tasks(start):
    client = start(projects.SENTRY)
    retried = value(client, "sentry.tasks.store", 1, event_id="a")
    assert retried == {"value": [1, "a", 1], "timed": True}, "a retry goes through the class's apply_async"


def test_tasks_in_the_context_of_a_web_application(start):
    assert value(start(projects.FLASK), "proj.depth", 1, 2) == [3, 1]


def test_a_class_as_configuration(start):
    client = start(projects.AIRFLOW)
    assert value(client, "airflow.execute", ["ls"], queue="default") == ["100/s", True, "default"]
    assert value(client, "airflow.reports.prune", queue="reports") == "reports"


def test_discovered_modules_and_retries_with_backoff(start):
    client = start(projects.SALEOR, packages=projects.SALEOR_PACKAGES)
    assert value(client, "proj.debug_task") == [True, True]
    assert value(client, "orders.expire", "A1") == "A1"
    assert value(client, "shop_checkout.tasks.complete", 4) == 8
    assert value(client, "shop_plugins.search_tasks.index", 4) == [4]


def test_progress_bars(start):
    client, states = start(projects.PROGRESS), []
    result = client.send_task("proj.work", [3])
    shown = result.get(timeout=WAIT, on_message=lambda meta: states.append(meta["status"]))
    assert shown == {
        "state": "PROGRESS",
        "complete": False,
        "progress": {"pending": False, "current": 3, "total": 3},
    }
    assert states[-1] == "SUCCESS"
    with pytest.raises(RuntimeError, match="broke"):
        value(client, "proj.broken")


def test_abstract_bases_that_swap_arguments(start):
    client = start(projects.BASES)
    assert value(client, "bases.swapped", 1, 2) == [2, 1, True]
    assert value(client, "bases.what") == ["on_success", "success", "after_return SUCCESS"]
    assert value(client, "bases.registered", 5) == [5, True, 7]


def test_models_of_pydantic(start):
    client = start(projects.PYDANTIC)
    assert value(client, "proj.invoice", {"item": "pear", "count": 2}, 5) == {
        "total": 10,
        "lines": [{"item": "pear", "count": 2}],
    }


def test_workflows(start):
    client = start(projects.WORKFLOW)
    call = client.signature
    fetched = group([call("proj.fetch", (n,)) | call("proj.flaky") for n in range(3)], app=client)
    assert chord(fetched, call("proj.collect"), app=client).delay().get(timeout=WAIT) == 30
    assert value(client, "proj.plan", 3) == 60
    steps = chain(call("proj.fetch", (1,)), call("proj.explode"), call("proj.fetch"), app=client)
    failed = steps.apply_async(link_error=call("proj.told"))
    with pytest.raises(ValueError, match="part 1"):
        failed.get(timeout=WAIT)
    root = failed.parent.parent.id
    assert client.AsyncResult(f"told-{root}").get(timeout=WAIT) == "part 1"
    client.send_task("proj.ignored", task_id="ignored")
    value(client, "proj.fetch", 1)
    assert client.AsyncResult("ignored").state == "SKIPPED"


def test_names_of_older_versions(start):
    name, main, host, tasks = value(start(projects.LEGACY, "-n", "old@here"), "legacy.who")
    assert (name, main, host, tasks) == ("legacy.who", "legacy", "old@here", ["legacy.who"])


def test_decorators_locks_and_time_limits(start):
    client = start(projects.LOCKS)
    assert value(client, "proj.quota", event=4) == [{"id": 4}, "Count.", "ProfiledEventTask"]
    assert value(client, "proj.slow") == "soft"
