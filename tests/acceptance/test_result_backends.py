"""Workers with result backends other than Redis, and clients of both makes."""

from __future__ import annotations

import sys

import celery
import pytest

from beatd import App
from tests.acceptance.celery_pairs import WARNINGS

pytestmark = WARNINGS

TASKS = """
from beatd import App
app = App("proj", broker={broker!r}, backend={backend!r}, result_chord_retry_interval=0.2)

@app.task
def add(x, y):
    return x + y

@app.task
def total(values):
    return sum(values)

@app.task
def boom():
    raise ValueError("boom")

@app.task(bind=True)
def steps(self):
    self.update_state(state="PROGRESS", meta=1)
    return "over"
"""


@pytest.fixture
def start(tmp_path, redis_url, start_beatd):
    """``start(backend)`` starts a worker; returns a client of each make."""
    clients = []

    def started(backend):
        (tmp_path / "proj.py").write_text(TASKS.format(broker=redis_url, backend=backend))
        start_beatd("worker", "-A", "proj", "-c", "2").expect(r"ready\.")
        clients.extend(make("client", broker=redis_url, backend=backend, set_as_current=False) for make in MAKES)
        return clients

    yield started
    for client in clients:
        client.close()


MAKES = (App, celery.Celery)


def test_results_as_messages(start):
    for client in start("rpc://"):
        call = client.signature
        chain = call("proj.add", (1, 1)) | call("proj.add", (5,))
        assert chain.delay().get(timeout=20) == 7
        states = []
        result = client.send_task("proj.steps")
        assert result.get(timeout=20, on_message=lambda meta, seen=states: seen.append(meta["status"])) == "over"
        assert states == ["PROGRESS", "SUCCESS"]
        failed = call("proj.boom") | call("proj.add", (5,))
        with pytest.raises(ValueError, match="boom"):
            failed.delay().get(timeout=20)


def test_chords_with_a_backend_of_celerys_that_cannot_count(start, tmp_path):
    (tmp_path / "results").mkdir()
    for client in start(f"file://{tmp_path}/results"):
        package = celery if isinstance(client, celery.Celery) else __import__("beatd")
        call = client.signature
        header = [call("proj.add", (n, n)) for n in range(3)]
        assert package.chord(header, app=client)(call("proj.total")).get(timeout=20) == 6
        failed = package.chord([*header, call("proj.boom")], app=client)(call("proj.total"))
        with pytest.raises((ValueError, package.exceptions.ChordError), match="boom"):
            failed.get(timeout=20)


HANGING = '''
import os
import time
from celery.backends.filesystem import FilesystemBackend


class Backend(FilesystemBackend):
    """Files, while there is no file named ``hang``."""

    def set(self, key, value):
        while os.path.exists({gate!r}):
            time.sleep(0.05)
        super().set(key, value)
'''


def test_a_backend_that_hangs_stalls_neither_heartbeats_nor_remote_control(start, tmp_path, wait_until):
    gate, results = tmp_path / "hang", tmp_path / "results"
    results.mkdir()
    (tmp_path / "hanging.py").write_text(HANGING.format(gate=str(gate)))
    sys.path.append(str(tmp_path))
    try:
        client = start(f"hanging.Backend+file://{results}")[0]
        assert client.send_task("proj.add", (1, 1)).get(timeout=20) == 2
        gate.touch()
        late = [client.send_task("proj.add", (n, 1)) for n in range(3)]
        stats = client.control.inspect(timeout=5.0).stats
        # no more than that: once a result cannot be stored, no further message is taken
        wait_until(
            lambda: sum(next(iter((stats() or {"": {"total": {}}}).values()))["total"].values()) >= 2, 30, "a run"
        )
        for _ in range(3):
            assert client.control.ping(timeout=5.0)
        gate.unlink()
        assert [result.get(timeout=30) for result in late] == [1, 2, 3]
    finally:
        sys.path.remove(str(tmp_path))
        sys.modules.pop("hanging", None)
