"""The loader: a configuration from its main file and what that includes; its settings alone; one file of entries.

Each file goes one way: text, tables and variables (``toml``), settings (``settings``) or entries (``entries``), whose
values are read by ``fields`` and ``values``. Settings can be loaded alone, because
commands that operate a running system have to work while an entry is being repaired. Of a hundred thousand entries, a
change touches one: the others are found again by the hashes of their texts, and are the same objects as before.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from glob import escape, has_magic
from itertools import chain, islice
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from beatd.config import search
from beatd.config.digest import EntryHasher, digest_of
from beatd.config.entries import LARGEST_GROWTH, EntryReader, read_defaults, too_large
from beatd.config.entry_cache import EntryCache, moved
from beatd.config.entry_template import EntryTemplates
from beatd.config.errors import ErrorReport, near
from beatd.config.fields import over_defaults
from beatd.config.settings import read_settings, read_timezone, refuse_settings, secret_files
from beatd.config.shared_blackouts import SECTION, read_shared_blackouts
from beatd.config.targets import NOTIFY, unknown_target
from beatd.config.toml import PARSED_AT_ONCE, SCHEDULE, Document, Piece, RawEntry, plain, read, substitute
from beatd.config.toml_blocks import Cut, lines_of
from beatd.config.toml_lines import KeyPath, Position
from beatd.config.values import shown
from beatd.exceptions import ConfigError, Fault
from beatd.memory import without_collections
from beatd.model import BrokerSettings, Entry, Settings
from beatd.schedules.cron_parser import is_named
from beatd.schedules.literals import quoted


class LoadedSettings(NamedTuple):
    """Settings and ``[defaults]`` of the main file, without its entries."""

    settings: Settings
    defaults: dict[str, Any]
    document: Document
    """The text of the file, of which :func:`load` can read the rest."""


def load_settings(path: str | Path, *, env: Mapping[str, str] | None = None) -> LoadedSettings:
    """The settings and ``[defaults]`` in the file at ``path``; its entries and what it includes are not looked at.

    Raises ConfigError with everything that is wrong with them.
    """
    report = ErrorReport()
    env = os.environ if env is None else env
    document, raw = _parsed(Path(path), env, report)
    settings = read_settings(raw, Path(path).absolute(), env, report)
    shared = read_shared_blackouts(raw.get(SECTION, {}), settings.timezone, report)
    defaults = over_defaults({}, read_defaults(raw.get("defaults", {}), settings.timezone, report, shared))
    if report:
        raise ConfigError(report.faults(document.file, document.position_of))
    return LoadedSettings(settings, defaults, document)


def _parsed(
    path: Path,
    env: Mapping[str, str],
    report: ErrorReport,
    *,
    document: Document | None = None,
    before: EntryCache | None = None,
) -> tuple[Document, dict[str, Any]]:
    """The document in a file, and its settings with the values of variables."""
    document = document or Document(str(path), read(path, str(path)), before.blocks if before else ())
    settings = document.settings
    return document, substitute(settings, env, report, ()) if document.has_variables else settings


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """A loaded configuration: settings and entries of all files.

    ``files`` are all that were read and ``globs`` the patterns of ``include``, both absolute, for the file watcher.
    ``defaults`` is the checked ``[defaults]`` table, for entries from elsewhere. ``digest`` changes when, and only
    when, the schedule means something else. ``beside`` are other files on which it depends, absolute too: secrets, and
    the modules of an app. ``remarks`` are warnings from loading, ``refused`` the errors of registrations of the app,
    which are left out of ``entries``, ``task_faults`` entries whose tasks are unknown or do not take their arguments.
    ``memory`` is for the next load.
    """

    settings: Settings
    entries: tuple[Entry, ...]
    files: tuple[str, ...]
    globs: tuple[str, ...]
    digest: str
    defaults: dict[str, Any]
    matched: tuple[tuple[str, ...], ...] = ()
    """The files that match each of ``globs``."""
    beside: tuple[str, ...] = ()
    remarks: tuple[Fault, ...] = ()
    refused: tuple[Fault, ...] = ()
    task_faults: tuple[Fault, ...] = ()
    memory: dict[str, EntryCache] = {}

    @property
    def rules(self) -> str:
        """Time zone and defaults, which hold for entries from elsewhere: equal if they mean the same."""
        return repr((self.settings.timezone, plain(self.defaults)))


def load(
    path: str | Path,
    *,
    env: Mapping[str, str] | None = None,
    before: Config | None = None,
    head: LoadedSettings | None = None,
) -> Config:
    """The configuration in the file at ``path`` and in the files that it includes.

    ``env`` has the values of ``${VARIABLES}``, by default the process's environment. With what was loaded ``before``,
    entries whose text is the same are not read again, and are the same objects. With its ``head`` the main file is not
    read again. Raises ConfigError with everything that is wrong in all of the files, sorted by file and line.
    """
    with _no_collections(again=before is not None):
        loading = _Load(os.environ if env is None else env, before.memory if before else {})
        return loading.main(Path(path), head.document if head else None)


class _Faulty(NamedTuple):
    """An entry that could not be read."""

    name: str
    source: str


class _File(NamedTuple):
    """A file whose entries are being loaded: its text, what was read of it ``before``, and what is read ``now``."""

    document: Document
    reader: EntryReader
    before: EntryCache
    now: EntryCache
    report: ErrorReport
    has_variables: bool
    faulty: list[_Faulty]
    """Entries that could not be read."""


class _Load:
    """One load: the entries and the errors so far, and the place of each name."""

    def __init__(self, env: Mapping[str, str], before: Mapping[str, EntryCache]) -> None:
        self.env = env
        self.before = before
        self.memory: dict[str, EntryCache] = {}
        self.meanings = EntryHasher()
        self.most_bytes = BrokerSettings().max_message_bytes
        self.light = 0
        """Characters of an entry's text up to which its messages cannot be too large."""
        self.targets: tuple[str, ...] = ()
        self.has_faulty_targets = False
        self.blackouts: dict[str, list[Any]] = {}
        self.named: dict[str, Entry | _Faulty] = {}
        """The first entry of each name, of those that were read."""
        self.kept: list[Iterator[Entry]] = []
        """Those that were not: no two of them have one name."""
        self.faults: list[Fault] = []

    def main(self, path: Path, document: Document | None = None) -> Config:
        absolute = path.absolute()  # not resolved: a watcher must see a symbolic link change
        report = ErrorReport()
        document, raw = _parsed(path, self.env, report, document=document, before=self.before.get(str(path)))
        settings = read_settings(raw, absolute, self.env, report)
        self.most_bytes = settings.broker.max_message_bytes
        self.light = self.most_bytes // LARGEST_GROWTH
        self.targets = tuple(target.name for target in settings.notify)
        self.has_faulty_targets = NOTIFY in {path[0] for path, _ in report if path}
        self.blackouts = read_shared_blackouts(raw.get(SECTION, {}), settings.timezone, report)
        own = read_defaults(raw.get("defaults", {}), settings.timezone, report, self.blackouts)
        defaults = over_defaults({}, own)
        self.find_targets(("defaults",), defaults, report)
        self.take(document, settings.timezone, defaults, report)
        files, matched = [path], list[tuple[str, ...]]()
        for place, pattern in enumerate(settings.include):
            found = search.included(path, pattern, report, ("include", place))
            matched.append(tuple(str(file.absolute()) for file in found))
            for file in found:
                if file not in files:
                    files.append(file)
                    self.included(file, document.file, settings.timezone, defaults)
        if not self.named.keys().isdisjoint(map(attrgetter("name"), chain.from_iterable(self.kept))):
            return _Load(self.env, {}).main(path)  # which says where both of them are
        self.faults[:0] = report.faults(document.file, document.position_of)
        read, beside = tuple(str(file.absolute()) for file in files), secret_files(raw, absolute.parent)
        if self.faults:
            awaited = (str(absolute.parent / pattern) for pattern in settings.include if not has_magic(pattern))
            raise ConfigError(self.faults, dict.fromkeys((*read, *awaited, *beside)))
        contents = self.memory.values()
        return Config(
            settings=settings,
            entries=tuple(chain.from_iterable(file.entries for file in contents)),
            files=read,
            globs=tuple(str(Path(escape(str(absolute.parent))) / pattern) for pattern in settings.include),
            matched=tuple(matched),
            digest=digest_of(chain.from_iterable(file.meanings for file in contents)),
            defaults=defaults,
            beside=beside,
            memory=self.memory,
        )

    def included(self, file: Path, main: str, timezone: str, defaults: Mapping[str, Any]) -> None:
        """Read one included file; its time zone and defaults, if it has its own, hold for its entries only."""
        report = ErrorReport()
        try:
            document, raw = _parsed(file, self.env, report, before=self.before.get(str(file)))
            refuse_settings(raw, main, report)
            timezone = read_timezone(raw, timezone, report)
            own = read_defaults(raw.get("defaults", {}), timezone, report, self.blackouts)
            self.find_targets(("defaults",), own, report)
            self.take(document, timezone, over_defaults(defaults, own), report)
        except ConfigError as error:
            self.faults += error.faults
        else:
            self.faults += report.faults(document.file, document.position_of)

    def take(self, document: Document, timezone: str, defaults: Mapping[str, Any], report: ErrorReport) -> None:
        """The entries of one file: those that it had before, and those to be read."""
        if not isinstance(document.schedule, dict):
            report.add((SCHEDULE,), f"expected tables such as [beat_schedule.my-entry], got {shown(document.schedule)}")
        now = self.memory[document.file] = EntryCache(repr((timezone, plain(defaults), self.most_bytes, self.targets)))
        before = self.before.get(document.file)
        if before is None:
            before = EntryCache("")
        elif before.context != now.context:
            before, document = EntryCache(""), Document(document.file, document.text)
        file = _File(document, EntryReader(timezone, defaults), before, now, report, document.has_variables, [])
        for raw in document.whole():
            self.entry(file, raw, 0, len(document.text))
        new = self.take_pieces(file, document.cut) if document.cut else now.entries
        self.take_names(file, new)

    def take_pieces(self, file: _File, cut: Cut) -> list[Entry]:
        """The entries of a file that is read in pieces: keep those in blocks as before, and return the others."""
        now, before = file.now, file.before
        now.blocks = cut.blocks(file.document.text)
        first = sum(block.entries for block in cut.head)
        last = len(before.entries) - sum(block.entries for block in cut.tail)
        now.keep(before, slice(first))
        self.read(file, slice(first, last))
        end = len(now.entries)
        now.keep(before, slice(last, None), lines=lines_of(now.blocks) - lines_of(before.blocks))
        self.kept += islice(now.entries, first), islice(now.entries, end, None)
        return now.entries[first:end]

    def take_names(self, file: _File, entries: list[Entry]) -> None:
        """Take the names of entries that were read of a file; report those that another one has."""
        names: dict[str, Entry | _Faulty] = {entry.name: entry for entry in entries}
        if not file.faulty and len(names) == len(entries) and self.named.keys().isdisjoint(names):
            if len(names) > len(self.named):
                self.named, names = names, self.named
            self.named.update(names)
            return
        both: Iterator[Entry | _Faulty] = chain(entries, file.faulty)
        for each in both:
            if (other := self.named.setdefault(each.name, each)) is not each:
                text = f"the entry {quoted(each.name)} is already defined at {other.source}"
                file.report.add((SCHEDULE, each.name), text)

    def read(self, file: _File, part: slice) -> None:
        """Read the new entries of a file; of those whose text was in a ``part`` of what was there before, only the
        line is new, and those that are written as others need not be parsed."""
        document, before, templates = file.document, file.before, EntryTemplates()
        places, new = before.places(part), list[Piece]()
        for piece in document.pieces():
            text, mark, line = piece
            if (place := places.get(mark)) is not None:
                entry, meaning = moved(before.entries[place], line), before.meanings[place]
            elif mark and (alike := templates.entry(text, document.file, line)):
                entry, meaning = alike, self.meanings.of(alike)
            else:
                new.append(piece)
                if len(new) == PARSED_AT_ONCE:
                    self.parse(file, new, templates)
                continue
            if new:
                self.parse(file, new, templates)
            if len(text) > self.light:
                self.weigh(entry, file.report)
            file.now.add(mark, entry, meaning)
        self.parse(file, new, templates)

    def parse(self, file: _File, new: list[Piece], templates: EntryTemplates) -> None:
        """Read entries that follow one another, and forget their pieces."""
        for (text, mark, _), raw in zip(new, file.document.tables(new), strict=True):
            entry = self.entry(file, raw, mark, len(text))
            if mark and entry and not templates.is_full and not is_named(raw.fields.get("schedule")):
                templates.learn(text, entry)
        new.clear()

    def entry(self, file: _File, raw: RawEntry, mark: int, length: int) -> Entry | None:
        """Read one entry; None for one with faults. Its text has so many characters at most."""
        document, report, (name, table, line) = file.document, file.report, raw
        fields = substitute(table, self.env, report, (SCHEDULE, name)) if file.has_variables else table
        entry = file.reader.read(name, fields, report, document.file, line)
        if entry is None:
            file.faulty.append(_Faulty(name, f"{document.file}:{line}"))
            return None
        if fields is not table or length > self.light:
            self.weigh(entry, report)
        file.now.add(mark, entry, self.meanings.of(entry))
        return entry if self.find_targets((SCHEDULE, name), fields, report) else None

    def find_targets(self, path: KeyPath, table: Mapping[str, Any], report: ErrorReport) -> bool:
        """Refuse a table, of an entry or of defaults, that names a notification target which does not exist."""
        named = table.get(NOTIFY)
        fault = unknown_target(named, self.targets) if named and not self.has_faulty_targets else ""
        if fault:
            report.add((*path, NOTIFY), fault)
        return not fault

    def weigh(self, entry: Entry, report: ErrorReport) -> None:
        """Refuse an entry whose messages would be too large."""
        if fault := too_large(entry, self.most_bytes):
            report.add((SCHEDULE, entry.name), fault)


def entry_tables(
    path: str | Path,
    name: str | None,
    *,
    timezone: str = "UTC",
    defaults: Mapping[str, Any] | None = None,
    env: Mapping[str, str] | None = None,
) -> dict[str, dict[str, Any]]:
    """The checked tables of the entries in a file, by name, with ``${VARIABLES}`` replaced.

    The file has tables ``[beat_schedule.NAME]``, of which ``name`` is taken, or all; or it has the keys of one entry,
    which is called ``name``. Raises ConfigError with all that is wrong.
    """
    document = Document(str(path), read(Path(path), str(path)))
    report = ErrorReport()
    found = {raw.name: raw.fields for raw in document.entries()}
    alone = not found and bool(document.settings)
    if alone:
        if name is None:
            raise _refused(document, "the file has the keys of one entry: give its name, as in beatd add NAME")
        found = {name: document.settings}
    else:
        for key in document.settings:
            report.add((key,), "settings are not allowed here: expected tables such as [beat_schedule.my-entry]")
    if name is not None and name not in found:
        raise _refused(document, f"no entry {quoted(name)} in this file{near(name, found)}")
    reader = EntryReader(timezone, defaults or {})
    tables = {}
    for each, fields in found.items() if name is None else [(name, found[name])]:
        tables[each] = substitute(fields, os.environ if env is None else env, report, (SCHEDULE, each))
        reader.read(each, tables[each], report, document.file)

    def position_of(keys: KeyPath) -> Position | None:
        return document.position_of(keys[2:] if alone and keys[:1] == (SCHEDULE,) else keys)

    if report:
        raise ConfigError(report.faults(document.file, position_of))
    if not tables:
        raise _refused(document, "no entry in this file: expected a table such as [beat_schedule.my-entry]")
    return {each: plain(fields) for each, fields in tables.items()}


def _refused(document: Document, message: str) -> ConfigError:
    return ConfigError([Fault(document.file, None, "", message)])


_MANY_OBJECTS = 50_000
"""So many are worth keeping away from the collector."""


@contextmanager
def _no_collections(*, again: bool) -> Iterator[None]:
    """Loading makes up to a million objects and no cycles; the collector would walk over them dozens of times.

    It would also do so afterwards, and stop every thread for as long: so they are set apart when they are many. What
    is garbage is collected first, lest it be set apart, too: what is young before the load, which makes none. When many
    are loaded ``again``, all of it: else it would add up. That walks over all that a daemon has in memory; a change of
    some entries does not ask for it.
    """
    with without_collections():
        gc.collect(1)
        try:
            yield
        finally:
            if gc.get_count()[0] > _MANY_OBJECTS:
                if again:
                    gc.collect()
                gc.freeze()
