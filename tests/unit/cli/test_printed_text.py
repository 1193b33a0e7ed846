"""Text that is not of the program itself is printed by the functions that escape control characters."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[3] / "beatd"

PRINTERS = ROOT / "cli" / "output.py"
"""The module whose functions print: they escape what they are given."""

ALLOWED = {
    ("cli/errors.py", "_print_error"): "escaped; the module of output imports this one",
    ("cli/errors.py", "_print_document"): "JSON in ASCII; the module of output imports this one",
    ("cli/__init__.py", "_version"): "the number of the version alone",
    ("cli/tutorial.py", "_wait"): "the words are of that file",
    ("cli/worker.py", "_show_banner"): "each line of the banner is escaped",
    ("contrib/django/management/commands/beatd.py", "run_from_argv"): "escaped",
    ("contrib/django/management/commands/beatd_worker.py", "run_from_argv"): "escaped",
    ("log_format.py", "handleError"): "the system's own text of an error",
    ("worker/control/inspect_commands.py", "memdump"): "into a text, which is escaped where it is printed",
}
"""By file and function: why it may print text that is not constant."""


def is_printing(call: ast.Call) -> bool:
    match call.func:
        case ast.Name(id="print"):
            return True
        case ast.Attribute(value=ast.Name(id="click"), attr="echo" | "secho" | "echo_via_pager" | "prompt" | "confirm"):
            return True
        case ast.Attribute(value=ast.Name(id="console"), attr="print"):
            return True
        case ast.Attribute(value=ast.Name(id=name) | ast.Attribute(attr=name), attr="write" | "writelines"):
            return name.strip("_") in {"stdout", "stderr"}
    return False


def is_constant(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) or (
        isinstance(node, ast.IfExp) and is_constant(node.body) and is_constant(node.orelse)
    )


def printed(path: Path) -> Iterator[tuple[tuple[str, str], int]]:
    """Yield file, function and line of all calls that print text which is not constant."""
    functions = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)]
    for function in functions:
        for node in ast.walk(function):
            if isinstance(node, ast.Call) and is_printing(node) and not all(map(is_constant, node.args)):
                yield (path.relative_to(ROOT).as_posix(), function.name), node.lineno


def test_only_the_functions_that_escape_print_text_from_elsewhere():
    found = {place: line for path in sorted(ROOT.rglob("*.py")) if path != PRINTERS for place, line in printed(path)}
    assert {place: line for place, line in found.items() if place not in ALLOWED} == {}, "use beatd.cli.output"
    assert sorted(ALLOWED.keys() - found.keys()) == [], "these print nothing"
