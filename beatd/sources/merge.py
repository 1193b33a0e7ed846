"""The merge of all sources: the entries of files and app, beside them those of the store, and over all of it the
pauses.

An entry's name counts once: the file's before the app's, and both before the store's. A paused entry is in force as one
that is not enabled. Nothing of a merged schedule does I/O.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from msgspec import structs

from beatd import config
from beatd.config import Config
from beatd.config.entries import read_tables, too_large
from beatd.config.targets import NOTIFY, unknown_target
from beatd.config.toml import Document, read
from beatd.exceptions import ConfigError, Fault, MessageError
from beatd.model import BrokerSettings, Entry, Settings
from beatd.planning.builtin_tasks import builtin_faults
from beatd.planning.lint import entry_warning
from beatd.sources.app import Registered, read_app
from beatd.sources.calendars import Calendars
from beatd.sources.schedule_diff import by_name
from beatd.store.runtime_entries import name_at, place, read_table
from beatd.url_keyprefix import difference, global_keyprefix
from beatd.urls import is_redis

log = logging.getLogger(__name__)


def load(
    path: str | Path,
    *,
    app: str | None = None,
    env: Mapping[str, str] | None = None,
    before: Config | None = None,
    check_tasks: bool = False,
    with_app: bool = True,
) -> Config:
    """The file at ``path`` with the registrations of ``app``, or of the app that the file names, merged in.

    The module is imported in a process of its own, and may be beside the file. What was loaded ``before`` saves
    reading again what is written alike. Raises ConfigError with every fault of the first source that has any; but a
    registration of the app that cannot be read costs only itself, and is among the ``refused`` unless a file has an
    entry of its name. With ``check_tasks`` there are ``task_faults``; without ``with_app`` no app is imported.
    Calendars of blackouts are read.
    """
    found = _loaded(path, app, env, before, check_tasks=check_tasks, with_app=with_app)
    faults = Calendars.of(found.settings).look()
    return msgspec.structs.replace(found, remarks=(*found.remarks, *faults)) if faults else found


def _loaded(
    path: str | Path,
    app: str | None,
    env: Mapping[str, str] | None,
    before: Config | None,
    *,
    check_tasks: bool,
    with_app: bool,
) -> Config:
    found = config.load(path, env=env, before=before)
    if check_tasks:
        found = msgspec.structs.replace(found, task_faults=tuple(builtin_faults(found.entries)))
    name = app or found.settings.app
    if name is None or not with_app:
        return found
    try:
        registered = read_app(
            name,
            timezone=found.settings.timezone,
            defaults=found.defaults,
            where="-A" if app else str(path),
            directory=str(Path(found.settings.file).parent),
            calls=found.entries if check_tasks else None,
            default_queue=found.settings.broker.default_queue,
        )
    except ConfigError as error:
        raise (error if app else _at_setting(error, path)) from None
    most_bytes = found.settings.broker.max_message_bytes
    of_files = {entry.name for entry in found.entries}
    refused, light = [fault for name, fault in registered.refused if name not in of_files], []
    for entry in registered.entries:
        if entry.name not in of_files and (fault := too_large(entry, most_bytes)):
            refused.append(Fault(entry.source, None, f"beat_schedule.{entry.name}", fault))
        else:
            light.append(entry)
    entries = merge(found.entries, light)
    return msgspec.structs.replace(
        found,
        settings=msgspec.structs.replace(found.settings, app=name),
        entries=entries,
        digest=config.joined(found.digest, config.digest(entries[len(found.entries) :])),
        beside=(*found.beside, *registered.files),
        remarks=(
            *registered.remarks,
            *_another_prefix(found.settings, registered.broker),
            *_another_default_queue(found, registered.default_queue),
            *_unknown_targets(found.settings, entries[len(found.entries) :]),
        ),
        refused=tuple(refused),
        task_faults=_task_faults(entries, len(found.entries), registered) if check_tasks else (),
    )


def _at_setting(error: ConfigError, path: str | Path) -> ConfigError:
    """The error about an app that the file names, at the place of that name."""
    line, column = Document(str(path), read(Path(path), str(path))).position_of(("app",)) or (None, None)
    faults = [
        Fault(fault.file, line, "app", f"{fault.path}: {fault.message}", column) if fault.file == str(path) else fault
        for fault in error.faults
    ]
    return ConfigError(faults, error.files)


def _another_prefix(settings: Settings, broker: str) -> Iterator[Fault]:
    """Yield a warning if the app's workers take from other keys on Redis than those to which the daemon sends."""
    url = settings.broker.url or settings.redis.url
    if is_redis(url) and is_redis(broker) and (wrong := difference(url, global_keyprefix(broker))):
        yield Fault(settings.file, None, "broker.url", wrong)


def _another_default_queue(found: Config, of_app: str) -> Iterator[Fault]:
    """Yield a warning if entries of files name no queue, and the app's default queue is another one."""
    queue = found.settings.broker.default_queue
    named_none = [entry for entry in found.entries if not (entry.options.queue or entry.options.exchange)]
    if named_none and queue == BrokerSettings().default_queue != of_app:
        text = f'entries of files that name no queue go to "{queue}", and the tasks of the app to "{of_app}"'
        yield Fault(found.settings.file, None, "broker.default_queue", f'{text}; set default_queue = "{of_app}"')


def _unknown_targets(settings: Settings, entries: Iterable[Entry]) -> Iterator[Fault]:
    """Yield a warning for each entry of the app that names a notification target which the file does not have."""
    known = [target.name for target in settings.notify]
    for entry in entries:
        if fault := unknown_target(entry.policies.notify or (), known):
            yield Fault(entry.source, None, f"beat_schedule.{entry.name}.{NOTIFY}", fault)


def call_faults(settings: Settings, defaults: Mapping[str, Any], entries: Sequence[Entry]) -> tuple[Fault, ...]:
    """Faults in the calls of entries of the store, as :func:`load` has it for those of files.

    Raises ConfigError if the app cannot be imported.
    """
    if settings.app is None:
        return tuple(builtin_faults(entries))
    registered = read_app(
        settings.app,
        timezone=settings.timezone,
        defaults=defaults,
        where=settings.file,
        directory=str(Path(settings.file).parent),
        calls=entries,
        default_queue=settings.broker.default_queue,
    )
    return _task_faults(entries, len(entries), registered)


def _task_faults(entries: Sequence[Entry], of_files: int, registered: Registered) -> tuple[Fault, ...]:
    """Faults of the calls of entries; the first ``of_files`` are those of the files."""
    faults = list(builtin_faults(entries))
    for found, several in (
        (registered.task_faults, entries[:of_files]),
        (registered.own_task_faults, entries[of_files:]),
    ):
        named = by_name(several)
        faults += [entry_warning(named[name], key, message) for name, key, message in found if name in named]
    return tuple(faults)


def merge(file_entries: Iterable[Entry], app_entries: Iterable[Entry]) -> tuple[Entry, ...]:
    """The file's entries, then those of the app whose names the file does not have.

    An entry of the app that means something else than the file's entry of the same name is logged.
    """
    merged = {entry.name: entry for entry in file_entries}
    for entry in app_entries:
        other = merged.setdefault(entry.name, entry)
        if other is not entry and not entry.means(other):
            log.warning(
                "Entry %s is in %s and in %s; the first counts",
                entry.name,
                other.source,
                entry.source,
                extra={"event": "entry_overruled", "entry": entry.name},
            )
    return tuple(merged.values())


class InForce(NamedTuple):
    """All sources as one schedule. ``entries`` are those of ``config`` (files and app) and ``runtime`` more."""

    config: Config
    entries: Sequence[Entry]
    runtime: int
    paused: int
    """How many entries are paused, among those in force."""


class ScheduleChange(NamedTuple):
    """Change of a schedule: entries that were put, with those to be read anew, and names that are gone.

    ``runtime`` and ``paused`` as in :class:`InForce`.
    """

    put: Mapping[str, Entry]
    gone: frozenset[str]
    runtime: int
    paused: int


class MergedSchedule:
    """The base, the runtime entries and the pauses, each changed on its own; not for several threads at once."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._tables: dict[str, bytes] = {}
        self._runtime: dict[str, Entry] = {}
        self._pauses: frozenset[str] = frozenset()
        self._off: dict[str, tuple[Entry, Entry]] = {}
        self._base: dict[str, Entry] | None = None
        self.faults: dict[str, list[Fault]] = {}
        """What is wrong with runtime entries that are not in force, by name."""

    def set_base(self, config: Config) -> None:
        """Other files, or another app. Their time zone and defaults hold for runtime entries, too."""
        before, self._config, self._base = self._config, config, None
        if before.rules != config.rules:
            self.change(self._tables)

    def change(self, tables: Mapping[str, bytes | None]) -> None:
        """Runtime entries were put, or removed (None)."""
        read: dict[str, Any] = {}
        for name, raw in dict(tables).items():
            self._runtime.pop(name, None)
            self.faults.pop(name, None)
            if raw is None:
                self._tables.pop(name, None)
                continue
            self._tables[name] = raw
            try:
                read[name] = read_table(raw)
            except MessageError as error:
                self.faults[name] = [Fault(place(name), None, "", str(error))]
        entries, faults = read_tables(
            read, timezone=self._config.settings.timezone, defaults=self._config.defaults, source_of=place
        )
        self._runtime |= entries
        for fault in faults:
            self.faults.setdefault(name_at(fault.file), []).append(fault)

    def pause(self, names: Collection[str]) -> None:
        """The names that are paused now, whether there is such an entry or not."""
        self._pauses = frozenset(names)
        self._off = {name: pair for name, pair in self._off.items() if name in self._pauses}

    def of(self, name: str) -> Entry | None:
        """Return the entry in force under a name."""
        entry = self._by_name().get(name) or self._runtime.get(name)
        return entry and self._overlaid(entry)

    def conflicts(self) -> list[Entry]:
        """The entries of files and app that count instead of runtime entries of their names."""
        base = self._by_name() if self._tables else {}
        return [base[name] for name in self._tables if name in base]

    def in_force(self) -> InForce:
        """All of it."""
        config = self._config
        if not self._runtime and not self._pauses:
            return InForce(config, config.entries, 0, 0)
        base = self._by_name()
        runtime = (entry for name, entry in self._runtime.items() if name not in base)
        pauses, every = self._pauses, chain(config.entries, runtime)
        entries = [self._overlaid(entry) if entry.name in pauses else entry for entry in every]
        return InForce(config, entries, *self.counts())

    def counts(self) -> tuple[int, int]:
        """Return the number of runtime entries in force, and of paused entries among all."""
        base = self._by_name() if self._runtime or self._pauses else {}
        paused = sum(name in base or name in self._runtime for name in self._pauses)
        return sum(name not in base for name in self._runtime), paused

    def _by_name(self) -> Mapping[str, Entry]:
        """The entries of files and app, by name: made when somebody asks, for most schedules have no others."""
        if self._base is None:
            self._base = by_name(self._config.entries)
        return self._base

    def _overlaid(self, entry: Entry) -> Entry:
        """The entry as its pause lets it be; the same object as before if nothing has changed."""
        if entry.name not in self._pauses:
            return entry
        before, off = self._off.get(entry.name, (None, entry))
        if before is not entry:
            off = _disabled(entry)
            self._off[entry.name] = entry, off
        return off


def _disabled(entry: Entry) -> Entry:
    return structs.replace(entry, policies=structs.replace(entry.policies, enabled=False))
