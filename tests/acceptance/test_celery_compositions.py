"""Generated compositions on beatd's worker and on Celery's: the same runs, states, results and trees of handles.

Tasks of them fail, retry, are replaced and send others; see :mod:`tests.composed_calls`.
"""

from __future__ import annotations

import json
from contextlib import ExitStack
from difflib import unified_diff
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.celery_pairs import CLIENTS, WARNINGS, await_idle, paired, workers
from tests.composed_calls import calls
from tests.composed_outcomes import Case, expected

pytestmark = WARNINGS

TASKS = Path(__file__).with_name("celery_composed_tasks.py")


def lines(outcome: dict[str, Any]) -> list[str]:
    return json.dumps(outcome, indent=1, sort_keys=True, default=str).splitlines()


LONG = [pytest.param(seed, 150, client, marks=pytest.mark.soak) for seed, client in enumerate(CLIENTS, 2)]


@pytest.mark.parametrize(("seed", "count", "client"), [(1, 60, "celery"), *LONG])
def test_compositions_have_the_same_outcome(
    seed: int, count: int, client: str, redis_server: Any, tmp_path: Path
) -> None:
    redis_server.start().flush()
    url = redis_server.url
    wrong = []
    with (
        workers(tmp_path, url, url, tasks=TASKS, pools=("-P solo", "-c 1")),  # one after the other: less is chance
        ExitStack() as opened,
    ):
        pairs = [opened.enter_context(paired(name, url, url)) for name in CLIENTS[client]]
        cases = [[Case(call, pair.app, pair.canvas, pair.store) for pair in pairs] for call in calls(seed, count)]
        await_idle(pairs)
        for ours, theirs in cases:
            found = ours.outcome()
            if found != (wanted := expected(theirs.outcome(), found)):
                wrong.append(
                    "\n".join([ours.expression, *unified_diff(lines(wanted), lines(found), "celery", "beatd")])
                )
    assert not wrong, "\n\n".join(wrong)
