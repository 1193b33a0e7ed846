"""What became of a composition of :mod:`tests.composed_calls`, in a form to compare."""

from __future__ import annotations

import json
import re
import uuid
from typing import Any

import redis


class Case:
    """An expression that was evaluated, and so sent, by the app of a make."""

    def __init__(self, expression: str, app: Any, package: Any, store: redis.Redis) -> None:
        self.expression = expression
        self.key = f"case-{uuid.uuid4()}"
        self._store = store
        self.raised = ""
        self.result: Any = None

        def step(number: int, does: str = "return") -> Any:
            kwargs = {"number": number, "case": self.key} | ({"does": does} if does != "return" else {})
            return app.signature("proj.step", kwargs=kwargs)

        def errback(name: str) -> Any:
            return lambda number: app.signature(f"proj.{name}", kwargs={"number": number, "case": self.key})

        names = {"s": step, "e": errback("caught"), "o": errback("caught_id")}
        names |= {name: getattr(package, name) for name in ("chain", "group", "chord")}
        try:
            self.result = eval(expression, names)
        except Exception as error:  # noqa: BLE001 - it is compared
            self.raised = type(error).__name__

    def outcome(self) -> dict[str, Any]:
        """Return the runs, the errbacks and the tree of handles; ids are the numbers of what ran under them."""
        noted = [json.loads(raw) for raw in self._store.lrange(self.key, 0, -1)]
        runs = [each for each in noted if "number" in each]
        if re.search("replace|retry|countdown|fail|ignore|reject", self.expression):
            runs = [{**each, "parent": None, "root": None} for each in runs]  # which of a header is the last is chance
        if "replace" in self.expression:
            runs = [{**each, "group": None} for each in runs]  # Celery hands the group of a replaced task on
        names: dict[str, set[str]] = {}
        for run in runs:
            names.setdefault(run["id"], set()).add(str(run["number"]))
            if run["group"]:
                names.setdefault(run["group"], set()).add(f"group of {run['number']}")
        labels = {each: ", ".join(sorted(found)) for each, found in names.items()}
        told = {
            "runs": runs,
            "caught": [each for each in noted if "number" not in each],
            "tree": tree(self.result),
            "raised": self.raised,
        }
        outcome = dict(normal(told, labels))
        for name in ("runs", "caught"):
            outcome[name] = sorted(outcome[name], key=json.dumps)
        return outcome


def tree(result: Any) -> Any:
    """The handle with the state and value of each part, its parents and children."""
    if result is None:
        return None
    if hasattr(result, "results"):
        return {"group": [tree(each) for each in result.results], "id": result.id, "parent": tree(result.parent)}
    state, value = result.state, result.result
    return {
        "id": result.id,
        "state": state,
        "value": type(value).__name__ if isinstance(value, BaseException) else value,
        "children": [tree(each) for each in result.children or ()] if state == "SUCCESS" else None,
        "parent": tree(result.parent),
    }


def normal(value: Any, labels: dict[str, str]) -> Any:
    """The value with ids as labels."""
    if isinstance(value, dict):
        return {name: normal(each, labels) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [normal(each, labels) for each in value]
    if isinstance(value, str) and len(value) == 36 and value.count("-") == 4:
        return labels.get(value, "another")
    return value


def expected(theirs: dict[str, Any], ours: dict[str, Any]) -> dict[str, Any]:
    """The outcome of Celery's worker, but for what beatd's is documented to do otherwise.

    What will never run because of a failure is a failure, not PENDING for ever, and its errbacks are called.
    """
    more = [
        *ours["caught"],
        *({**each, "failed": None} for each in ours["caught"]),
    ]  # of a group Celery tells no arguments
    caught = ours["caught"] if all(each in more for each in theirs["caught"]) else theirs["caught"]
    return {**theirs, "caught": caught, "tree": _expected(theirs["tree"], ours["tree"])}


def _expected(theirs: Any, ours: Any) -> Any:
    if isinstance(theirs, dict) and isinstance(ours, dict):
        is_failed = theirs.get("state") == "PENDING" and ours.get("state") == "FAILURE"
        if is_failed or theirs.get("value") == "NotRegistered":  # of a chord that is a body
            theirs = {**theirs, "state": ours.get("state"), "value": ours.get("value")}
        return {name: _expected(each, ours.get(name)) for name, each in theirs.items()}
    if isinstance(theirs, list) and isinstance(ours, list) and len(theirs) == len(ours):
        return [_expected(*each) for each in zip(theirs, ours, strict=True)]
    return theirs
