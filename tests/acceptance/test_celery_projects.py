"""Celery parts of public projects in miniature, unchanged but for the imports: run by either make, called by either.

Each project in ``tests/data/celery_projects`` ends with ``calls()``, which its clients do, and what they must get.
Celery's client and Celery's worker are the reference: what a project expects is true of them, too.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.acceptance.celery_project import WORKERS, Project

PROJECTS = Path(__file__).parents[1] / "data/celery_projects"
NAMES = sorted(path.parent.name for path in PROJECTS.glob("*/proj.py"))

OPTIONS = {"once": ("-Q", "once,reports")}
"""Of the workers of some projects."""

LONG = {"exporter": pytest.mark.slow}
"""Marks of projects whose clients take long."""

ON_RABBITMQ = {"dead_letters"}
"""Projects for RabbitMQ alone: kombu's Redis has no dead-letter exchanges."""

BY_RPC = ["airflow", "bases", "flask", "sentry"]
"""Of the projects that ask for nothing but results of their own calls, those that differ most."""


@pytest.fixture
def run(tmp_path, redis_url):
    def run(name: str, make: str, broker: str = redis_url, backend: str = redis_url) -> None:
        project = Project(tmp_path, PROJECTS / name, PROJECTS / "waiting.py", broker=broker, backend=backend)
        with project.worker(make, "-c", "1", *OPTIONS.get(name, ())):
            for client in WORKERS:
                project.client(client)

    return run


@pytest.mark.parametrize("make", ["beatd", pytest.param("celery", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=LONG.get(name, ())) for name in NAMES if name not in ON_RABBITMQ]
)
def test_over_redis(run, name, make):
    run(name, make)


@pytest.mark.parametrize("make", WORKERS)
@pytest.mark.parametrize("name", NAMES)
def test_over_rabbitmq(run, rabbitmq, name, make):
    run(name, make, broker=rabbitmq.url)


@pytest.mark.parametrize("make", WORKERS)
@pytest.mark.parametrize("name", BY_RPC)
def test_results_by_rpc(run, rabbitmq, name, make):
    run(name, make, broker=rabbitmq.url, backend="rpc://")
