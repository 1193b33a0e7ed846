"""Arguments of the built-in tasks, checked by name and type without importing the worker.

The parameters are those of ``beatd.worker.builtin``, which a test compares.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from operator import attrgetter
from typing import Any, NamedTuple

import msgspec

from beatd.config.errors import near
from beatd.config.values import shown
from beatd.exceptions import Fault, MessageError
from beatd.message.json_codec import dumps, loads
from beatd.model import Entry
from beatd.planning.lint import entry_warning

Number = int | float
Words = str | list[str]


def _command(
    *argv: Words,
    shell: bool = False,
    timeout: Number | None = None,
    kill_after: Number = 0,
    cwd: str | None = None,
    env: dict[str, str | Number] | None = None,
    inherit_env: bool | list[str] = True,
    user: str | None = None,
    check: bool = True,
    expect: int | list[int] = 0,
    log: bool = True,
) -> None: ...


def _http(
    url: str,
    method: str | None = None,
    *,
    headers: dict[str, str] | None = None,
    body: str | None = None,
    json: Any = None,
    expect: int | list[int] | None = None,
    expect_json: Any = None,
    timeout: Number = 0,
    retries: int = 0,
    backoff: Number = 0,
    redirects: bool | int = True,
) -> None: ...


class BuiltinTask(NamedTuple):
    """A built-in task: its signature, and what a call without positional arguments lacks."""

    signature: inspect.Signature
    needs: str


BUILTIN_TASKS: Mapping[str, BuiltinTask] = {
    "beatd.command": BuiltinTask(
        inspect.signature(_command, eval_str=True), 'the program is missing, such as args = ["rsync", "-a", "/srv"]'
    ),
    "beatd.http": BuiltinTask(
        inspect.signature(_http, eval_str=True), 'url is missing, such as args = ["https://example.com/"]'
    ),
}


def builtin_faults(entries: Sequence[Entry]) -> Iterator[Fault]:
    """Yield what is wrong with the arguments of entries that run built-in tasks."""
    tasks = set(map(attrgetter("task"), entries))
    suspects = {task for task in tasks if task in BUILTIN_TASKS or task.startswith("beatd.")}
    for entry in entries if suspects else ():
        if (task := BUILTIN_TASKS.get(entry.task)) is not None:
            for key, message in _call_faults(task, entry):
                yield entry_warning(entry, key, message)
        elif entry.task.startswith("beatd."):
            yield entry_warning(
                entry, "task", f'there is no built-in task "{entry.task}"{near(entry.task, BUILTIN_TASKS)}'
            )


def _call_faults(task: BuiltinTask, entry: Entry) -> Iterator[tuple[str, str]]:
    try:
        args, kwargs = loads(dumps([list(entry.args), dict(entry.kwargs)]))
    except MessageError:  # said where its message is made
        return
    parameters = task.signature.parameters
    named = [name for name, one in parameters.items() if one.kind is not inspect.Parameter.VAR_POSITIONAL]
    for name in kwargs.keys() - named:
        yield "kwargs", f"{entry.task} has no argument {shown(name)}{near(name, named)}"
    known = {name: value for name, value in kwargs.items() if name in named}
    if not args and "url" not in known:
        yield "args", task.needs
        return
    try:
        bound = task.signature.bind(*args, **known)
    except TypeError as error:
        yield "args", f"{entry.task}: {error}"
        return
    for name, value in bound.arguments.items():
        kind = parameters[name].annotation
        is_list = parameters[name].kind is inspect.Parameter.VAR_POSITIONAL
        for each in value if is_list else [value]:
            if wrong := _wrong(each, kind):
                yield "kwargs" if name in kwargs else "args", f"{name} of {entry.task}: {wrong}"


def _wrong(value: Any, kind: Any) -> str:
    """Say what is expected instead of a value; empty if it is of that type."""
    if kind is Any:
        return ""
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError:
        return f"expected {_expected(kind)}, got {_KINDS.get(type(value), 'another value')}"  # it may be a secret
    return ""


_KINDS: Mapping[Any, str] = {bool: "a boolean", str: "a string", int: "a number", float: "a number"}
_KINDS = {**_KINDS, list: "a list", dict: "a table", list[int]: "a list of numbers", list[str]: "a list of strings"}


def _expected(kind: Any) -> str:
    parts: Sequence[Any] = getattr(kind, "__args__", ()) if not isinstance(kind, type) else ()
    alternatives = parts if parts and kind not in _KINDS else (kind,)
    words = (_KINDS.get(part, "a table of strings") for part in alternatives if part is not type(None))
    return " or ".join(dict.fromkeys(words))
