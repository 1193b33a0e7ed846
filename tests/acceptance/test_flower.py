"""Flower in front of beatd's worker: its API shows the worker, its tasks, and what became of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import beatd as package
from tests.acceptance.celery_pairs import PREFIXED
from tests.acceptance.flower import Flower, flower

TASKS = """
from beatd import App
app = App("proj", broker={url!r}, backend={url!r})
app.conf.update({settings!r})

@app.task
def add(x, y):
    return x + y

@app.task
def boom():
    raise ValueError("boom")
"""
NODE = "celery@flowery"


@pytest.fixture(params=["plain", pytest.param("prefix", marks=pytest.mark.slow)])
def settings(request) -> dict[str, Any]:
    return PREFIXED if request.param == "prefix" else {}


@pytest.fixture
def api(tmp_path: Path, redis_url: str, free_port: Callable[[], int], settings: dict[str, Any]) -> Iterator[Flower]:
    (tmp_path / "watched.py").write_text("".join(f"{name} = {value!r}\n" for name, value in settings.items()))
    with flower(tmp_path, redis_url, free_port(), "watched" if settings else None) as shown:
        yield shown


def test_flower_shows_worker_and_tasks(api, tmp_path, redis_url, start_beatd, wait_until, settings):
    (tmp_path / "proj.py").write_text(TASKS.format(url=redis_url, settings=settings))
    worker = start_beatd("worker", "-A", "proj", "-n", NODE, "-c", "2")
    worker.expect(r"ready\.", timeout=30)
    wait_until(lambda: NODE in (api("workers?status=1") or {}), 40, "Flower to hear the worker")
    worker.expect("Events of group {task} enabled by remote", timeout=30)  # Flower asks for them

    client = package.App("client", broker=redis_url, backend=redis_url, set_as_current=False)
    client.conf.update(settings)
    good, bad = client.send_task("proj.add", (2, 3)), client.send_task("proj.boom")
    shown = wait_until(lambda: ended(api, good.id, "SUCCESS"), 30, "the success")
    assert (shown["name"], shown["args"], shown["result"]) == ("proj.add", "(2, 3)", "5")
    shown = wait_until(lambda: ended(api, bad.id, "FAILURE"), 30, "the failure")
    assert shown["exception"] == "ValueError('boom')"
    assert 'raise ValueError("boom")' in shown["traceback"]
    assert {good.id, bad.id} <= set(api("tasks"))

    def answers():
        shown = (api(f"workers?refresh=1&workername={NODE}") or {}).get(NODE, {})
        asked = {"stats", "active_queues", "registered"} <= shown.keys()
        return shown if asked and shown["stats"]["total"] else None

    known = wait_until(answers, 30, "answers to Flower's questions")
    assert known["stats"]["pool"]["max-concurrency"] == 2
    assert [queue["name"] for queue in known["active_queues"]] == ["celery"]
    assert known["registered"] == ["proj.add", "proj.boom"]
    assert known["stats"]["total"] == {"proj.add": 1, "proj.boom": 1}

    grown = wait_until(lambda: api(f"worker/pool/grow/{NODE}?n=1", post=b""), 30, "an answer within Flower's second")
    assert grown == {"message": f"Growing '{NODE}' worker's pool by 1"}
    client.close()


def ended(api: Flower, task_id: str, state: str) -> Any:
    shown = api(f"task/info/{task_id}")
    return shown if shown and shown["state"] == state else None
