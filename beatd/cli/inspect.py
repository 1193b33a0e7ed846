"""``beatd inspect`` and ``beatd control``: ask workers, beatd's or Celery's, and tell them what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from difflib import get_close_matches
from typing import Any

import click

from beatd.app.app import App
from beatd.app.loading import find_app
from beatd.cli.answers import failed, print_answers
from beatd.cli.output import print_json, print_table
from beatd.exceptions import ConfigError
from beatd.worker.control import COMMANDS, Command, Kind

UNAVAILABLE = 69
"""Exit code when no worker has answered, as Celery's tools say it (EX_UNAVAILABLE of sysexits.h)."""

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
            click.option("--timeout", "-t", default=1.0, show_default=True, help="Seconds to wait for an answer."),
            click.option("--json", "-j", "as_json", is_flag=True, help="JSON instead of tables."),
            click.option("--list", "as_list", is_flag=True, help="List the commands."),
        )
    ):
        function = option(function)
    return function


@click.command(context_settings=_SETTINGS)
@_options
def inspect(**options: Any) -> None:
    """Ask workers: ping, stats, active, reserved, scheduled, registered, revoked, conf, and more (--list).

    They may be beatd's or Celery's. Exit code 69 when none has answered, 1 when one has answered with an error.
    """
    _run("inspect", **options)


@click.command(context_settings=_SETTINGS)
@_options
def control(**options: Any) -> None:
    """Tell workers: revoke, terminate, rate_limit, pool_grow, add_consumer, shutdown, and more (--list).

    They may be beatd's or Celery's. Exit code 69 when none has answered, 1 when one has answered with an error.
    """
    _run("control", **options)


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
    if as_list or command is None:
        print_table(["command", "what it does"], _listed(kind))
        return
    wanted = _command(kind, command)
    keywords = _keywords(wanted, list(arguments))
    names = [name for each in destination.split(",") if (name := each.strip())] if destination else None
    answers = _app(**place).control.broadcast(wanted.name, keywords, names, reply=True, timeout=timeout)
    by_node = {node: answer for each in answers or () for node, answer in sorted(each.items())}
    if not by_node:
        click.echo(f"Error: No nodes replied within {timeout:g} s", err=True)
        raise click.exceptions.Exit(UNAVAILABLE)
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


def _app(*, broker: str | None, app_name: str | None, config_file: str | None) -> App:
    """An app with the workers' broker: of ``-b``, of the app, or of the file, which is searched for."""
    if app_name:
        app = find_app(app_name)
        if broker:
            app.conf.broker_url = broker
        return app
    if broker:
        return App("beatd", broker=broker, set_as_current=False)
    from beatd import config  # noqa: PLC0415 - many questions need no file
    from beatd.wiring import running_store  # noqa: PLC0415

    try:
        found = config.find(config_file)
    except ConfigError as error:
        raise click.UsageError(f"{error}, or the broker with -b URL, or an app with -A MODULE") from None
    settings = config.load(found).settings
    url = settings.broker.url or running_store(settings)
    return App("beatd", broker=url, set_as_current=False)
