"""Every event that beatd logs is expected by a test: by its name, or by words of its text."""

import ast
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from tests.unit.logged_events import logged, messages

TESTS = Path(__file__).parents[1]
PLACEHOLDER = re.compile(r"%[-+.\d]*[a-z]")
NAME = re.compile(r"\b[a-z0-9]+(?:_[a-z0-9]+)+\b|(?<=event=)\w+|(?<=\"event\": \")\w+")
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
    """All strings in the tests but docstrings, regular expressions as the text that they match."""
    for path in TESTS.rglob("*.py"):
        nodes = list(ast.walk(ast.parse(path.read_text())))
        said = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
        own = {id(node) for each in nodes if _is_exceptions(each) for node in ast.walk(each)}
        for node in nodes:
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in said | own:
                yield node.value.replace("\\", "")


def _is_exceptions(node: ast.AST) -> bool:
    return isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "EXCEPTIONS"


def parts(text: str) -> set[str]:
    """Three words in a row, wherever no value comes between them; fewer of a text that has no three."""
    words = [part.split() for part in PLACEHOLDER.split(text)]
    for count in (3, 2, 1):
        found = {" ".join(part[at : at + count]) for part in words for at in range(len(part) - count + 1)}
        if telling := {said for part in found if len(said := part.strip(":;,.…")) >= TELLING}:
            return telling
    return set()


def named(texts: Iterable[str]) -> set[str]:
    """The names of events in strings of tests: a word alone is a name only where nothing else is in its string."""
    found: set[str] = set()
    for text in texts:
        found |= {text} if text.isidentifier() else set(NAME.findall(text))
    return found


def test_every_event_is_expected_by_a_test():
    texts = list(strings())
    expected = "\n".join(texts)
    events = {event for in_package in logged().values() for event in in_package}
    unexpected = {
        event
        for event in events - named(texts)
        if not any(part in expected for text in messages()[event] for part in parts(text))
    }
    assert unexpected == EXCEPTIONS.keys(), "events that no test expects, or that no longer are exceptions"
