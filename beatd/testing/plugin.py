"""Plugin of pytest: a store of the test's own, tasks that run at once, and a worker that runs them for real.

pytest loads this module in every session where beatd is installed, so it imports nothing before a fixture is used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from beatd import App
    from beatd.testing.worker import WorkerProcess


@pytest.fixture(scope="session")
def beatd_store_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of an embedded store that lives as long as the session. Tests use ``beatd_store``."""
    from beatd.exceptions import StoreError  # noqa: PLC0415
    from beatd.store.embedded import open_embedded  # noqa: PLC0415

    try:
        store = open_embedded(tmp_path_factory.mktemp("beatd"))
    except StoreError as error:
        pytest.fail(str(error), pytrace=False)
    with store:
        yield store.url


@pytest.fixture
def beatd_store(beatd_store_url: str) -> str:
    """The URL of an empty store, for brokers, results and ``[redis] url``."""
    from beatd.store.client import connect  # noqa: PLC0415

    with connect(beatd_store_url, timeout_ms=5_000) as client:
        client.flushall()
    return beatd_store_url


@pytest.fixture
def beatd_eager() -> Iterator[Callable[..., App]]:
    """``beatd_eager(app)``: until the test ends, ``delay()`` runs tasks at once, and their exceptions are raised.

    Without an app it is the current one, such as that of a Django project.
    """
    from beatd.testing.eager import eager_tasks  # noqa: PLC0415

    with ExitStack() as changed:
        yield lambda app=None: changed.enter_context(eager_tasks(app))


@pytest.fixture
def beatd_worker(beatd_store: str, tmp_path: Path) -> Iterator[Callable[..., WorkerProcess]]:
    """``beatd_worker("proj.tasks:app")``: a worker of its own process takes the tasks of that app until the test ends.

    The app of the test's process sends to the same store, and reads its results there. Further words are options of
    ``beatd worker``: ``beatd_worker("proj.tasks:app", "-Q", "mail")``.
    """
    from beatd.testing.worker import WorkerProcess  # noqa: PLC0415

    running: list[WorkerProcess] = []

    def start(app: str, *options: str) -> WorkerProcess:
        log = tmp_path / f"beatd-worker-{len(running)}.log"
        running.append(WorkerProcess(app, beatd_store, log, options))
        running[-1].start()
        return running[-1]

    yield start
    for worker in reversed(running):
        worker.stop()
