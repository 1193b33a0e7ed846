"""Celery parts of public projects in miniature, unchanged but for the imports: run by either make, called by either.

Each project in ``tests/data/celery_projects`` ends with ``calls()``, which its clients do, and what they must get.
Celery's client and Celery's worker are the reference: what a project expects is true of them, too.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import wait_for

PROJECTS = Path(__file__).parents[1] / "data/celery_projects"
NAMES = sorted(path.parent.name for path in PROJECTS.glob("*/proj.py"))

BY_RPC = ["airflow", "bases", "flask", "sentry"]
"""Of the projects that ask for nothing but results of their own calls, those that differ most."""

IMPORTS = {
    r"from celery import Celery\b": "from beatd import App as Celery\nfrom beatd import App",
    r"from celery\.utils\.log": "from beatd.log",
    r"celery\.(canvas|exceptions|result|schedules|signals|worker)": r"beatd.\1",
    r"from celery import": "from beatd import",
}
WORKERS = {
    "beatd": ("-c", "1"),
    "celery": ("-c", "1", "--without-gossip", "--without-mingle", "--without-heartbeat"),
}
CALL = "import json, proj; print(json.dumps([proj.calls(), proj.EXPECTED]))"


def converted(text: str) -> str:
    for theirs, ours in IMPORTS.items():
        text = re.sub(theirs, ours, text)
    assert not re.search(r"(from|import) celery\b", text)
    return text


class Project:
    """A project in two folders, one for each make, with its servers in the environment."""

    def __init__(self, name: str, folder: Path, broker: str, backend: str) -> None:
        self.folder = folder
        self.env = os.environ | {"BROKER_URL": broker, "RESULT_BACKEND": backend, "PYTHONWARNINGS": "ignore"}
        for source in [PROJECTS / "waiting.py", *(PROJECTS / name).rglob("*.py")]:
            path = source.relative_to(PROJECTS / name if source.parent != PROJECTS else PROJECTS)
            for make in WORKERS:
                (folder / make / path).parent.mkdir(parents=True, exist_ok=True)
                text = source.read_text()
                (folder / make / path).write_text(converted(text) if make == "beatd" else text)

    @contextmanager
    def worker(self, make: str) -> Iterator[None]:
        """A worker of that make, ready."""
        command = [sys.executable, "-m", make, "-A", "proj", "worker", "-n", "node@here", "-l", "info"]
        log = self.folder / "worker.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*command, *WORKERS[make]], cwd=self.folder / make, env=self.env, stdout=output, stderr=output
            )
        try:
            wait_for(lambda: " ready." in log.read_text() or process.poll() is not None, 60, "a worker")
            assert process.poll() is None, log.read_text()
            yield
        finally:
            print(log.read_text())
            process.terminate()
            process.wait(20)

    def client(self, make: str) -> None:
        """A client of that make gets what the project expects."""
        done = subprocess.run(
            [sys.executable, "-c", CALL],
            cwd=self.folder / make,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        got, expected = json.loads(done.stdout)
        assert got == expected, f"{make}'s client"


@pytest.fixture
def project(tmp_path, redis_url):
    return lambda name, broker=redis_url, backend=redis_url: Project(name, tmp_path, broker, backend)


@pytest.mark.parametrize("make", ["beatd", pytest.param("celery", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", NAMES)
def test_over_redis(project, name, make):
    run(project(name), make)


@pytest.mark.parametrize("make", WORKERS)
@pytest.mark.parametrize("name", NAMES)
def test_over_rabbitmq(project, rabbitmq, name, make):
    run(project(name, broker=rabbitmq.url), make)


@pytest.mark.parametrize("make", WORKERS)
@pytest.mark.parametrize("name", BY_RPC)
def test_results_by_rpc(project, rabbitmq, name, make):
    run(project(name, broker=rabbitmq.url, backend="rpc://"), make)


def run(project: Project, make: str) -> None:
    with project.worker(make):
        for client in WORKERS:
            project.client(client)
