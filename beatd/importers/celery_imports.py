"""Import lines of Celery's names in a Python file, and the lines that import the same names from beatd.

Only import statements are changed. One that cannot be changed without changing code below it is left alone and told.
"""

from __future__ import annotations

import ast
import difflib
import io
import tokenize
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from typing import NamedTuple

_MODULES = {
    "celery": ("beatd",),
    "celery.app": ("beatd",),
    "celery.app.task": ("beatd",),
    "celery.app.base": ("beatd",),
    "celery.canvas": ("beatd.canvas",),
    "celery.exceptions": ("beatd.exceptions",),
    "celery.local": (),
    "celery.result": ("beatd.result",),
    "celery.schedules": ("beatd", "beatd.schedules"),
    "celery.signals": ("beatd.signals",),
    "celery.states": ("beatd.states",),
    "celery.utils": ("beatd",),
    "celery.utils.log": ("beatd.log",),
    "celery.worker.control": ("beatd.worker.control",),
    "celery.worker.request": ("beatd.worker.request",),
    "kombu.exceptions": ("beatd.exceptions",),
}
"""Modules of Celery, and where their names are."""
_RENAMED = {("beatd", "Celery"): "App"}
_SUBMODULES = {"states": "beatd", "signals": "beatd", "exceptions": "beatd", "canvas": "beatd", "result": "beatd"}
"""Modules that are imported as names: ``from celery import states``."""
_LEFT_ALONE = {"kombu.exceptions"}
"""Modules of which only the names that beatd has are changed; others stay, and work."""
_WIDEST = 88


class Place(NamedTuple):
    """An imported name: where it stands, and where it comes from now (``module``, ``name``); None for nowhere."""

    line: int
    column: int
    source: str
    name: str
    target: tuple[str, str] | None


class Edit(NamedTuple):
    """Lines from ``first`` to ``last`` (from 1), and the lines in their place."""

    first: int
    last: int
    old: str
    new: str


class Imports(NamedTuple):
    """Imports of Celery in one file. ``by_hand``: lines that are left alone, with the reason."""

    places: tuple[Place, ...]
    edits: tuple[Edit, ...]
    by_hand: tuple[tuple[int, str], ...]


def read_source(data: bytes) -> tuple[str, str]:
    """The text of a Python file as it is, line ends too, and its encoding. Raises SyntaxError, UnicodeDecodeError."""
    encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
    return data.decode(encoding), encoding


def find_imports(text: str, tree: ast.Module) -> Imports:
    """The imports of Celery in a file, and how they are to be written."""
    places: list[Place] = []
    edits: list[Edit] = []
    by_hand: list[tuple[int, str]] = []
    lines = _lines(text)
    for node in ast.walk(tree):
        match node:
            case ast.ImportFrom(module=str(module), level=0) if module in _MODULES or _is_celery(module):
                found = [_place(node, module, alias.name) for alias in node.names]
                places += [place for place in found if place.target or module not in _LEFT_ALONE]
                if not any(place.target for place in found):
                    continue
                if reason := _why_not(node, lines):
                    by_hand.append((node.lineno, reason))
                else:
                    edits.append(_edit(node, found, lines))
            case ast.Import():
                for alias in filter(lambda each: _is_celery(each.name), node.names):
                    bound = alias.asname or alias.name
                    whole = len(node.names) == 1 and alias.name == "celery" and _has_all_of(tree, bound)
                    target = ("beatd", bound) if whole and not _why_not(node, lines) else None
                    places.append(Place(node.lineno, node.col_offset + 1, alias.name, "", target))
                    if target:
                        edits.append(_import_edit(node, bound, lines))
                        continue
                    text = f"import {alias.name}: import the names that are used from beatd, or from its modules"
                    by_hand.append((node.lineno, text))
    ordered = sorted(places)
    return Imports(tuple(ordered), tuple(sorted(edits)), tuple(sorted(by_hand)))


def rewritten(text: str, edits: tuple[Edit, ...]) -> str:
    """The text with these edits."""
    lines = _lines(text)
    for edit in reversed(edits):
        lines[edit.first - 1 : edit.last] = [edit.new]
    return "".join(lines)


def unified_diff(name: str, old: str, new: str) -> Iterator[str]:
    """The lines of the difference, as ``patch`` and ``git apply`` take them."""
    for line in difflib.unified_diff(_lines(old), _lines(new), f"a/{name}", f"b/{name}"):
        yield line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n"


def _lines(text: str) -> list[str]:
    """Lines as Python counts them: ``str.splitlines`` also ends one at a form feed."""
    return list(io.StringIO(text, newline=""))


def _is_celery(module: str) -> bool:
    return module == "celery" or module.startswith("celery.")


def target_of(module: str, name: str) -> tuple[str, str] | None:
    """The module and name of beatd for a name of a module of Celery; None if there is none."""
    if module == "celery" and name in _SUBMODULES:
        return _SUBMODULES[name], name
    for home in _MODULES.get(module, ()):
        new = _RENAMED.get((home, name), name)
        if new in _names(home):
            return home, new
    return None


@cache
def _names(module: str) -> frozenset[str]:
    found = import_module(module)
    public = getattr(found, "__all__", None)
    return frozenset(public if public is not None else (name for name in dir(found) if not name.startswith("_")))


def _has_all_of(tree: ast.Module, bound: str) -> bool:
    """True if the module that is ``bound`` to that name is used, and beatd has all that is taken from it."""
    taken: dict[int, str] = {}  # of each module or submodule that is a node of the tree
    nodes = list(ast.walk(tree))
    taken |= {id(each.value): each.attr for each in nodes if isinstance(each, ast.Attribute)}
    uses = [each for each in nodes if isinstance(each, ast.Name) and each.id == bound]
    for use in uses:
        name = taken.get(id(use), "")
        if name in _SUBMODULES:
            whole = next(each for each in nodes if isinstance(each, ast.Attribute) and each.value is use)
            if taken.get(id(whole), "") not in _names(f"beatd.{name}"):
                return False
        elif name not in _names("beatd"):
            return False
    return bool(uses)


def _import_edit(node: ast.Import, bound: str, lines: list[str]) -> Edit:
    old = lines[node.lineno - 1]
    encoded = old.encode()
    new = encoded[: node.col_offset] + f"import beatd as {bound}".encode() + encoded[node.end_col_offset :]
    return Edit(node.lineno, node.lineno, old, new.decode())


def _place(node: ast.ImportFrom, module: str, name: str) -> Place:
    return Place(node.lineno, node.col_offset + 1, module, name, target_of(module, name))


def _why_not(node: ast.ImportFrom | ast.Import, lines: list[str]) -> str:
    """The reason why a statement cannot be replaced line by line; empty if it can."""
    first, last = lines[node.lineno - 1], lines[(node.end_lineno or node.lineno) - 1]
    if any(alias.name == "*" for alias in node.names):
        return "import *: name what is used"
    before = first.encode()[: node.col_offset].decode()
    behind = last.encode()[node.end_col_offset :].decode().strip()
    if before.strip() or (behind and not behind.startswith("#")):
        return "more than one statement in the line"
    inside = lines[node.lineno - 1 : (node.end_lineno or node.lineno) - 1]
    if any("#" in line for line in inside):
        return "comments between the names"
    return ""


def _edit(node: ast.ImportFrom, found: list[Place], lines: list[str]) -> Edit:
    last_number = node.end_lineno or node.lineno
    first, last = lines[node.lineno - 1], lines[last_number - 1]
    indent = first[: len(first) - len(first.lstrip())]
    end = "\r\n" if first.endswith("\r\n") else "\n"
    comment = last.encode()[node.end_col_offset :].decode().strip()
    groups: dict[str, list[str]] = {}
    for place, alias in zip(found, node.names, strict=True):
        home, name = place.target or (str(node.module), place.name)
        bound = alias.asname or alias.name
        groups.setdefault(home, []).append(name if name == bound else f"{name} as {bound}")
    statements = [_statement(home, names, indent, end) for home, names in sorted(groups.items())]
    if comment:
        statements[-1] += f"  {comment}"
    new = end.join(statements) + (end if last.endswith(("\n", "\r")) else "")
    return Edit(node.lineno, last_number, "".join(lines[node.lineno - 1 : last_number]), new)


def _statement(home: str, names: list[str], indent: str, end: str) -> str:
    line = f"{indent}from {home} import {', '.join(names)}"
    if len(line) <= _WIDEST:
        return line
    inside = "".join(f"{indent}    {name},{end}" for name in names)
    return f"{indent}from {home} import ({end}{inside}{indent})"
