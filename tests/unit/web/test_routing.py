"""Names of entries in paths of the page survive a browser."""

import random
from urllib.parse import unquote

import pytest

from beatd.web.routing import NameConvertor, name_in_path
from tests.browser_urls import browser_path

PIECES = ["..", ".", "/", "~", "%2F", "%2e", "?", "#", " ", "ü", "日本", "&", '"', "'", "<", "\\", ";", ":", "+", "a"]


def odd_names(count, seed=7):
    dice = random.Random(seed)
    yield from (".", "..", "../..", "~..", "~~.", "a/../b", "/..", "../", "~", "...", "%2E%2E", "a//b", "x" * 200)
    for _ in range(count):
        yield "".join(dice.choices(PIECES, k=dice.randint(1, 6)))


def test_every_name_survives_a_browser():
    seen = {}
    for name in odd_names(5_000):
        path = browser_path(f"/entries/{name_in_path(name)}/pause")
        assert path.startswith("/entries/"), name
        assert path.endswith("/pause"), name
        found = NameConvertor().convert(unquote(path.removeprefix("/entries/").removesuffix("/pause")))
        assert found == name
        assert seen.setdefault(path, name) == name


@pytest.mark.parametrize(("name", "shown"), [("a/b c", "a/b%20c"), ("..", "~.."), ("a/./b", "a/~./b"), ("a.b", "a.b")])
def test_plain_names_stay_as_they_are(name, shown):
    assert name_in_path(name) == shown
