"""Import lines of Celery, rewritten: the same names are bound, and nothing else in the file changes."""

from __future__ import annotations

import ast
import random
from importlib import import_module

import pytest

from beatd.importers.celery_imports import _MODULES, find_imports, read_source, rewritten, target_of


def new(text: str) -> str:
    return rewritten(text, find_imports(text, ast.parse(text)).edits)


@pytest.mark.parametrize(
    ("old", "wanted"),
    [
        ("from celery import Celery\n", "from beatd import App as Celery\n"),
        ("from celery import Celery as C\n", "from beatd import App as C\n"),
        ("from celery import shared_task, states", "from beatd import shared_task, states"),
        ("from celery.schedules import crontab  # x\r\n", "from beatd import crontab  # x\r\n"),
        ("try:\n  from celery.canvas import chain\nfinally: a", "try:\n  from beatd.canvas import chain\nfinally: a"),
        ("if 1:\n\tfrom celery.signals import worker_ready\n", "if 1:\n\tfrom beatd.signals import worker_ready\n"),
        ("from celery import (\n    chain,\n    group as g,\n)\nx\n", "from beatd import chain, group as g\nx\n"),
        ("from celery import chain, bootsteps\n", "from beatd import chain\nfrom celery import bootsteps\n"),
        (
            "from kombu.exceptions import OperationalError, KombuError\n",
            "from beatd.exceptions import OperationalError\nfrom kombu.exceptions import KombuError\n",
        ),
        ("'ä'; x = 'ä'\nfrom celery import uuid\n", "'ä'; x = 'ä'\nfrom beatd import uuid\n"),
        ("from celery import current_app \\\n    , uuid\n", "from beatd import current_app, uuid\n"),
        ("import celery  # x\nclass A(celery.Task): ...", "import beatd as celery  # x\nclass A(celery.Task): ..."),
        ("if 1:\n  import celery as c\nc.signals.task_failure", "if 1:\n  import beatd as c\nc.signals.task_failure"),
    ],
)  # fmt: skip
def test_rewritten(old, wanted):
    assert new(old) == wanted


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("from celery import chain; x = 1\n", "more than one statement in the line"),
        ("x = 1; from celery import chain\n", "more than one statement in the line"),
        ("from celery import (\n    chain,  # a\n    group,\n)\n", "comments between the names"),
        ("import celery\n", "import celery: import the names"),
        ("import celery\napp = celery.Celery()\n", "import celery: import the names"),
        ("import celery\ncelery.signals.nothing\ncelery.Task\n", "import celery: import the names"),
        ("import celery\nmodules = [celery]\ncelery.Task\n", "import celery: import the names"),
        ("import os, celery\ncelery.Task\n", "import celery: import the names"),
        ("import celery.result as r\n", "import celery.result: import the names"),
    ],
)
def test_left_alone_and_told(text, reason):
    found = find_imports(text, ast.parse(text))
    assert (found.edits, new(text)) == ((), text)
    assert found.by_hand[0][1].startswith(reason)


@pytest.mark.parametrize(
    "text", ["from .celery import app\n", "from kombu import Queue\n", "from celeryx import chain\n"]
)
def test_no_import_of_celery(text):
    assert find_imports(text, ast.parse(text)) == ((), (), ())


def test_all_targets_exist():
    unknown = set()
    for module in _MODULES:
        try:
            names = dir(import_module(module))
        except ImportError:
            unknown.add(module)
            continue
        for name in names:
            if (target := target_of(module, name)) is not None:
                home = import_module(target[0])
                assert hasattr(home, target[1]) or import_module(f"{target[0]}.{target[1]}"), (module, name)
    assert unknown == set()
    assert target_of("celery", "bootsteps") is None
    assert target_of("celery.signals", "nothing") is None


def bound(text: str) -> set[str]:
    nodes = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ImportFrom | ast.Import)]
    return {alias.asname or alias.name for node in nodes for alias in node.names}


@pytest.mark.parametrize("seed", range(30))
def test_the_same_names_are_bound(seed):
    dice = random.Random(seed)
    names = ["Celery", "chain", "group as g", "bootsteps", "shared_task", "states", "VERSION", "signature as s", "uuid"]
    lines = []
    for number in range(20):
        chosen = dice.sample(names, dice.randint(1, 6))
        one = f"from celery import {', '.join(chosen)}"
        many = f"from celery import (\n    {(dice.choice([', ', chr(10) + '    , ']).join(chosen))},\n)"
        indent = dice.choice(["", "if x:\n    "])
        lines.append(
            f"{indent}{dice.choice([one, many])}{dice.choice(['', '  # why'])}\nvalue{number} = 'ä'  # {number}\n"
        )
    text = "".join(lines)
    after = new(text)
    assert bound(after) == bound(text)
    assert [line for line in after.splitlines() if line.startswith("value")] == [
        line for line in text.splitlines() if line.startswith("value")
    ]
    assert new(after) == after or "bootsteps" in after or "VERSION" in after


def test_encodings():
    assert read_source("# coding: latin-1\nx = 'ä'\n".encode("latin-1")) == (
        "# coding: latin-1\nx = 'ä'\n",
        "iso-8859-1",
    )
    assert read_source(b"\xef\xbb\xbfx = 1\r\n") == ("x = 1\r\n", "utf-8-sig")


@pytest.mark.parametrize("strange", ["\f", "\x85", "\u2028", "\x1c"])
def test_only_lines_of_imports_change_whatever_ends_a_line_elsewhere(strange):
    text = f"A = 1  # {strange}\nfrom celery import shared_task\nVALUE = 1\n"
    assert new(text) == f"A = 1  # {strange}\nfrom beatd import shared_task\nVALUE = 1\n"
