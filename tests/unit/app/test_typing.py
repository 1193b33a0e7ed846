"""Static types: ``delay`` has the parameters of the function, and the result its return type."""

from __future__ import annotations

import subprocess
import sys

import pytest

DEFINITIONS = """
from zoneinfo import ZoneInfo
from beatd import App, AsyncResult, Task, chain, current_app, group, shared_task
from beatd.signals import task_failure
app = App("x")

@app.task
def add(x: int, y: int) -> int:
    return x + y

@app.task(bind=True, max_retries=2)
def who(self: Task[..., str], n: int) -> str:
    return str(n + self.request.retries)

class Audited(Task):
    def on_success(self, retval: object, task_id: str, args: object, kwargs: object) -> None: ...

@app.task(bind=True, base=Audited)
def audited(self: Task, n: int) -> int:
    return n

@shared_task(name="s")
def shout(a: str, *, loud: bool = False) -> str:
    return a
"""

GOOD = """
total: int = add.delay(1, 2).get()
handle: AsyncResult[str] = who.delay(3)
name: str = add.name
kept: int = audited.delay(1).get()
direct: int = add(1, y=2)
shout.delay("a", loud=True)
add.apply_async((1, 2), countdown=10, queue="slow")
eager: int = add.apply((1, 2)).get()
(add.s(1, 2) | who.s(3)).apply_async()
group(add.s(1, 2), add.si(3, 4))().get()
chain(add.s(1, 2), who.si(3)).delay()
chain(add.s(1, 2), add.s(3)).delay()
(group(add.s(1, 2), add.s(3, 4)) | shout.s(loud=True)).delay()
current_app.send_task("s")
zone: ZoneInfo = add.app.timezone
"""

BAD = """
add.delay("x", 2)
add.delay(1)
who.delay("n")
audited.delay("n")
shout.delay(3)
shout.delay("a", quiet=True)
add.si("x", 2)
add.si(1, 2, 3)
add("x", 2)
text: str = add.delay(1, 2).get()
"""


def errors(tmp_path, text):
    """Return the numbers of the lines with mypy errors."""
    (tmp_path / "typed.py").write_text(text)
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path / "cache"), "typed.py"]
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False).stdout
    return [
        int(line.split(":")[1]) for line in found.splitlines() if line.startswith("typed.py") and ": error:" in line
    ]


@pytest.mark.slow
def test_mypy_accepts_valid_calls_and_reports_invalid_ones(tmp_path):
    text = DEFINITIONS + GOOD + BAD
    first = (DEFINITIONS + GOOD).count("\n") + 2
    assert errors(tmp_path, text) == list(range(first, first + BAD.count("\n") - 1))
