"""The loader: finds the main file, reads it and what it includes; or its settings alone.

Commands that operate a running system need to know where it is, and have to work while an entry is being mended. Of a
hundred thousand entries, a change touches one: the others are found again by the hash of their text, and are the same
objects as before.
"""

from __future__ import annotations

import gc
import os
from array import array
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from glob import escape, glob, has_magic
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from beatd.config.digest import EntryHasher, digest_of
from beatd.config.entries import LARGEST_GROWTH, EntryReader, too_large
from beatd.config.entry_spec import read_defaults
from beatd.config.environment import plain, substitute
from beatd.config.errors import ErrorReport
from beatd.config.settings import read_settings, read_timezone, refuse_settings, secret_files
from beatd.config.toml import SCHEDULE, Document, read
from beatd.config.values import shown
from beatd.exceptions import ConfigError, Fault
from beatd.model import BrokerSettings, Entry, Settings
from beatd.schedules.literals import quoted


class LoadedSettings(NamedTuple):
    """Settings and ``[defaults]`` of the main file, without its entries."""

    settings: Settings
    defaults: dict[str, Any]


def load_settings(path: str | Path, *, env: Mapping[str, str] | None = None) -> LoadedSettings:
    """The settings and ``[defaults]`` in the file at ``path``; its entries and what it includes are not looked at.

    Raises ConfigError with everything that is wrong with them.
    """
    shown = str(path)
    report = ErrorReport()
    text = read(Path(path), shown)
    document = Document(shown, text)
    env = os.environ if env is None else env
    raw = substitute(document.settings, env, report, ()) if "${" in text else document.settings
    settings = read_settings(raw, Path(path).absolute(), env, report)
    defaults = read_defaults(raw.get("defaults", {}), settings.timezone, report)
    if report:
        raise ConfigError(report.faults(shown, document.line_of))
    return LoadedSettings(settings, defaults)


class EntryCache:
    """The entries of one file, each with the mark of its text and with its meaning.

    ``context`` is what they depend on beside their own text. A mark is a 64-bit hash that differs from process to
    process; 0 marks what is to be read again each time.
    """

    def __init__(self, context: str) -> None:
        self.context = context
        self.entries: list[Entry] = []
        self.meanings = array("Q")
        self._marks = array("q")

    def add(self, mark: int, entry: Entry, meaning: int) -> None:
        """Keep an entry."""
        self._marks.append(mark)
        self.entries.append(entry)
        self.meanings.append(meaning)

    def __eq__(self, other: object) -> bool:
        """It says nothing: configurations are not told apart by what they remember."""
        return isinstance(other, EntryCache)

    __hash__ = None  # type: ignore[assignment]

    def places(self) -> dict[int, int]:
        """Map marks to the positions of their entries."""
        found = dict(zip(self._marks, range(len(self._marks)), strict=True))
        found.pop(0, None)
        return found


def moved(entry: Entry, source: str) -> Entry:
    """The entry, at ``source``."""
    return entry if entry.source == source else msgspec.structs.replace(entry, source=source)


FILE_VARIABLE = "BEATD_CONFIG"
PLACES = ("beat.toml", "/etc/beatd/beat.toml")


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """A loaded configuration: settings and entries of all files.

    ``files`` are all that were read and ``globs`` the patterns of ``include``, both absolute, for the file watcher.
    ``defaults`` is the checked ``[defaults]`` table, for entries from elsewhere. ``digest`` changes when, and only
    when, the schedule means something else. ``beside`` are files of other kinds on which it
    depends, absolute too: secrets, and the modules of an app. ``remarks`` are
    warnings that were found on the way, ``refused`` the faults of registrations of the app that are left out of
    ``entries``. ``memory`` is for the next load.
    """

    settings: Settings
    entries: tuple[Entry, ...]
    files: tuple[str, ...]
    globs: tuple[str, ...]
    digest: str
    defaults: dict[str, Any]
    beside: tuple[str, ...] = ()
    remarks: tuple[Fault, ...] = ()
    refused: tuple[Fault, ...] = ()
    memory: dict[str, EntryCache] = {}


def load(path: str | Path, *, env: Mapping[str, str] | None = None, before: Config | None = None) -> Config:
    """The configuration in the file at ``path`` and in the files that it includes.

    ``env`` has the values of ``${VARIABLES}``, by default the process's environment. With what was loaded ``before``,
    entries whose text is the same are not read again, and are the same objects. Raises ConfigError with everything that
    is wrong in all of the files, sorted by file and line.
    """
    with _no_collections(again=before is not None and len(before.entries) > _MANY_ENTRIES):
        return _Load(os.environ if env is None else env, before.memory if before else {}).main(Path(path))


def find(path: str | Path | None = None, env: Mapping[str, str] | None = None) -> Path:
    """The file to load: ``path``, else ``$BEATD_CONFIG``, ``./beat.toml``, ``/etc/beatd/beat.toml``.

    Only the last two are looked for; what was named must exist when it is loaded. Raises ConfigError with the places
    that were tried.
    """
    named = path or (os.environ if env is None else env).get(FILE_VARIABLE)
    if named:
        return Path(named)
    for place in map(Path, PLACES):
        if place.exists():
            return place
    tried = f"tried ${FILE_VARIABLE} (not set), " + ", ".join(f"./{p}" if not p.startswith("/") else p for p in PLACES)
    raise ConfigError([Fault("beat.toml", None, "", f"no configuration file; {tried}; name one with --config")])


class _Load:
    """One load: what was read of each file so far with the place of each name, and the faults so far."""

    def __init__(self, env: Mapping[str, str], before: Mapping[str, EntryCache]) -> None:
        self.env = env
        self.before = before
        self.memory: dict[str, EntryCache] = {}
        self.meanings = EntryHasher()
        self.most_bytes = BrokerSettings().max_message_bytes
        self.names: dict[str, str] = {}
        self.faults: list[Fault] = []

    def main(self, path: Path) -> Config:
        shown = str(path)
        absolute = path.absolute()  # not resolved: a watcher must see a symbolic link change
        text = read(path, shown)
        report = ErrorReport()
        document = Document(shown, text)
        raw = substitute(document.settings, self.env, report, ()) if "${" in text else document.settings
        settings = read_settings(raw, absolute, self.env, report)
        self.most_bytes = settings.broker.max_message_bytes
        defaults = read_defaults(raw.get("defaults", {}), settings.timezone, report)
        self.take(document, settings.timezone, defaults, report)
        files = [path]
        for place, pattern in enumerate(settings.include):
            for file in matching(path, pattern, report, ("include", place)):
                if file not in files:
                    files.append(file)
                    self.included(file, shown, settings.timezone, defaults)
        self.faults[:0] = report.faults(shown, document.line_of)
        if self.faults:
            raise ConfigError(self.faults)
        contents = self.memory.values()
        return Config(
            settings=settings,
            entries=tuple(chain.from_iterable(file.entries for file in contents)),
            files=tuple(str(file.absolute()) for file in files),
            globs=tuple(str(Path(escape(str(absolute.parent))) / pattern) for pattern in settings.include),
            digest=digest_of(chain.from_iterable(file.meanings for file in contents)),
            defaults=defaults,
            beside=secret_files(raw, absolute.parent),
            memory=self.memory,
        )

    def included(self, file: Path, main: str, timezone: str, defaults: Mapping[str, Any]) -> None:
        """Read one included file; its time zone and defaults, if it has its own, hold for its entries only."""
        shown = str(file)
        report = ErrorReport()
        try:
            text = read(file, shown)
            document = Document(shown, text)
            raw = substitute(document.settings, self.env, report, ()) if "${" in text else document.settings
            refuse_settings(raw, main, report)
            timezone = read_timezone(raw, timezone, report)
            own = read_defaults(raw.get("defaults", {}), timezone, report)
            self.take(document, timezone, {**defaults, **own}, report)
        except ConfigError as error:
            self.faults += error.faults
        else:
            self.faults += report.faults(shown, document.line_of)

    def take(self, document: Document, timezone: str, defaults: Mapping[str, Any], report: ErrorReport) -> None:
        """The entries of one file: those that it had before, and those to be read."""
        if not isinstance(document.schedule, dict):
            report.add((SCHEDULE,), f"expected tables such as [beat_schedule.my-entry], got {shown(document.schedule)}")
        reader = EntryReader(timezone, defaults)
        now = self.memory[document.file] = EntryCache(repr((timezone, plain(defaults), self.most_bytes)))
        before = self.before.get(document.file)
        if before is None or before.context != now.context:
            before = EntryCache("")
        places = before.places()
        has_variables = "${" in document.text
        for written, raw, line, mark, length in document.entries(places):
            source = f"{document.file}:{line}"
            known = before.entries[places[mark]] if raw is None else None
            name = known.name if known else written
            if (other := self.names.setdefault(name, source)) is not source:
                report.add((SCHEDULE, name), f"the entry {quoted(name)} is already defined at {other}")
            elif known:
                now.add(mark, moved(known, source), before.meanings[places[mark]])
            else:
                fields = substitute(raw, self.env, report, (SCHEDULE, name)) if has_variables else raw
                if (entry := reader.read(name, fields, report, source)) is None:
                    continue
                if fields is not raw or length * LARGEST_GROWTH > self.most_bytes:
                    self.weigh(entry, report)
                now.add(mark, entry, self.meanings.of(entry))

    def weigh(self, entry: Entry, report: ErrorReport) -> None:
        """Refuse an entry whose messages would be too large."""
        if fault := too_large(entry, self.most_bytes):
            report.add((SCHEDULE, entry.name), fault)


def matching(main: Path, pattern: str, report: ErrorReport, place: tuple[str | int, ...]) -> list[Path]:
    """The files of one pattern of ``include``, sorted. A pattern may match none; a plain path must be there."""
    where = Path(escape(str(main.parent))) / pattern
    found = [Path(file) for file in sorted(glob(str(where), recursive=True))]  # noqa: PTH207 - may be absolute
    if not found and not has_magic(pattern):
        report.add(place, "no such file; only a pattern with * may match nothing")
    if any(file.exists() and file.samefile(main) for file in found):
        report.add(place, "this matches the file itself: a file cannot include itself")
        return []
    return [file for file in found if not (has_magic(pattern) and file.is_dir())]


_MANY_ENTRIES, _MANY_OBJECTS = 5_000, 50_000
"""So many are worth keeping away from the collector."""


@contextmanager
def _no_collections(*, again: bool) -> Iterator[None]:
    """Loading makes up to a million objects and no cycles; the collector would walk over them dozens of times.

    It would also do so afterwards, and stop every thread for as long: so they are set apart when they are many. What
    is garbage is collected before, lest it be set apart, too; when that was done ``again`` and again it would add up.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    gc.collect(2 if again else 1)
    try:
        yield
    finally:
        if gc.get_count()[0] > _MANY_OBJECTS:
            gc.freeze()
        if was_enabled:
            gc.enable()
