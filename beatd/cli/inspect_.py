"""``beatd inspect`` and ``beatd control``: ask workers, beatd's or Celery's, and tell them what to do.

Answers with rows are printed as tables, facts as lines.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from difflib import get_close_matches
from typing import Any

import click

from beatd.cli.app_client import client_app
from beatd.cli.global_options import is_quiet
from beatd.cli.output import (
    Duration,
    confirm,
    plural,
    print_colored,
    print_json,
    print_line,
    print_lines,
    print_table,
    split_names,
)
from beatd.timestamps import utc_text
from beatd.worker.control import COMMANDS, Command, Kind

Answers = Mapping[str, Any]
_LONG = 60


def failed(answer: Any) -> bool:
    """True if a worker says that it could not do it."""
    return isinstance(answer, dict) and set(answer) == {"error"}


def print_answers(command: str, answers: Answers) -> None:
    """Print the answers of workers to ``command``, and how many have answered."""
    short = {node: _short(answer) for node, answer in answers.items()}
    if all(text is not None for text in short.values()):
        print_table(["worker", "answer"], [(node, text or "") for node, text in short.items()])
    else:
        for node, answer in answers.items():
            print_colored(node, bold=True)
            _print_long(command, answer)
            click.echo()
    if not is_quiet():
        print_line(f"{plural(len(answers), 'worker')} answered.")


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
        print_lines(str(answer["ok"]))
    elif isinstance(answer, dict):
        for name, value in _flat(answer):
            print_line(f"  {name}: {value}")
    else:
        print_lines(str(answer))


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
    return f"since {utc_text(int(began * 1000))}"


def _flat(facts: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in facts.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


class NobodyReplied(click.ClickException):
    """No worker has answered. The exit code is that of Celery's tools (EX_UNAVAILABLE of sysexits.h)."""

    exit_code = 69


_SETTINGS = {"help_option_names": ["-h", "--help"], "ignore_unknown_options": True}


def _options(function: Callable[..., None]) -> Callable[..., None]:
    """The options of both commands."""
    for option in reversed(
        (
            click.argument("command", required=False),
            click.argument("arguments", nargs=-1),
            click.option("--broker", "-b", metavar="URL", help="The workers' broker."),
            click.option("--app", "-A", "app_name", metavar="MODULE[:APP]", help="Take the broker of this app."),
            click.option("--config", "config_file", metavar="FILE", help="Take the broker of beat.toml."),
            click.option("--destination", "-d", metavar="A,B", help="Only these workers, by name."),
            click.option(
                "--timeout", "-t", type=Duration(), default="1s", show_default=True, help="Time to wait for an answer."
            ),
            click.option("--json", "-j", "as_json", is_flag=True, help="JSON instead of tables."),
            click.option("--list", "as_list", is_flag=True, help="List the commands."),
        )
    ):
        function = option(function)
    return function


@click.command(context_settings=_SETTINGS)
@_options
def inspect(**options: Any) -> None:
    """Query workers: ping, stats, active, reserved, scheduled, registered, revoked, conf, and more (--list).

    Works with beatd's and Celery's workers. Exit code 69 when none answers, 1 when one has answered with an error.
    """
    _run("inspect", **options)


@click.command(context_settings=_SETTINGS)
@_options
@click.option("--yes", "-y", is_flag=True, help="Do not ask before shutting down all workers.")
def control(*, yes: bool, **options: Any) -> None:
    """Control workers: revoke, terminate, rate_limit, pool_grow, add_consumer, shutdown, and more (--list).

    Works with beatd's and Celery's workers. Exit code 69 when none answers, 1 when one has answered with an error.
    """
    if options["command"] == "shutdown" and not options["destination"] and not options["as_list"]:
        confirm("Shut down all workers?", yes=yes)
    _run("control", **options)


def _audit(command: str, keywords: dict[str, Any], names: list[str] | None, place: Mapping[str, str | None]) -> None:
    """Record a command to workers in the state store of the file, if there is one."""
    from beatd.cli.installation import installation  # noqa: PLC0415 - many questions need no file

    if place["broker"] or place["app_name"]:
        return
    with installation(place["config_file"]) as found:
        found.audit("control", names or ["all workers"], after={"command": command, **keywords})


def _run(
    kind: Kind,
    *,
    command: str | None,
    arguments: tuple[str, ...],
    destination: str | None,
    timeout: float,
    as_json: bool,
    as_list: bool,
    **place: str | None,
) -> None:
    app = client_app(place["app_name"], place["broker"], place["config_file"]) if place["app_name"] else None
    if app is not None and command not in COMMANDS:
        app.import_tasks()  # its modules may have commands of their own
    if as_list or command is None:
        print_table(["command", "what it does"], _listed(kind))
        return
    wanted = _command(kind, command)
    keywords = _keywords(wanted, list(arguments))
    names = split_names(destination) if destination else None
    app = app or client_app(place["app_name"], place["broker"], place["config_file"])
    answers = app.control.broadcast(wanted.name, keywords, names, reply=True, timeout=timeout)
    if kind == "control":
        _audit(wanted.name, keywords, names, place)
    by_node = {node: answer for each in answers or () for node, answer in sorted(each.items())}
    if not by_node:
        raise NobodyReplied(f"No nodes replied within {timeout:g} s")
    if as_json:
        print_json(by_node)
    else:
        print_answers(wanted.name, by_node)
    if any(map(failed, by_node.values())):
        raise click.exceptions.Exit(1)


def _listed(kind: Kind) -> Iterator[tuple[str, str]]:
    for name, each in sorted(COMMANDS.items()):
        if each.kind == kind and each.visible:
            yield f"{name} {each.usage}".rstrip(), each.summary


def _command(kind: Kind, name: str) -> Command:
    known = COMMANDS.get(name)
    if known is not None and known.kind == kind:
        return known
    if known is not None:
        raise click.UsageError(f'"{name}" is a command of "beatd {known.kind}"')
    near = get_close_matches(name, [each.name for each in COMMANDS.values() if each.kind == kind], n=1)
    raise click.UsageError(
        f'no command "{name}"' + (f'; did you mean "{near[0]}"?' if near else f"; see beatd {kind} --list")
    )


def _keywords(command: Command, words: list[str]) -> dict[str, Any]:
    """The words of the command line as the command's arguments."""
    keywords: dict[str, Any] = {}
    for name, read in command.arguments[: len(words)]:
        try:
            keywords[name] = read(words.pop(0))
        except ValueError as error:
            raise click.UsageError(f"{command.name}: {name}: {error}") from None
    if command.variadic:
        keywords[command.variadic] = words
    elif words:
        raise click.UsageError(f"{command.name} takes {command.usage or 'no arguments'}, not also {' '.join(words)}")
    return keywords
