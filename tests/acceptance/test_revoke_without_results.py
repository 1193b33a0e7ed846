"""Revoking while a server hangs or refuses: the worker's remote control answers all the same, and no id is lost."""

import pytest

from beatd import App
from beatd.exceptions import TaskRevokedError
from beatd.store.keys import Keys

TASKS = """
from beatd import App
app = App("proj", broker={broker!r}, backend={backend!r})

@app.task
def add(x, y):
    return x + y
"""


def test_revoke_answers_while_the_result_backend_hangs(tmp_path, redis_url, start_server, start_beatd, wait_until):
    backend = start_server()
    (tmp_path / "proj.py").write_text(TASKS.format(broker=redis_url, backend=backend.url))
    worker = start_beatd("worker", "-A", "proj", "-c", "1", "-n", "w@h")
    worker.expect(r" ready\.", timeout=60)
    client = App("client", broker=redis_url, backend=backend.url, set_as_current=False)
    assert client.send_task("proj.add", (1, 2)).get(timeout=30) == 3

    backend.pause()
    told = [client.control.revoke(f"task-{number}", reply=True, timeout=30, limit=1) for number in range(6)]
    assert told == [[{"w@h": {"ok": f"tasks {{'task-{number}'}} flagged as revoked"}}] for number in range(6)]
    assert client.control.ping(timeout=30, limit=1) == [{"w@h": {"ok": "pong"}}]
    worker.expect("the result backend does not answer", timeout=30)

    backend.resume()

    def is_stored():
        client.control.revoke("task-9", reply=True, timeout=30, limit=1)
        return client.AsyncResult("task-9").state == "REVOKED"

    wait_until(is_stored, 30, "the state of a task revoked once earlier commands have given up")
    assert client.send_task("proj.add", (1, 2)).get(timeout=30) == 3
    client.close()


def test_an_id_that_cannot_be_stored_is_known_to_workers_that_are_online(
    tmp_path, redis_url, server, start_beatd, wait_until, caplog
):
    """They store it themselves as soon as they can."""
    (tmp_path / "proj.py").write_text(TASKS.format(broker=redis_url, backend=redis_url))
    worker = start_beatd("worker", "-A", "proj", "-c", "1", "-n", "w@h")
    worker.expect(r" ready\.", timeout=60)
    key = Keys().workers().revoked
    server.set(key, "mine")
    client = App("client", broker=redis_url, backend=redis_url, set_as_current=False)
    client.control.revoke("an-id", reply=True, timeout=30, limit=1)
    assert [record.event for record in caplog.records] == ["revoked_not_kept"]
    assert key in caplog.text
    worker.expect(f"Revoked tasks cannot be shared.*{key}")
    with pytest.raises(TaskRevokedError):
        client.send_task("proj.add", (1, 2), task_id="an-id").get(timeout=30)
    server.delete(key)
    assert wait_until(lambda: server.zrange(key, 0, -1), what="the id in the store") == ["an-id"]
    client.close()
