"""Workers' answers for people: tables where there are rows, lines where there are facts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import click

from beatd.cli.output import plural, print_line, print_table, printable

Answers = Mapping[str, Any]
_LONG = 60


def failed(answer: Any) -> bool:
    """Whether a worker says that it could not do it."""
    return isinstance(answer, dict) and set(answer) == {"error"}


def print_answers(command: str, answers: Answers) -> None:
    """What each worker has said to ``command``, and how many have."""
    short = {node: _short(answer) for node, answer in answers.items()}
    if all(text is not None for text in short.values()):
        print_table(["worker", "answer"], [(node, text or "") for node, text in short.items()])
    else:
        for node, answer in answers.items():
            click.secho(printable(node), bold=True)
            _print_long(command, answer)
            click.echo()
    click.echo(f"{plural(len(answers), 'worker')} answered.")


def _short(answer: Any) -> str | None:
    """An answer in one line; None if it takes more."""
    match answer:
        case None:
            return "ok"
        case {"ok": text} | {"error": text} if "\n" not in str(text):
            return f"error: {text}" if "error" in answer else str(text)
        case str() if "\n" not in answer:
            return answer
        case {"clock": int(value)} if len(answer) == 1:
            return str(value)
    return None


def _print_long(command: str, answer: Any) -> None:
    short = _short(answer)
    if short is not None:
        print_line(f"  {short}")
    elif isinstance(answer, list):
        _print_list(command, answer)
    elif command == "query_task" and isinstance(answer, dict):
        print_table(_TASK_COLUMNS, [_task_row(info, state) for state, info in answer.values()])
    elif isinstance(answer, dict) and set(answer) == {"ok"}:
        _print_text(str(answer["ok"]))
    elif isinstance(answer, dict):
        for name, value in _flat(answer):
            print_line(f"  {name}: {value}")
    else:
        _print_text(str(answer))


def _print_text(text: str) -> None:
    """A text of several lines, such as a report."""
    for line in text.rstrip().split("\n"):
        print_line(line)


def _print_list(command: str, items: list[Any]) -> None:
    if not items:
        click.echo("  none")
    elif command in {"active", "reserved"}:
        print_table(_TASK_COLUMNS, [_task_row(info, _since(info)) for info in items])
    elif command == "scheduled":
        print_table(_TASK_COLUMNS, [_task_row(each["request"], str(each["eta"])) for each in items])
    elif command == "active_queues":
        rows = [(each["name"], (each.get("exchange") or {}).get("name", ""), each["routing_key"]) for each in items]
        print_table(["queue", "exchange", "routing key"], rows)
    else:
        for item in items:
            print_line(f"  {item}")


_TASK_COLUMNS = ["task", "id", "arguments", "process", "state"]


def _task_row(info: Mapping[str, Any], state: str) -> tuple[str, ...]:
    process = info.get("worker_pid")
    return str(info["name"]), str(info["id"]), _call(info), str(process or ""), state


def _call(info: Mapping[str, Any]) -> str:
    """The arguments as they were written, about."""
    args, kwargs = info.get("args"), info.get("kwargs")
    if not isinstance(args, list) or not isinstance(kwargs, dict):
        text = f"{args} {kwargs}"
    else:
        text = ", ".join([*map(repr, args), *(f"{name}={value!r}" for name, value in kwargs.items())])
    return text if len(text) <= _LONG else text[: _LONG - 1] + "…"


def _since(info: Mapping[str, Any]) -> str:
    began = info.get("time_start")
    if not isinstance(began, int | float):
        return "waiting"
    return f"since {datetime.fromtimestamp(began, UTC).isoformat(sep=' ', timespec='seconds')[:19]} UTC"


def _flat(facts: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in facts.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
