"""``beatd dead-letters``: see what could not be run or delivered, and why; send it again, or throw it away."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from shutil import get_terminal_size
from typing import Any

import click

from beatd.cli.completion import queue_names
from beatd.cli.output import confirm, plural, print_json, print_line
from beatd.cli.top_view import cut as fitted
from beatd.cli.top_view import padded
from beatd.client.dead_letters import (
    REASON_MAX,
    DeadLetterSource,
    Filter,
    LetterGroup,
    age_ms,
    content,
    cut,
    each_place,
    facts,
    grouped,
    matching_letters,
    open_places,
    queue_of,
    task_of,
)
from beatd.clock import SystemClock
from beatd.exceptions import ScheduleError
from beatd.redaction import redacted_text
from beatd.schedules.duration import duration_ms
from beatd.store.audit import audit_record, whoami

_SHOWN = 50
_ID_MIN = 4
_COLUMNS_BEFORE = 52
"""Of the table, before the reason."""
_VALUE_MAX = 400


def _places(command: Callable[..., None]) -> Callable[..., None]:
    for option in (
        click.option("--broker", "-b", metavar="URL", help="The broker, where there is neither file nor app."),
        click.option("--app", "-A", metavar="MODULE[:APP]", help="Take broker and state store from this app."),
        click.option("--config", "-c", metavar="FILE", help="Default: $BEATD_CONFIG, ./beat.toml."),
    ):
        command = option(command)
    return command


def _filters(command: Callable[..., None]) -> Callable[..., None]:
    for option in (
        click.option("--older", metavar="AGE", help="Minimum age, such as 1d."),
        click.option("--queue", metavar="NAME", shell_complete=queue_names, help="Only of this queue."),
        click.option("--task", metavar="NAME", help="Only of this task (glob)."),
        click.option("--reason", metavar="TEXT", help="Only with this text in the reason."),
    ):
        command = option(command)
    return command


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def dead_letters() -> None:
    """Show, requeue or purge messages that could not be run or delivered."""


@dead_letters.command("list")
@_filters
@click.option("--limit", type=click.IntRange(1), default=_SHOWN, show_default=True, help="Maximum number of lines.")
@click.option("--each", is_flag=True, help="A line for each letter, not one for all that are alike.")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of a table, with each letter.")
@_places
def list_letters(limit: int, each: bool, as_json: bool, **options: Any) -> None:
    """List dead letters, the newest first.

    Letters of the same task and queue with the same error are one line, with their number."""
    is_each = each or as_json
    with _opened(options) as places:
        matching = matching_letters(places, _filter(options), limit if is_each else None)
        groups = [LetterGroup(one, 1) for one in matching] if is_each else grouped(matching)
        total = sum(place.letters.count() for place in places)
    if as_json:
        print_json([facts(group.newest) for group in groups])
        return
    shown = groups[:limit]
    _print(shown)
    counted = f"{sum(group.size for group in shown):,} of {plural(total, 'dead letter')}"
    alike = any(group.size > 1 for group in shown)
    print_line(f"{counted}; --each shows those that are alike one by one" if alike else counted)


def _print(groups: Sequence[LetterGroup]) -> None:
    now_ms = SystemClock().now_ms()
    width = max(80, get_terminal_size((80, 24)).columns) - _COLUMNS_BEFORE
    if groups:
        print_line(f"{'id':12}  {'age':>4}  {'queue':10}  {'task':18}  reason")
    for (_, letter), count in groups:
        age = _age(age_ms(letter, now_ms))
        queue, task = (cut(each(letter), _VALUE_MAX) for each in (queue_of, task_of))
        times = f"{count:,} × " if count > 1 else ""
        reason = cut(times + redacted_text(letter.reason, at_most=REASON_MAX), REASON_MAX)
        cells = (padded(queue, 10), padded(task, 18), fitted(reason, width))
        print_line("  ".join([letter.id, f"{age:>4}", *cells]))


def _age(ms: int) -> str:
    """In the largest unit, as people say it: ``3d``."""
    seconds = ms // 1000
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


@dead_letters.command()
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
@click.option("--body", is_flag=True, help="Also show the arguments, which may hold secrets.")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of text.")
@_places
def show(ids: tuple[str, ...], body: bool, as_json: bool, **options: Any) -> None:
    """Show all that is known of a dead letter. The first characters of its id will do."""
    with _opened(options) as places:
        matching = list(matching_letters(places, Filter(_checked(ids)), None))
    if not matching:
        raise click.ClickException(f"no dead letter {', '.join(ids)}")
    details = [facts(one) | content(one.letter, body=body) for one in matching]
    if as_json:
        print_json(details)
        return
    for number, one in enumerate(details):
        if number:
            click.echo()
        for name, value in one.items():
            if isinstance(value, dict):
                print_line(f"{name}:")
                for key, each in value.items():
                    print_line(f"  {key}: {cut(str(each), _VALUE_MAX)}")
            else:
                print_line(f"{name + ':':10} {'' if value is None else value}".rstrip())


@dead_letters.command()
@click.argument("ids", metavar="[ID]...", nargs=-1)
@_filters
@click.option("--alike", is_flag=True, help="Also all that are like those with the ids: same task, queue and error.")
@click.option("--all", "everything", is_flag=True, help="Select all dead letters.")
@_places
def requeue(ids: tuple[str, ...], everything: bool, **options: Any) -> None:
    """Return messages to their queues.

    Each message is requeued unchanged, exactly once."""
    wanted = _wanted(ids, everything, options)
    with _opened(options) as places:
        count, refusals = each_place(places, wanted, lambda place, letters: place.requeue(letters))
        _audit(places, "requeue", ids, count, options)
    for letter, reason in refusals:
        print_line(f"{letter.id} stays: {reason}", err=True)
    print_line(f"{plural(count, 'message')} sent again")
    if refusals or (ids and not count):
        raise click.exceptions.Exit(1)


@dead_letters.command()
@click.argument("ids", metavar="[ID]...", nargs=-1)
@_filters
@click.option("--alike", is_flag=True, help="Also all that are like those with the ids: same task, queue and error.")
@click.option("--all", "everything", is_flag=True, help="Select all dead letters.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask before --all.")
@_places
def purge(ids: tuple[str, ...], everything: bool, yes: bool, **options: Any) -> None:
    """Delete dead letters."""
    wanted = _wanted(ids, everything, options)
    if not wanted:
        confirm("Delete all dead letters?", yes=yes)
    with _opened(options) as places:
        count, _ = each_place(places, wanted, lambda place, letters: (place.letters.remove(letters), []))
        _audit(places, "purge", ids, count, options)
    print_line(f"{plural(count, 'dead letter')} thrown away")
    if ids and not count:
        raise click.exceptions.Exit(1)


def _audit(
    places: Sequence[DeadLetterSource], action: str, ids: Sequence[str], count: int, options: dict[str, Any]
) -> None:
    """Record what became of so many letters, in the state store."""
    if count:
        named = [f"{name} {options[name]}" for name in ("task", "queue", "reason", "older") if options[name]]
        chosen = ", ".join([*named, *(["and all like it"] if options["alike"] else [])])
        record = audit_record(
            SystemClock().now_ms(), action, ids, by=whoami(), via="command", detail=chosen, count=count
        )
        places[-1].audit.note(record)


def _opened(options: dict[str, Any]) -> Any:
    return open_places(options["config"], options["app"], options["broker"])


def _filter(options: dict[str, Any], ids: tuple[str, ...] = ()) -> Filter:
    try:
        older_ms = duration_ms(options["older"]) if options["older"] else None
    except ScheduleError as error:
        raise click.BadParameter(str(error), param_hint="--older") from None
    alike = bool(options.get("alike"))
    if alike and not ids:
        raise click.UsageError("--alike goes with ids")
    return Filter(_checked(ids), options["reason"], options["task"], options["queue"], older_ms, alike)


def _wanted(ids: tuple[str, ...], everything: bool, options: dict[str, Any]) -> Filter:
    wanted = _filter(options, ids)
    if not wanted and not everything:
        raise click.UsageError("say which: ids, --reason, --task, --queue, --older, or --all")
    return wanted


def _checked(ids: Sequence[str]) -> tuple[str, ...]:
    for each in ids:
        if len(each) < _ID_MIN:
            raise click.BadParameter(f"{each!r} is too short: {_ID_MIN} characters of an id at least", param_hint="ID")
    return tuple(ids)
