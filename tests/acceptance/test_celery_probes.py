"""What tasks see, and what is stored of them, is the same on workers of both makes, for many ways of calling."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.celery_pairs import CLIENTS, WARNINGS, await_idle, paired, workers
from tests.acceptance.celery_probes import Probe, outcome, probes

pytestmark = WARNINGS

TASKS = Path(__file__).with_name("celery_probed_tasks.py")


@pytest.fixture(scope="module")
def place(redis_server: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A Redis, and the folder of a worker of each make."""
    redis_server.start().flush()
    folder = tmp_path_factory.mktemp("probes")
    settings = {"result_extended": True}
    url = redis_server.url
    with workers(folder, url, url, settings=settings, tasks=TASKS, pools=("-c 2", "-c 2")):
        yield url, folder


@pytest.mark.parametrize("client", CLIENTS)
def test_calls_have_the_same_effects(client: str, place: tuple[str, Path]) -> None:
    url, folder = place
    logs = {"ours": folder / "beatd.log", "theirs": folder / "theirs/celery.log"}
    wanted = [each for each in probes() if client == "celery" or not each.options.get("argsrepr")]
    with ExitStack() as opened:
        pairs = [opened.enter_context(paired(name, url, url)) for name in CLIENTS[client]]
        sent: list[tuple[Probe, list[str]]] = [(probe, [probe.send(pair) for pair in pairs]) for probe in wanted]
        await_idle(pairs)
        texts = [logs[pair.queue].read_text(errors="replace") for pair in pairs]
        wrong = []
        for probe, ids in sent:
            ours, theirs = (outcome(probe, *each) for each in zip(ids, pairs, texts, strict=True))
            if ours != theirs:
                wrong.append(f"{probe}\nbeatd {ours}\ncelery {theirs}")
        assert not wrong, "\n\n".join(wrong)
