"""``beatd pause`` and ``beatd resume``: suspend entries, wherever they come from, and let them go on."""

from __future__ import annotations

from collections.abc import Sequence

import click

from beatd import sources
from beatd.cli.completion import entry_names
from beatd.cli.installation import Installation, hint, installation, is_glob, matching_names
from beatd.cli.output import Duration, confirm, plural, print_json, print_line, read_moment
from beatd.client.history import pause_facts
from beatd.clock import SystemClock
from beatd.exceptions import ConfigError
from beatd.store.audit import whoami
from beatd.store.runtime_entries import Pause, PauseField, Runtime

_SHOWN = 20
"""Names that are shown one by one."""


@click.command()
@click.argument("names", metavar="NAME|GLOB...", nargs=-1, shell_complete=entry_names)
@click.option("--tag", "tags", multiple=True, metavar="TAG", help="All entries with any given tag (repeatable).")
@click.option("--reason", default="", help="Reason, shown by status and list.")
@click.option("--for", "length", type=Duration(1), help="Time after which the entries are resumed: 2h, 90m.")
@click.option("--until", metavar="TIME", help='When they are resumed: "2026-12-24 18:00", +1d, never.')
@click.option("--by", default=None, metavar="WHO", help="Who paused it; default: USER@HOST.")
@click.option("--config", "-c", "config_file", metavar="FILE", help="Default: $BEATD_CONFIG, ./beat.toml.")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of text.")
@click.option("--yes", "-y", is_flag=True, help='Do not ask before pausing all entries ("*").')
def pause(
    *,
    names: tuple[str, ...],
    tags: tuple[str, ...],
    reason: str,
    length: float | None,
    until: str | None,
    by: str | None,
    config_file: str | None,
    yes: bool,
    as_json: bool,
) -> None:
    """Pause entries until they are resumed, or for some time. Quote globs such as "report-*".

    A pause survives failover and restarts. Runs that are due meanwhile are not caught up. With --for or --until a
    daemon resumes the entries then; of an entry that is named and paused already, they change the end, and --reason the
    reason. A TIME without an offset is in the time zone of the file.
    """
    _refuse_nothing(names, tags)
    if "*" in names:
        confirm("Pause all entries?", yes=yes)
    with installation(config_file) as place:
        now_ms = SystemClock().now_ms()
        until_ms = _end_ms(length, until, now_ms, place.head.settings.timezone)
        runtime = Runtime(place.client, place.keys)
        found = sorted({*_existing(names, place, runtime), *_tagged(tags, place)})
        author = whoami() if by is None else by
        note = Pause(since_ms=now_ms, by=author, reason=reason, until_ms=until_ms)
        before = dict(runtime.pauses())
        named: list[PauseField] = ["until"] if length or until else []
        if reason:
            named.append("reason")
        exact = [name for name in found if name in names]
        done = runtime.put_pauses(exact, note, [*named, "by"] if named else [])
        done.paused.extend(runtime.pause([name for name in found if name not in names], note))
        for name in done.changed:
            place.audit("pause", [name], by=author, before=pause_facts(before[name]), after=pause_facts(note))
        if done.paused:
            place.audit("pause", sorted(done.paused), by=author, after=pause_facts(note))
        _say("paused", "Paused", "already paused", sorted(done.paused), found, changed=done.changed, as_json=as_json)
        place.warn_if_no_daemon()


@click.command()
@click.argument("names", metavar="NAME|GLOB...", nargs=-1, shell_complete=entry_names)
@click.option("--tag", "tags", multiple=True, metavar="TAG", help="All paused entries with any given tag (repeatable).")
@click.option("--config", "-c", "config_file", metavar="FILE", help="Default: $BEATD_CONFIG, ./beat.toml.")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of text.")
def resume(*, names: tuple[str, ...], tags: tuple[str, ...], config_file: str | None, as_json: bool) -> None:
    """Resume paused entries from now on. Quote globs such as "report-*".

    Runs that were due during the pause are not caught up.
    """
    _refuse_nothing(names, tags)
    with installation(config_file) as place:
        runtime = Runtime(place.client, place.keys)
        before = dict(runtime.pauses())
        found, without = matching_names(names, before)
        found = sorted({*found, *(name for name in _tagged(tags, place) if name in before)})
        resumed = runtime.resume(found)
        if resumed:
            first = before.get(resumed[0])
            place.audit("resume", resumed, before=pause_facts(first) if first and len(resumed) == 1 else None)
        asked = sorted({*found, *(name for name in without if not is_glob(name))})
        _say("resumed", "Resumed", "not paused", resumed, asked, as_json=as_json)
        place.warn_if_no_daemon()


def _refuse_nothing(names: Sequence[str], tags: Sequence[str]) -> None:
    if not (names or tags):
        raise click.UsageError('name an entry, a pattern such as "report-*", or --tag TAG')


def _tagged(tags: Sequence[str], place: Installation) -> list[str]:
    """The entries in force with one of the tags; raises click.UsageError for a tag that no entry has."""
    if not tags:
        return []
    by_tag: dict[str, list[str]] = {}
    for entry in place.schedule(sources.load(place.path)).entries:
        for tag in entry.policies.tags:
            by_tag.setdefault(tag, []).append(entry.name)
    for tag in tags:
        if tag not in by_tag:
            raise click.UsageError(f'no entry has the tag "{tag}"{hint(tag, by_tag)}')
    return [name for tag in tags for name in by_tag[tag]]


def _end_ms(length: float | None, until: str | None, now_ms: int, timezone: str) -> int | None:
    """When a pause that begins now ends by itself; ``None``: never."""
    if length is not None and until is not None:
        raise click.UsageError("give --for or --until, not both")
    if length is not None:
        return now_ms + int(length * 1000)
    if until is None or until == "never":
        return None
    until_ms = read_moment(until, option="--until", timezone=timezone, base_ms=now_ms, now_ms=now_ms)
    if until_ms <= now_ms:
        raise click.BadParameter(f"{until} is not later than now: the pause would be over", param_hint="--until")
    return until_ms


def _existing(patterns: Sequence[str], place: Installation, runtime: Runtime) -> list[str]:
    """The entries that are meant; raises click.UsageError for a name or pattern that stands for none.

    Whatever a leader has seen is known in the store. Only who names something else needs the files for it.
    """
    names = {*runtime.entry_names(), *(name for name, _ in runtime.tables()), *(name for name, _ in runtime.pauses())}
    found, without = matching_names(patterns, names)
    if without:
        names |= _in_files(place)
        found, without = matching_names(patterns, names)
    if without:
        what = "no entry matches" if is_glob(without[0]) else "there is no entry"
        raise click.UsageError(f'{what} "{without[0]}"{hint(without[0], names)}')
    return found


def _in_files(place: Installation) -> set[str]:
    try:
        return {entry.name for entry in sources.load(place.path).entries}
    except ConfigError:
        return set()


def _say(
    key: str,
    verb: str,
    else_: str,
    done: Sequence[str],
    asked: Sequence[str],
    *,
    changed: Sequence[str] = (),
    as_json: bool,
) -> None:
    others = sorted(set(asked) - set(done) - set(changed))
    if as_json:
        print_json({key: list(done), **({"changed": list(changed)} if changed else {}), "unchanged": others})
        return
    for name in changed:
        print_line(f"Changed the pause of {name}")
    if len(done) > _SHOWN:
        print_line(f"{verb} {plural(len(done), 'entry')}")
    for name in done if len(done) <= _SHOWN else ():
        print_line(f"{verb} {name}")
    if len(others) > _SHOWN:
        print_line(f"{plural(len(others), 'entry')} {'is' if len(others) == 1 else 'are'} {else_}")
    for name in others if len(others) <= _SHOWN else ():
        print_line(f"{name} is {else_}")
    if not asked:
        print_line(f"No entry is {'paused' if key == 'resumed' else else_}")
