"""What a type checker sees: the arguments of ``delay`` are those of the function."""

from __future__ import annotations

import subprocess
import sys

SNIPPET = """
from beatd import App, shared_task
app = App("x")

@app.task
def add(x: int, y: int) -> int:
    return x + y

@app.task(bind=True, max_retries=2)
def who(self: object, n: int) -> str:
    return str(n)

@shared_task(name="s")
def shout(a: str) -> str:
    return a

total: int = add.delay(1, 2).get()
who.delay(3)
shout.delay("a")
add.delay("x", 2)
who.delay("n")
shout.delay(3)
"""


def test_delay_is_checked(tmp_path):
    (tmp_path / "typed.py").write_text(SNIPPET)
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path / "cache"), "typed.py"]
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False).stdout
    wrong = [line.split(":")[1] for line in found.splitlines() if ": error:" in line]
    first = SNIPPET.count("\n", 0, SNIPPET.index('add.delay("x"')) + 1
    assert wrong == [str(first), str(first + 1), str(first + 2)], found
