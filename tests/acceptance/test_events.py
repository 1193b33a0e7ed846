"""``beatd events`` in a real terminal: drawn in place, ended by ``q``."""

from beatd import App
from tests.acceptance.test_top import Terminal

APP = """
from beatd import App
app = App("proj", broker="{url}")
@app.task(name="proj.add")
def add(x, y):
    return x + y
"""


def test_events_are_seen_live(redis_url, start_beatd, tmp_path, wait_until):
    (tmp_path / "proj.py").write_text(APP.format(url=redis_url))
    start_beatd("worker", "-A", "proj", "-P", "solo", "-E", "-n", "w1@here").expect("ready", timeout=30)
    terminal = Terminal("-A", "proj", "events", cwd=tmp_path)
    try:
        wait_until(lambda: "1 of 1 worker online" in terminal.text, 30, "the worker")
        sent = App("client", broker=redis_url, set_as_current=False).send_task("proj.add", (2, 3))
        wait_until(lambda: "succeeded" in terminal.text, 20, "the task")
        wait_until(lambda: f"proj.add {sent.id[:8]}" in terminal.text, what="its name and id")
        terminal.press("\x1bOB")
        wait_until(lambda: "result 5" in terminal.text or "result '5'" in terminal.text, 20, "its result")
        terminal.resize(60, 12)
        wait_until(lambda: "q quit" in terminal.text, 20, "the keys")
        terminal.press("q")
        assert terminal.process.wait(20) == 0
        wait_until(terminal.is_restored, what="the terminal as it was")
    finally:
        terminal.close()
