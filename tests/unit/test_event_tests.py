"""Every event that beatd logs is expected by a test: by its name, or by words of its text."""

import ast
import itertools
import re
from collections.abc import Iterator
from pathlib import Path

from tests.unit.logged_events import logged, messages

TESTS = Path(__file__).parents[1]
PLACEHOLDER = re.compile(r"%[-+.\d]*[a-z]")
TELLING = 8
"""Characters that a part of a text has at least, if it tells this text from others."""

EXCEPTIONS = {
    "app_output": "debug: what an app prints when it is imported",
    "doorbell_failed": "debug: the queue is asked instead",
    "mingle_failed": "debug: the worker goes on with what it knows",
    "mingled": "debug: that other workers have answered",
    "prefetched_returned": "debug: tests see the messages in their queue",
}
"""Events that no test expects, each with the reason."""


def strings() -> Iterator[str]:
    """All strings in the tests, regular expressions as the text that they match."""
    for path in TESTS.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value.replace("\\", "")


def parts(text: str) -> set[str]:
    """Two words in a row, wherever no value comes between them; of a text that has no two, one."""
    words = [part.split() for part in PLACEHOLDER.split(text)]
    pairs = {f"{one} {two}" for part in words for one, two in itertools.pairwise(part)}
    return {part for part in pairs or {word for part in words for word in part} if len(part) >= TELLING}


def test_every_event_is_expected_by_a_test():
    expected = "\n".join(strings())
    named = set(
        re.findall(r"\w+", "\n".join(path.read_text() for path in TESTS.rglob("*.py") if path != Path(__file__)))
    )
    events = {event for in_package in logged().values() for event in in_package}
    unexpected = {
        event
        for event in events - named
        if not any(part in expected for text in messages()[event] for part in parts(text))
    }
    assert unexpected == set(EXCEPTIONS), "events that no test expects, or that no longer are exceptions"
