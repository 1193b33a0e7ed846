"""``beatd add`` and ``beatd remove``: entries in the state store, while the daemons run."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from beatd import sources
from beatd.cli.completion import entry_names, queue_names
from beatd.cli.edit import put_entries
from beatd.cli.errors import add_to_error
from beatd.cli.installation import Installation, hint, installation
from beatd.cli.output import print_json, print_line, read_json
from beatd.client.schedules import checked
from beatd.config import entry
from beatd.config.loader import LoadedSettings, entry_tables, load_settings
from beatd.config.targets import NOTIFY, unknown_target
from beatd.config.writer import Unwritable, escaped_table
from beatd.exceptions import ConfigError
from beatd.model import Entry
from beatd.store.runtime_entries import Runtime, read_pause, readable_table
from beatd.store.runtime_entries import place as runtime_place

_WORDS = {"added": "Added", "changed": "Changed", "unchanged": "Already there like that:"}


@click.command()
@click.argument("name", required=False, shell_complete=entry_names)
@click.option("--task", help='The task, such as "tasks.add".')
@click.option("--schedule", metavar="SCHEDULE", help='30, "1h30m", "30 7 * * mon", or a table: { minute = "30" }.')
@click.option("--args", "arguments", metavar="JSON", help='Such as "[16, 16]".')
@click.option("--kwargs", metavar="JSON", help='Such as \'{"format": "pdf"}\'.')
@click.option("--queue", shell_complete=queue_names, help="Queue of its messages.")
@click.option("--timezone", metavar="ZONE", help="Default: the time zone of the file.")
@click.option("--set", "more", metavar="KEY=VALUE", multiple=True, help="Any other key of an entry (repeatable).")
@click.option("--from-file", "file", metavar="FILE", help="TOML file: the keys of NAME, or tables of several entries.")
@click.option("--into", type=click.Path(dir_okay=False, path_type=Path), help="Write into this file, not the store.")
@click.option("--force", is_flag=True, help="With --into: change an entry that is there.")
@click.option("--no-app", is_flag=True, help="Import no app: do not look at its entries, tasks and arguments.")
@click.option("--config", "-c", "config_file", metavar="FILE", help="Default: $BEATD_CONFIG, ./beat.toml.")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of text.")
def add(
    *,
    name: str | None,
    file: str | None,
    into: Path | None,
    force: bool,
    no_app: bool,
    config_file: str | None,
    as_json: bool,
    **given: Any,
) -> None:
    """Add or replace the entry NAME in the state store. All daemons load it within a second.

    It is checked like an entry in the file. A task that the app of the file does not have, or that does not take the
    arguments, is a warning. Names of the file and of the app are refused: theirs take precedence.
    With --into, the entry goes into a TOML file, whose comments and layout stay.
    """
    table = _table(**given)
    if bool(table) == bool(file) or (name is None and not file):
        raise click.UsageError("give NAME with --task and --schedule, or --from-file")
    if into is not None:
        if name is None or file:
            raise click.UsageError(
                "--into takes NAME with --task and --schedule; a whole file is included (include = [...])"
            )
        _write(into, name, table, force=force, as_json=as_json)
        return
    with installation(config_file) as place:
        rules: dict[str, Any] = {"timezone": place.head.settings.timezone, "defaults": place.head.defaults}
        tables = entry_tables(file, name, **rules) if file else {str(name): table}
        ready = {each: checked(each, fields, **rules) for each, fields in tables.items()}
        _refuse_taken(place, ready, with_app=not no_app)
        _refuse_unknown_targets(place.head, ready)
        warnings = [] if no_app else _call_faults(place.head, ready)
        runtime = Runtime(place.client, place.keys)
        done = {}
        for each, fields in ready.items():
            done[each], old = runtime.exchange(each, fields)
            if done[each] != "unchanged":
                action = "add" if done[each] == "added" else "change"
                place.audit(action, [each], before=readable_table(old), after=fields)
        for warning in warnings:
            print_line(f"! warning: {warning}", err=True)
        paused = [each for each in done if runtime.get(each)[1] is not None]
        if as_json:
            print_json({"entries": done, "paused": paused, "warnings": warnings})
        else:
            for each, what in done.items():
                print_line(f"{_WORDS[what]} {each}" + (", which is paused" if each in paused else ""))
        place.warn_if_no_daemon()


def _write(into: Path, name: str, table: Mapping[str, Any], *, force: bool, as_json: bool) -> None:
    """Put the entry into a file, and not into the state store."""
    head = load_settings(into)
    ready = checked(name, table, timezone=head.settings.timezone, defaults=head.defaults)
    _refuse_unknown_targets(head, {name: ready})
    try:
        written = escaped_table(ready)
    except Unwritable as error:
        raise click.UsageError(f"TOML has no form for the entry: {error}") from None
    put_entries(into, {name: written}, replace=force, as_json=as_json)


@click.command()
@click.argument("name", shell_complete=entry_names)
@click.option("--config", "-c", "config_file", metavar="FILE", help="Default: $BEATD_CONFIG, ./beat.toml.")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of text.")
def remove(name: str, config_file: str | None, as_json: bool) -> None:
    """Remove the entry NAME from the state store.

    Exit code 1 when it is not there, like an entry of the file or the app.
    """
    with installation(config_file) as place:
        runtime = Runtime(place.client, place.keys)
        old = readable_table(runtime.get(name)[0])
        removed = runtime.remove(name)
        if removed:
            place.audit("remove", [name], before=old)
        elsewhere = _in_files(place).get(name)
        document = {"removed": removed, "source": elsewhere and elsewhere.source}
        if removed and as_json:
            print_json(document)
        elif removed:
            print_line(f"Removed {name}")
            if elsewhere:
                print_line(f"An entry of that name is in {elsewhere.source}, and stays in force.")
            elif (pause := runtime.get(name)[1]) is not None:
                by = read_pause(pause).by
                print_line(f"Its pause{f' (by {by})' if by else ''} stays until it is resumed.")
        if removed:
            place.warn_if_no_daemon()
            return
        add_to_error(document)
        if elsewhere:
            raise click.ClickException(f"{name} is in {elsewhere.source}, not in the state store: take it out there")
        names = [each for each, _ in runtime.tables()]
        raise click.ClickException(f'there is no entry "{name}" in the state store{hint(name, names)}')


def _call_faults(head: LoadedSettings, tables: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Faults in tasks and arguments of these entries, as far as the app of the file tells."""
    rules: dict[str, Any] = {"timezone": head.settings.timezone, "defaults": head.defaults}
    entries = [entry(name, table, **rules, source=runtime_place(name)) for name, table in tables.items()]
    try:
        return list(map(str, sources.call_faults(head.settings, head.defaults, entries)))
    except ConfigError as error:
        return [f"the app could not be imported, so that tasks were not checked: {error.faults[0].message}"]


def _refuse_unknown_targets(head: LoadedSettings, tables: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise UsageError for an entry that names a notification target which the file does not have."""
    known = [target.name for target in head.settings.notify]
    for name, table in tables.items():
        if fault := unknown_target(table.get(NOTIFY) or (), known):
            raise click.UsageError(f"{name}: {NOTIFY}: {fault}")


def _table(*, more: tuple[str, ...], arguments: str | None, kwargs: str | None, **given: str | None) -> dict[str, Any]:
    """The keys of the entry that the command line gives."""
    table: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    if "schedule" in table:
        table["schedule"] = _value(table["schedule"], "--schedule", only="{[")
    for key, text in (("args", arguments), ("kwargs", kwargs)):
        if text is not None:
            table[key] = read_json(text, f"--{key}", list if key == "args" else dict)
    for pair in more:
        key, equals, text = pair.partition("=")
        if not equals:
            raise click.BadParameter(f'"{pair}": expected KEY=VALUE', param_hint="--set")
        table[key.strip()] = _value(text.strip(), "--set")
    return table


def _value(text: str, option: str, *, only: str = "") -> Any:
    """A value as TOML or JSON has it; text that is neither is text. ``only`` what begins so is not text."""
    if only and text[:1] not in only:
        return text
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError) as error:
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            if text[:1] in "{[":
                raise click.BadParameter(f"neither TOML nor JSON: {error}", param_hint=option) from None
            return text


def _refuse_taken(place: Installation, tables: dict[str, dict[str, Any]], *, with_app: bool) -> None:
    """Raise click.ClickException for entries that would be overruled."""
    known = _in_files(place, with_app=with_app)
    for name in tables:
        if entry := known.get(name):
            raise click.ClickException(f"{name} is in {entry.source}, and that counts: change it there")


def _in_files(place: Installation, *, with_app: bool = True) -> dict[str, Entry]:
    """The entries of the file and its app; a word about what is broken, which has none."""
    try:
        return {entry.name: entry for entry in sources.load(place.path, with_app=with_app).entries}
    except ConfigError as error:
        fault = error.faults[0]
    try:
        found = {entry.name: entry for entry in sources.load(place.path, with_app=False).entries}
    except ConfigError:
        print_line(f"The files have faults, so that they were not looked at: {fault}", err=True)
        return {}
    print_line(f"The app could not be read, so that its entries were not looked at: {fault}", err=True)
    return found
