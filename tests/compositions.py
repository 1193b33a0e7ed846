"""Random compositions, as recipes of which both makes build theirs."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import reduce
from operator import or_
from typing import Any

Recipe = tuple[Any, ...]
"""``("task", number)``, or a kind of composition with its parts; of a chord the last part is the body."""


def recipes(seed: int, count: int, *, empty: bool = True) -> list[Recipe]:
    """Random recipes; with ``empty`` there are chains and groups without parts in them."""
    chance = random.Random(seed)
    number = iter(range(10**9))

    def recipe(depth: int) -> Recipe:
        kinds = ["task"] * 3 + (["chain", "or", "or", "group", "chord"] if depth else [])
        kind = chance.choice(kinds)
        if kind == "task":
            return "task", next(number)
        if empty and kind in {"chain", "group"} and chance.random() < 0.2:
            return (kind,)
        parts = [recipe(depth - 1) for _ in range(chance.randint(2 if kind == "or" else 1, 3))]
        if kind in {"chord", "group"}:  # as the only difference Celery reverses the members of a group in a group
            parts = [part if part[0] != "group" else ("chain", part, ("task", 0)) for part in parts]
        return (kind, *parts, recipe(0)) if kind == "chord" else (kind, *parts)

    return [recipe(chance.choice([1, 2, 2, 3])) for _ in range(count)]


def build(recipe: Recipe, package: Any, app: Any, task: Callable[..., Any]) -> Any:
    """Build the composition with ``package``, which has chain, group and chord; ``task`` makes signatures."""
    kind, *parts = recipe
    if kind == "task":
        return task(*parts)
    parts = [build(part, package, app, task) for part in parts]
    if kind == "or":
        return reduce(or_, parts)
    if kind == "chord":
        return package.chord(parts[:-1], parts[-1], app=app)
    if kind == "group":
        return package.group(parts, app=app)
    return package.chain(*parts) if parts else package.chain(app=app)
