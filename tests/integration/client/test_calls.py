"""Random calls of random apps, made with Celery and with beatd: the same messages, results and errors."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator

import pytest

from tests.call_makes import makes
from tests.call_programs import Program, program

pytestmark = pytest.mark.filterwarnings("ignore")  # all of them Celery's and redis-py's


def is_documented(program: Program, call: str, theirs: str, ours: str) -> bool:
    """Whether docs/celery.md lists the difference."""
    if '"raised": "Retry"' in theirs and ".retry(" not in call and ".run(" not in call:
        return True  # an eager task that retries while exceptions propagate
    if not theirs.startswith("{"):
        return False
    if not ours.startswith("{"):  # the callback of an eager task; a call that Celery does not check
        return '"result": "EncodeError"' in theirs or "pydantic=True" in program.text
    priority = r'"priority": \d+|\\u0006\\u0016\d'
    if "inherit_parent_priority" in program.text and re.sub(priority, "", theirs) == re.sub(priority, "", ours):
        return True  # Celery's tasks that name a queue do not inherit
    sent, found = (json.loads(outcome)["messages"] for outcome in (theirs, ours))
    if sent == found and call.startswith("stamped("):
        return True  # in nested groups ids of Celery's handles are not those of the messages
    if sent == found and call.startswith("inside(") and "chord([" in call and "group(" in call:
        return True  # the child for a header that is one composition ending in a group: Celery's is the inner group
    if '"raised"' in ours and not found:  # a group with a wrong call; a retry with arguments that are checked
        return ours.partition('"result"')[2] == theirs.partition('"result"')[2] or "pydantic=True" in program.text
    arrived = [key for key, *_ in sent if key.partition("\x06")[0]]
    return len(arrived) < len(found) and "exchange" in program.text + call  # nothing is bound to it


def differences(seeds: range, url: str) -> Iterator[str]:
    for seed in seeds:
        calls = program(seed)
        with makes(calls, url) as (theirs, ours):
            for call, expected, found in zip(calls.calls, theirs.outcomes(), ours.outcomes(), strict=True):
                if found != expected and not is_documented(calls, call, expected, found):
                    lines = difflib.unified_diff(
                        expected.split("\n"), found.split("\n"), "Celery", "beatd", lineterm=""
                    )
                    yield "\n".join([f"program {seed}: {call}", *lines])


@pytest.mark.parametrize("first", [0, 1000])
def test_random_calls_are_those_of_celery(first, redis_url):
    assert list(differences(range(first, first + 15), redis_url)) == []


@pytest.mark.soak
@pytest.mark.parametrize("first", range(10_000, 18_000, 500))
@pytest.mark.timeout(600)
def test_more_random_calls_are_those_of_celery(first, redis_url):
    assert list(differences(range(first, first + 500), redis_url)) == []
