"""A Redis Cluster as result backend: results, groups and chords, also while a node dies."""

from __future__ import annotations

import time
import uuid

import pytest
import redis

from beatd import App, chord, group
from beatd.exceptions import ChordError, StoreUnavailable

APP = """
from beatd import App
app = App("proj", broker={broker!r}, backend={backend!r})
app.conf.task_default_queue = {queue!r}

@app.task(name="add")
def add(x, y):
    return x + y

@app.task(name="total")
def total(numbers):
    return sum(numbers)

@app.task(name="boom")
def boom():
    raise ValueError("boom")

@app.task(name="steps", bind=True)
def steps(self):
    self.update_state(state="PROGRESS", meta={{"done": 1}})
    return "end"
"""


@pytest.fixture
def serve(tmp_path, redis_url, start_beatd):
    """``serve(cluster)``: start a worker whose results are in the cluster; returns the client's app."""
    apps = []

    def start(cluster):
        queue = f"q-{uuid.uuid4()}"
        (tmp_path / "proj.py").write_text(APP.format(broker=redis_url, backend=cluster.url, queue=queue))
        start_beatd("worker", "-A", "proj", "-c", "2").expect("ready")
        app = App("client", broker=redis_url, backend=cluster.url)
        app.conf.task_default_queue = queue
        apps.append(app)
        return app

    yield start
    for app in apps:
        app.close()


def test_results_groups_and_chords(cluster, serve, wait_until):
    app = serve(cluster)
    add, total, boom = (app.signature(name) for name in ("add", "total", "boom"))
    assert add.clone((2, 3)).delay().get(timeout=20) == 5
    with pytest.raises(ValueError, match="boom"):
        boom.delay().get(timeout=20)
    several = group(add.clone((n, n)) for n in range(60)).apply_async()
    assert several.get(timeout=20) == [2 * n for n in range(60)]
    assert chord([add.clone((n, 1)) for n in range(20)], total.clone()).apply_async().get(timeout=20) == sum(
        range(1, 21)
    )
    assert (add.clone((1, 1)) | add.clone((5,)) | add.clone((7,))).apply_async().get(timeout=20) == 14
    with pytest.raises((ChordError, ValueError), match="boom"):
        chord([add.clone((1, 1)), boom.clone()], total.clone()).apply_async().get(timeout=20)
    seen = []
    app.signature("steps").delay().get(timeout=20, on_message=lambda meta: seen.append(meta["status"]))
    assert seen[-1] == "SUCCESS"
    several.save()
    restored = app.GroupResult.restore(several.id)
    assert restored.get(timeout=20) == [2 * n for n in range(60)]
    restored.delete()
    assert app.GroupResult.restore(several.id) is None
    result = add.clone((1, 2)).delay()
    assert result.get(timeout=20) == 3
    result.forget()
    wait_until(lambda: result.state == "PENDING", 10, "the result to be forgotten")
    with_results = [server for server in cluster.masters if _results_at(server)]
    assert len(with_results) == 3  # they are spread over the nodes


def _results_at(server):
    with redis.Redis(port=server.port) as client:
        return client.keys("celery-task-meta-*")


@pytest.mark.slow
def test_no_result_is_lost_when_a_node_dies(six, serve):
    app = serve(six)
    add, total = app.signature("add"), app.signature("total")
    results = []
    for n in range(400):
        if n == 100:  # a client that announces a chord at a dead node gets an error: so this one is announced before
            body = chord([add.clone((n, 1)) for n in range(10)], total.clone()).apply_async()
            six.masters[1].kill()
        results.append(add.clone((n, n)).delay())
        time.sleep(0.005)  # so that it dies in their midst
    assert [result.get(timeout=60) for result in results] == [2 * n for n in range(400)]
    assert body.get(timeout=60) == sum(range(1, 11))


def test_what_cannot_be_reached_is_said(free_port, redis_url):
    app = App("client", broker=redis_url, backend=f"redis+cluster://127.0.0.1:{free_port()}")
    with pytest.raises(StoreUnavailable, match="no node of the cluster answers"):
        _ = app.AsyncResult("some").state
    app.close()
