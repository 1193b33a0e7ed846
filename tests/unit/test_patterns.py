"""Every regular expression of the package takes time in proportion to the text."""

import ast
import importlib
import pkgutil
import re
import string
import time
from pathlib import Path

import pytest

import beatd
from beatd.message.protocol import shown
from beatd.redaction import redacted_text

LONG = 8_000
"""Characters of the longer text; the other has half of it."""
MATTERS_S = 0.004
"""Below this the clock says more about the machine than about the pattern."""
_FUNCTIONS = {"compile", "match", "search", "sub", "fullmatch", "findall", "finditer", "split"}


def patterns():
    """By text: those of modules, and those that stand in calls."""
    found = {}
    for module in pkgutil.walk_packages(beatd.__path__, "beatd."):
        if module.name.endswith("__main__") or ".contrib" in module.name:
            continue
        loaded = importlib.import_module(module.name)
        source = Path(loaded.__file__).read_text()
        for name, value in vars(loaded).items():
            if isinstance(value, re.Pattern) and isinstance(value.pattern, str):
                searched = bool(re.search(rf"\b{name}\.(?:search|sub|finditer|findall|split)\(", source))
                found[(value.pattern, value.flags)] = (value, searched)
    for path in Path(beatd.__path__[0]).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in _FUNCTIONS
                and isinstance(node.func.value, ast.Name)
                and node.func.value.id == "re"
                and node.args
                and isinstance(node.args[0], ast.Constant)
            ):
                text = node.args[0].value
                compiled = re.compile(text.decode() if isinstance(text, bytes) else text)
                searched = node.func.attr in {"search", "sub", "findall", "finditer", "split"}
                found.setdefault((compiled.pattern, compiled.flags), (compiled, searched))
    return list(found.values())


def attacks(pattern):
    """Texts that repeat what the pattern itself is made of, and do not match at their end."""
    own = [char for char in dict.fromkeys(pattern.pattern) if char in string.punctuation + " " and char not in "^$"]
    pieces = ["a", "1", " ", "a:", "'a", '"a":', "://", "a=", "\\", "A-", "1.", "a.", "\t", "%", "'", '"', "[", "#"]
    return [piece * LONG for piece in dict.fromkeys([*pieces, *own, *(f"a{char}" for char in own)])]


def seconds(pattern, text, searched):
    best = float("inf")
    for _ in range(2):
        begin = time.process_time()
        if searched:
            for _ in pattern.finditer(text):
                pass
        pattern.fullmatch(text)
        if time.process_time() - begin < MATTERS_S:
            return time.process_time() - begin
        best = min(best, time.process_time() - begin)
    return best


def grows_too_fast(pattern, searched=True):
    """The text with which twice the length takes much more than twice the time, at a length that matters."""
    for attack in attacks(pattern):
        long, half = attack[:LONG] + "\x00", attack[: LONG // 2] + "\x00"
        if (took := seconds(pattern, long, searched)) > MATTERS_S and took > 3 * (
            less := seconds(pattern, half, searched)
        ):
            return repr(attack[:10]), less, took
    return None


def test_time_grows_with_the_length():
    found = patterns()
    assert len(found) > 40
    slow = {}
    for pattern, searched in found:
        if grows_too_fast(pattern, searched) and (again := grows_too_fast(pattern, searched)):
            slow[pattern.pattern] = again
    assert not slow


def test_the_measure_finds_a_quadratic_pattern():
    assert grows_too_fast(re.compile(r"(\w[\w+.-]*://[^\s/:@'\"]*:)[^\s/@'\"]+(@)")) is not None


def test_what_is_shown_is_cut_before_it_is_redacted():
    best = float("inf")
    for _ in range(5):
        begin = time.process_time()
        text = shown("beatd.http", {"url": "http://u:tail9@h/?token=tail9", "body": "a" * 400_000})
        best = min(best, time.process_time() - begin)
    assert "tail9" not in text
    assert best < 0.005


@pytest.mark.parametrize(
    "text",
    [
        "see redis://user:tail9@host/0 and more",
        "{'password': 'tail9', 'n': 1}",
        '{"token": "tail9"}',
        "GET http://h/path?a=1&token=tail9&b=2",
        "password=tail9",
    ],
)
def test_no_cut_leaves_a_part_of_a_secret(text):
    for length in range(len(text) + 1):
        said = redacted_text(text, at_most=length)
        assert not any(part in said for part in ("ta", "il", "l9")), (length, said)
