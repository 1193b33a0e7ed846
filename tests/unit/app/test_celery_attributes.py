"""Public names of Celery's classes and modules: beatd has them, or docs/celery.md lists them with a reason."""

from __future__ import annotations

import importlib
import re
import types
from pathlib import Path

import celery
import celery.app.task
import celery.canvas
import celery.result
import pytest

import beatd
import beatd.canvas
import beatd.result
from beatd.app.context import Context

DOCS = Path(__file__).parents[3] / "docs" / "celery.md"
MODULES = {
    "celery": "beatd",
    "celery.canvas": "beatd.canvas",
    "celery.exceptions": "beatd.exceptions",
    "celery.result": "beatd.result",
    "celery.schedules": "beatd.schedules",
    "celery.signals": "beatd.signals",
    "celery.states": "beatd.states",
    "celery.utils.log": "beatd.log",
}


def objects():
    """The objects of both makes, by the names that they have in the document."""
    theirs = celery.Celery("x", broker="memory://", backend="cache+memory://", set_as_current=False)
    ours = beatd.App("x", set_as_current=False)
    found = {
        "app": (theirs, ours),
        "task": (theirs.task(name="a")(documented), ours.task(name="a")(documented)),
        "self.request": (celery.app.task.Context(), Context()),
        "app.amqp": (theirs.amqp, ours.amqp),
        "app.backend": (theirs.backend, ours.backend),
        "app.control": (theirs.control, ours.control),
        "app.control.inspect()": (theirs.control.inspect(), ours.control.inspect()),
        "AsyncResult": (theirs.AsyncResult("a"), ours.AsyncResult("a")),
        "EagerResult": (celery.result.EagerResult("a", 1, "SUCCESS"), beatd.result.EagerResult("a", 1, "SUCCESS")),
        "ResultSet": (theirs.ResultSet([]), ours.ResultSet([])),
        "GroupResult": (theirs.GroupResult("a", []), ours.GroupResult("a", [])),
    }
    for name in ("chain", "chord", "chunks", "group", "xmap", "xstarmap", "Signature", "StampingVisitor"):
        found[name] = getattr(celery.canvas, name), getattr(beatd.canvas, name)
    return found


def documented():
    """What the document lists: ``| `object` | `name`, `name` | reason |``."""
    text = DOCS.read_text().partition("Names of Celery's")[2].partition("\n### ")[0]
    rows = re.findall(r"^\| (`.*`) \| (.*) \| (.+) \|$", text, re.MULTILINE)
    listed: dict[str, set[str]] = {}
    for places, names, _reason in rows:
        for place in re.findall(r"`([^`]+)`", places):
            listed.setdefault(place, set()).update(re.findall(r"`([^`]+)`", names))
    return listed


def names(thing):
    return {name for name in dir(thing) if not name.startswith("_")}


def own_names(module):
    """The public names that a module defines, and none that it imports."""
    listed = {name for name in getattr(module, "__all__", ()) if not name.startswith("_")}
    return {name for name in listed if not isinstance(getattr(module, name), types.ModuleType)}


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::PendingDeprecationWarning")
def test_what_is_missing_is_documented():
    missing = {}
    for place, (theirs, ours) in objects().items():
        missing[place] = {name for name in names(theirs) - names(ours) if not hasattr(ours, name)}
    for theirs, ours in MODULES.items():
        here = importlib.import_module(ours)
        missing[theirs] = {name for name in own_names(importlib.import_module(theirs)) if not hasattr(here, name)}
    shown = {place: sorted(found) for place, found in missing.items() if found}
    assert shown == {place: sorted(found) for place, found in documented().items()}
