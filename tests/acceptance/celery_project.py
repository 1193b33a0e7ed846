"""A project that is written for Celery, in two folders: unchanged, and with its imports changed to beatd's."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.conftest import wait_for
from tests.forked import environment, kill_session, run_python, start_python, stop

IMPORTS = {
    r"from celery import Celery\b": "from beatd import App as Celery\nfrom beatd import App",
    r"from celery\.utils\.log": "from beatd.log",
    r"celery\.(canvas|exceptions|result|schedules|signals|worker)": r"beatd.\1",
    r"from celery import": "from beatd import",
}
"""All that is changed."""

WORKERS = {"beatd": (), "celery": ("--without-gossip", "--without-mingle")}
"""The makes of workers and clients, with options for a quick start."""

CALL = "import json, proj; print(json.dumps([proj.calls(), proj.EXPECTED]))"


def converted(text: str) -> str:
    for theirs, ours in IMPORTS.items():
        text = re.sub(theirs, ours, text)
    assert not re.search(r"(from|import) celery\b", text)
    return text


class Project:
    """The Python files of some folders, with ``proj.py`` among them; the servers are in its environment."""

    def __init__(self, folder: Path, *sources: Path, broker: str, backend: str) -> None:
        self.folder = folder
        self.env = environment(BROKER_URL=broker, RESULT_BACKEND=backend)
        for source in sources:
            for file in source.rglob("*.py") if source.is_dir() else [source]:
                path = file.relative_to(source if source.is_dir() else source.parent)
                for make in WORKERS:
                    (folder / make / path).parent.mkdir(parents=True, exist_ok=True)
                    text = file.read_text()
                    (folder / make / path).write_text(converted(text) if make == "beatd" else text)

    @contextmanager
    def worker(self, make: str, *options: str, node: str = "node@here", **env: str) -> Iterator[None]:
        """A worker of that make, ready."""
        command = ["-m", make, "-A", "proj", "worker", "-n", node, "-l", "info", *WORKERS[make]]
        log = self.folder / f"{make}.log"
        with log.open("wb") as output:
            process = start_python(
                make, [*command, *options], cwd=self.folder / make, env=self.env | env, stdout=output
            )
        try:
            wait_for(lambda: " ready." in log.read_text() or process.poll() is not None, 60, "a worker")
            assert process.poll() is None, log.read_text()
            yield
        finally:
            print(log.read_text())
            stop(process, 20) if make == "beatd" else kill_session(process)

    def client(self, make: str) -> None:
        """A client of that make does the project's ``calls()`` and gets what the project expects."""
        done = run_python(make, ["-c", CALL], cwd=self.folder / make, env=self.env, timeout=90)
        assert done.returncode == 0, done.stderr
        got, expected = json.loads(done.stdout)
        assert got == expected, f"{make}'s client"
