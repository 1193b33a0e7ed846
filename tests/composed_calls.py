"""Random compositions as Python expressions, which both makes evaluate and send.

Tasks fail, retry, are replaced and send others. Names in an expression: ``s(number, does)`` a step, ``e(number)`` and
``o(number)`` errbacks of both kinds, and ``chain``, ``group``, ``chord``.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import count

DOES = (
    *["return"] * 10,
    *["fail", "fail", "retry", "retry in vain", "ignore", "reject"],
    *["replace", "replace fail", "replace chain", "replace group", "replace chord", "replace twice"],
    *["child", "group child", "chain child", "chord child"],
)


class Writer:
    """Writes expressions; ``numbers`` of tasks are unique in one expression."""

    def __init__(self, chance: random.Random, does: tuple[str, ...] = DOES) -> None:
        self._chance = chance
        self._does = does
        self._numbers = count(1)

    def _step(self, does: str | None = None) -> str:
        does = does or self._chance.choice(self._does)
        return f"s({next(self._numbers)})" if does == "return" else f"s({next(self._numbers)}, {does!r})"

    def _errback(self) -> str:
        return f"{self._chance.choice('eeo')}({next(self._numbers)})"

    def _task(self) -> str:
        text = self._step()
        if self._chance.random() < 0.25:
            text += self._chance.choice(
                [
                    lambda: f".on_error({self._errback()})",
                    lambda: f".set(link={self._step('return')})",
                    lambda: ".set(immutable=True)",
                    lambda: ".set(countdown=0.05)",
                    lambda: ".set(priority=3)",
                    lambda: ".set(expires=60)",
                    lambda: ".set(headers={'tenant': 'a'})",
                    lambda: ".stamp(a='b')",
                    lambda: ".clone()",
                    lambda: f".clone(({next(self._numbers)},))",
                    lambda: f".clone(kwargs={{'x': {next(self._numbers)}}})",
                ]
            )()
        return text

    def composition(self, depth: int) -> str:
        """Return a composition, at most so deep."""
        if not depth:
            return self._task()
        kind = self._chance.choice(["task", "chain", "or", "or", "group", "chord", "merged"])

        def parts(few: int = 1, most: int = 3) -> str:
            return ", ".join(self.composition(depth - 1) for _ in range(self._chance.randint(few, most)))

        if kind == "task":
            return self._task()
        text = {
            "chain": lambda: f"chain({parts(2)})",
            "or": lambda: (
                "(" + " | ".join(self.composition(depth - 1) for _ in range(self._chance.randint(2, 3))) + ")"
            ),
            "group": lambda: f"group({parts()})",
            "chord": lambda: f"chord([{parts()}], {self.composition(depth - 1 if self._chance.random() < 0.3 else 0)})",
            "merged": lambda: f"(group({parts(2)}) | {self.composition(depth - 1)})",
        }[kind]()
        if self._chance.random() < 0.15:
            text += self._chance.choice(
                [
                    lambda: f".on_error({self._errback()})",
                    lambda: ".clone()",
                ]
            )()
        return text

    def call(self, depth: int) -> str:
        """Return an expression that sends a composition."""
        options = self._chance.choice(
            [
                *["()"] * 8,
                "(args=(0,))",
                "(countdown=0.05)",
                f"(link={self._step('return')})",
                f"(link_error={self._errback()})",
                "(priority=5)",
                "(headers={'tenant': 'b'})",
            ]
        )
        return f"{self.composition(depth)}.apply_async{options}"


def calls(seed: int, number: int) -> Iterator[str]:
    """Yield so many expressions; the same seed makes the same."""
    chance = random.Random(seed)
    for _ in range(number):
        yield Writer(chance).call(chance.choice([1, 1, 2, 2, 3]))
