"""Random programs of a client: an app with settings, tasks with options, and calls, as source text.

The text imports ``celery``; :mod:`tests.call_makes` runs it with the imports of either make, and says what each call
did: its result, or the type of the exception, and the messages on the broker.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import NamedTuple

from tests.call_options import (
    APPLY,
    ARGUMENTS,
    AUTORETRY_OPTIONS,
    BODIES,
    BOUND,
    CALL_OPTIONS,
    HEAD,
    INVALID,
    OF_NO_STEP,
    OF_ONE,
    REQUEST,
    RETRY,
    SETTINGS,
    TASK_OPTIONS,
)


class Program(NamedTuple):
    """A program: its text, and the calls that follow, which are expressions."""

    text: str
    calls: list[str]


def program(seed: int, calls: int = 12) -> Program:
    """Return the program of a seed."""
    chance = random.Random(seed)
    return Program(HEAD + _settings(chance) + _tasks(chance), [_call(chance) for _ in range(calls)])


def _some(chance: random.Random, options: dict[str, Sequence[str]], most: int) -> dict[str, str]:
    """Choose some options and a value of each; the first values are more frequent."""
    names = chance.sample(sorted(options), min(len(options), chance.choice([0, 1, 1, 2, most])))
    return {name: chance.choice([*options[name][:2], *options[name]]) for name in names}


def _words(options: dict[str, str]) -> str:
    return "".join(f", {name}={value}" for name, value in options.items())


def _settings(chance: random.Random) -> str:
    chosen = _some(chance, SETTINGS, 6)
    if chance.random() < 0.15:
        chosen["task_always_eager"] = "True"
    return "".join(f"app.conf.{name} = {value}\n" for name, value in chosen.items())


def _tasks(chance: random.Random) -> str:
    text = ""
    for name, body in BODIES.items():
        options = _some(chance, TASK_OPTIONS, 4)
        if name == "automatic":
            options = {"autoretry_for": "(ValueError,)", "retry_jitter": "False", **options}
            options |= {**_some(chance, AUTORETRY_OPTIONS, 3), "retry_jitter": "False"}
        if name in BOUND:
            options["bind"] = "True"
        options["name"] = f"'proj.{name}'"
        decorator = chance.choice(["app.task", "app.task", "shared_task"])
        text += f"\n\n@{decorator}({_words(options)[2:]})\n{body}\n"
    return text


def _arguments(chance: random.Random, name: str) -> str:
    return chance.choice(INVALID) if chance.random() < 0.04 else chance.choice(ARGUMENTS[name])


def _call_options(chance: random.Random, most: int = 4, without: str = "") -> str:
    chosen = _some(chance, CALL_OPTIONS, most)
    return _words({name: value for name, value in chosen.items() if name not in without.split()})


def _signature(chance: random.Random) -> str:
    name = chance.choice(["plain", "many", "many", "bound", "failing"])
    text = f"{name}.{chance.choice(['s', 's', 'si'])}({chance.choice(ARGUMENTS[name])})"
    if name == "plain" and chance.random() < 0.5:
        text = "plain.s()"
    for _ in range(chance.choice([0, 0, 0, 1, 2])):
        text += chance.choice(
            [
                f".set({_call_options(chance, 2, OF_NO_STEP)[2:]})",
                ".on_error(many.s())",
                ".clone()",
                ".clone((9,))",
                ".clone(kwargs={'z': 9})",
                ".set(immutable=True)",
                f".clone((){_call_options(chance, 1, OF_NO_STEP)})",
            ]
        )
    return text


def composition(chance: random.Random, depth: int) -> str:
    """Return a composition, at most so deep."""
    if depth == 0:
        return _signature(chance)

    def parts(*, without_groups: bool = False) -> str:
        found: list[str] = []
        for _ in range(chance.randint(1, 3)):
            text = composition(chance, depth - 1)
            while without_groups and text.startswith(("group(", "plain.chunks(")):  # Celery reverses their members
                text = composition(chance, depth - 1)
            found.append(text)
        return ", ".join(found)

    kind = chance.choice(["task", "chain", "or", "group", "chord", "chord_call", "chunks", "map", "starmap", "merged"])
    text = {
        "task": lambda: _signature(chance),
        "chain": lambda: f"chain({_signature(chance)}, {parts()})",
        "or": lambda: f"({composition(chance, depth - 1)} | {composition(chance, depth - 1)})",
        "group": lambda: chance.choice(["group({})", "group([{}])"]).format(parts(without_groups=True)),
        "chord": lambda: f"chord([{parts(without_groups=True)}], {composition(chance, depth - 1)})",
        "chord_call": lambda: f"chord([{parts(without_groups=True)}], body=many.s())",
        "chunks": lambda: "plain.chunks([(1, 2), (3, 4), (5, 6)], 2).group()",
        "map": lambda: "many.map([1, 2])",
        "starmap": lambda: "plain.starmap([(1, 2), (3, 4)])",
        "merged": lambda: f"group({parts(without_groups=True)}) | {composition(chance, depth - 1)}",
    }[kind]()
    if kind == "merged":
        text = f"({text})"
    if chance.random() < 0.15:
        text += chance.choice(
            [
                f".set({_call_options(chance, 2, OF_ONE)[2:]})",
                ".clone()",
            ]
        )
    return text


def _request(chance: random.Random, without: str = "") -> str:
    chosen = {name: value for name, value in _some(chance, REQUEST, 5).items() if name not in without.split()}
    return "{" + ", ".join(f"{name!r}: {value}" for name, value in chosen.items()) + "}"


def _call(chance: random.Random) -> str:
    """Return one call, as an expression."""
    name = chance.choice(sorted(BODIES))
    arguments = _arguments(chance, name)
    deep = chance.choice([1, 1, 2, 2, 3])
    further = chance.choice(["", "", "", "(1,)", "(1, 2)", "None, None", *(["(), {'z': 1}"] if deep == 1 else [])])

    forms: dict[str, Callable[[], str]] = {
        "delay": lambda: f"{name}.delay({arguments})",
        "apply_async": lambda: f"{name}.apply_async(*given({arguments}){_call_options(chance)})",
        "send_task": lambda: f"app.send_task('proj.{name}', *given({arguments}){_call_options(chance)})",
        "send_unknown": lambda: f"app.send_task('elsewhere.task', *given({arguments}){_call_options(chance)})",
        "signature": lambda: f"{_signature(chance)}.apply_async({further}{_call_options(chance, 2)})".replace(
            "(, ", "("
        ),
        "named": lambda: f"signature('proj.{name}', args=(1,), app=app{_call_options(chance, 2)}).apply_async()",
        "built": lambda: composition(chance, deep),
        "sent": lambda: f"{composition(chance, deep)}.apply_async({further}{_call_options(chance, 1, OF_ONE)})".replace(
            "(, ", "("
        ),
        "errors": lambda: f"{composition(chance, 1)}.on_error(many.s('error')).apply_async()",
        "delayed": lambda: f"{composition(chance, deep)}.delay({chance.choice(['', '', '1'])})",
        "frozen": lambda: f"{composition(chance, deep)}.freeze()",
        "stamped": lambda: f"stamped({composition(chance, deep)}).apply_async()",
        "apply": lambda: f"{name}.apply(*given({arguments}){_words(_some(chance, APPLY, 2))})",
        "eager": lambda: f"{composition(chance, deep)}.apply({further})",
        "retry": lambda: (
            f"inside(again, {_request(chance)}, lambda: again.retry({_words(_some(chance, RETRY, 3))[2:]}))"
        ),
        "child": lambda: (
            f"inside(bound, {_request(chance)}, "
            f"lambda: {name}.apply_async(*given({arguments}){_call_options(chance, 1)}))"
        ),
        "children": lambda: f"inside(bound, {_request(chance)}, lambda: {composition(chance, deep)}.apply_async())",
        "replace": lambda: f"inside(bound, {_request(chance)}, lambda: bound.replace({_signature(chance)}))",
        "replace_by_several": lambda: (
            f"inside(bound, {_request(chance, 'chain')}, lambda: bound.replace({composition(chance, 1)}))"
        ),
        "add_to_chord": lambda: (
            f"inside(bound, {_request(chance)}, lambda: bound.add_to_chord({_signature(chance)}, "
            f"lazy={chance.choice(['True', 'False'])}))"
        ),
        "failed": lambda: f"inside(automatic, {_request(chance)}, lambda: automatic.run(1))",
        "attributes": lambda: f"attributes({name})",
    }
    return forms[chance.choice(sorted(forms))]()
