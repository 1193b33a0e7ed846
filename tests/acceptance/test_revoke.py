"""Tasks that are revoked after a process of the pool has got them: those that have not begun do not begin."""

import pytest

from beatd import App
from beatd.exceptions import TaskRevokedError

TASKS = """
import time
from pathlib import Path

from beatd import App

app = App("proj", broker={url!r}, backend={url!r})
HERE = Path(__file__).parent

@app.task
def short():
    pass

@app.task
def hold(name, seconds):
    (HERE / name).touch()
    time.sleep(seconds)
"""


@pytest.mark.parametrize("terminate", [False, True])
def test_a_task_that_waits_in_a_process_does_not_begin(tmp_path, redis_url, start_beatd, wait_until, terminate):
    """Short tasks have it get many at once; then one waits behind a long one."""
    (tmp_path / "proj.py").write_text(TASKS.format(url=redis_url))
    app = App("proj", broker=redis_url, backend=redis_url, set_as_current=False)
    worker = start_beatd("worker", "-A", "proj", "-c", "1", "-l", "info")
    worker.expect("eady")
    for number in range(5):
        for one in [app.send_task("proj.short") for _ in range(100)]:
            one.get(timeout=20)
        first = app.send_task("proj.hold", [f"first{number}", 0.6])
        second = app.send_task("proj.hold", [f"second{number}", 30])
        last = app.send_task("proj.short")
        wait_until((tmp_path / f"first{number}").exists, 20, "the long task to begin")
        app.control.revoke(second.id, terminate=terminate)
        with pytest.raises(TaskRevokedError, match="revoked"):
            second.get(timeout=20)
        first.get(timeout=20)
        last.get(timeout=20)
        assert not (tmp_path / f"second{number}").exists()
    app.close()
