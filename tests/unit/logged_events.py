"""The events that beatd logs, found in its syntax trees: every ``{"event": ...}``, whatever its value is made of.

With each event come its fields, and the texts of its records.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import beatd
from beatd.exceptions import StoreRefused, StoreUnavailable

PACKAGE = Path(beatd.__file__).parent


class Module:
    """The events that one module logs, found in its syntax tree."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.nodes = list(ast.walk(ast.parse(path.read_text())))
        inside = path.relative_to(PACKAGE).parts[:-1]
        self.package = ".".join(["beatd", *inside[:1]])

    def events(self) -> Iterator[tuple[str, set[str]]]:
        """Each event with the fields that are beside its name."""
        for node in self.nodes:
            keys = [getattr(key, "value", None) for key in node.keys] if isinstance(node, ast.Dict) else []
            if "event" in keys:
                for name in self.texts(node.values[keys.index("event")]):
                    yield name, {key for key in keys if key and key != "event"}

    def messages(self) -> Iterator[tuple[str, set[str]]]:
        """Each event with the texts of the call that logs it, or of the function around it if it is made before."""
        scopes = [node for node in self.nodes if isinstance(node, ast.Call | ast.FunctionDef) and _sentences(node)]
        for node in self.nodes:
            keys = [getattr(key, "value", None) for key in node.keys] if isinstance(node, ast.Dict) else []
            if "event" in keys:
                around = [scope for scope in scopes if any(inner is node for inner in ast.walk(scope))]
                closest = min(around, key=lambda scope: len(list(ast.walk(scope))), default=None)
                for name in self.texts(node.values[keys.index("event")]):
                    yield name, _sentences(closest) if closest else set()

    def texts(self, node: ast.AST) -> set[str]:
        """The texts that an expression may stand for."""
        match node:
            case ast.Constant():
                return {node.value} if node.value else set()
            case ast.IfExp():
                return self.texts(node.body) | self.texts(node.orelse)
            case ast.Name(id=name):
                return {text for value in self.values_of(name) for text in self.texts(value)}
            case ast.JoinedStr(values=[ast.FormattedValue(value=value), ast.Constant(value=tail)]):
                return {text + tail for text in self.texts(value)}
            case ast.Call(func=ast.Attribute(value=ast.Name(id=table), attr="get"), args=[_, default]):
                (known,) = self.values_of(table)
                return {text for value in (*known.values, default) for text in self.texts(value)}
            case ast.Attribute(attr="word"):  # of an error of the state store
                return {StoreUnavailable.word, StoreRefused.word}
        raise AssertionError(f"{self.path}:{node.lineno}: what event is this? {ast.unparse(node)}")

    def values_of(self, name: str) -> Iterator[ast.AST]:
        """What is assigned to a name, given as an argument of that name, or yielded to a loop over it."""
        for node in self.nodes:
            match node:
                case ast.Assign(targets=[ast.Name(id=target)], value=value) if target == name:
                    yield value
                case ast.FunctionDef(args=ast.arguments(args=[_, ast.arg(arg=first), *_])) if first == name:
                    yield from (call.args[0] for call in self.nodes if _calls(call, node.name))
                case ast.For(target=ast.Tuple(elts=[ast.Name(id=first), *_]), iter=ast.Call(func=ast.Name(id=made))):
                    if first == name:
                        maker = next(each for each in self.nodes if getattr(each, "name", None) == made)
                        yield from (each.value.elts[0] for each in ast.walk(maker) if isinstance(each, ast.Yield))


def _sentences(node: ast.AST) -> set[str]:
    """The strings in an expression or a function that have a space in them, but no docstring."""
    docstrings = {id(one.value) for one in getattr(node, "body", []) if isinstance(one, ast.Expr)}
    constants = [one for one in ast.walk(node) if isinstance(one, ast.Constant) and id(one) not in docstrings]
    return {one.value for one in constants if isinstance(one.value, str) and " " in one.value}


def _calls(node: ast.AST, method: str) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == method


@cache
def logged() -> dict[str, dict[str, set[str]]]:
    """Package → event → fields."""
    found: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for path in PACKAGE.rglob("*.py"):
        module = Module(path)
        for name, fields in module.events():
            found[module.package][name] |= fields
    return found


@cache
def messages() -> dict[str, set[str]]:
    """Event → the texts of its records, with ``%s`` and the like in them."""
    found: dict[str, set[str]] = defaultdict(set)
    for path in PACKAGE.rglob("*.py"):
        for name, texts in Module(path).messages():
            found[name] |= texts
    return found
