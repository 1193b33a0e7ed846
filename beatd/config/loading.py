"""Reading the main file and what it includes, and finding it in the first place."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from glob import escape, glob, has_magic
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec

from beatd.config.entries import EntryReader
from beatd.config.faults import Report, quoted
from beatd.config.settings import read_settings, read_timezone, refuse_settings
from beatd.config.shapes import read_defaults
from beatd.config.text import SCHEDULE, Document, read
from beatd.config.values import told
from beatd.config.variables import substitute
from beatd.exceptions import ConfigError, Fault
from beatd.model import Entry, Settings

FILE_VARIABLE = "BEATD_CONFIG"
PLACES = ("beat.toml", "/etc/beatd/beat.toml")


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """What the files say.

    ``files`` are all that were read and ``globs`` the patterns of ``include``, both absolute: what a watcher watches.
    ``defaults`` is the checked ``[defaults]`` table, for entries from elsewhere. ``digest`` changes when, and only
    when, the schedule means something else.
    """

    settings: Settings
    entries: tuple[Entry, ...]
    files: tuple[str, ...]
    globs: tuple[str, ...]
    digest: str
    defaults: dict[str, Any]


def load(path: str | Path, *, env: Mapping[str, str] | None = None) -> Config:
    """The configuration in the file at ``path`` and in the files that it includes.

    ``env`` has the values of ``${VARIABLES}``, by default the process's environment. Raises ConfigError with
    everything that is wrong in all of the files, sorted by file and line.
    """
    with _no_collections():
        return _Load(os.environ if env is None else env).main(Path(path))


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


def digest(entries: tuple[Entry, ...]) -> str:
    """What a schedule means, as text of 16 hexadecimal digits: the same on every host, in whatever order and files
    the entries are written."""
    shapes: dict[tuple[int, int, int], str] = {}
    total = 0
    for entry in entries:
        key = (id(entry.schedule), id(entry.options), id(entry.policies))
        shape = shapes.get(key)
        if shape is None:
            shape = shapes[key] = _shape_digest(entry)
        meaning = _meaning((entry.name, entry.task, entry.args, entry.kwargs, shape))
        total ^= int.from_bytes(sha256(meaning).digest()[:8])
    return f"{total:016x}"


def _shape_digest(entry: Entry) -> str:
    blackout = entry.policies.blackout
    policies = msgspec.structs.replace(entry.policies, blackout=None)
    parts = (entry.schedule.fingerprint, entry.timezone, entry.options, policies, blackout and blackout.notation)
    return sha256(_meaning(parts)).hexdigest()


def _meaning(value: Any) -> bytes:
    try:
        return _encode(value)
    except OverflowError:  # TOML and JSON know numbers of any length, the encoder those of 64 bits
        return repr(value).encode()


_encode = msgspec.msgpack.Encoder(order="deterministic", enc_hook=repr).encode
"""Leaves out what has its default, so that a field which a new version adds changes no digest."""


class _Load:
    """One load: the entries so far with the file of each name, and the faults so far."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self.env = env
        self.entries: list[Entry] = []
        self.names: dict[str, str] = {}
        self.faults: list[Fault] = []

    def main(self, path: Path) -> Config:
        shown = str(path)
        absolute = path.absolute()  # not resolved: a watcher must see a symbolic link change
        text = read(path, shown)
        report = Report()
        document = Document(shown, text)
        raw = substitute(document.settings, self.env, report, ()) if "${" in text else document.settings
        settings = read_settings(raw, absolute, self.env, report)
        defaults = read_defaults(raw.get("defaults", {}), settings.timezone, report)
        self.take(document, EntryReader(settings.timezone, defaults), report)
        files = [path]
        for place, pattern in enumerate(settings.include):
            for file in matching(path, pattern, report, ("include", place)):
                if file not in files:
                    files.append(file)
                    self.included(file, shown, settings.timezone, defaults)
        self.faults[:0] = report.faults(shown, document.line_of)
        if self.faults:
            raise ConfigError(self.faults)
        entries = tuple(self.entries)
        return Config(
            settings=settings,
            entries=entries,
            files=tuple(str(file.absolute()) for file in files),
            globs=tuple(str(Path(escape(str(absolute.parent))) / pattern) for pattern in settings.include),
            digest=digest(entries),
            defaults=defaults,
        )

    def included(self, file: Path, main: str, timezone: str, defaults: Mapping[str, Any]) -> None:
        """Read one included file; its time zone and defaults, if it has its own, hold for its entries only."""
        shown = str(file)
        report = Report()
        try:
            text = read(file, shown)
            document = Document(shown, text)
            raw = substitute(document.settings, self.env, report, ()) if "${" in text else document.settings
            refuse_settings(raw, main, report)
            timezone = read_timezone(raw, timezone, report)
            own = read_defaults(raw.get("defaults", {}), timezone, report)
            self.take(document, EntryReader(timezone, {**defaults, **own}), report)
        except ConfigError as error:
            self.faults += error.faults
        else:
            self.faults += report.faults(shown, document.line_of)

    def take(self, document: Document, reader: EntryReader, report: Report) -> None:
        """The entries of one file."""
        if not isinstance(document.schedule, dict):
            report.add((SCHEDULE,), f"expected tables such as [beat_schedule.my-entry], got {told(document.schedule)}")
        has_variables = "${" in document.text
        for name, raw, line in document.entries():
            fields = substitute(raw, self.env, report, (SCHEDULE, name)) if has_variables else raw
            source = f"{document.file}:{line}"
            if (other := self.names.setdefault(name, source)) is not source:
                report.add((SCHEDULE, name), f"the entry {quoted(name)} is already defined at {other}")
            elif entry := reader.read(name, fields, report, source):
                self.entries.append(entry)


def matching(main: Path, pattern: str, report: Report, place: tuple[str | int, ...]) -> list[Path]:
    """The files of one pattern of ``include``, sorted. A pattern may match none; a plain path must be there."""
    where = Path(escape(str(main.parent))) / pattern
    found = [Path(file) for file in sorted(glob(str(where), recursive=True))]  # noqa: PTH207 - may be absolute
    if not found and not has_magic(pattern):
        report.add(place, "no such file; only a pattern with * may match nothing")
    if any(file.exists() and file.samefile(main) for file in found):
        report.add(place, "this matches the file itself: a file cannot include itself")
        return []
    return [file for file in found if not (has_magic(pattern) and file.is_dir())]


@contextmanager
def _no_collections() -> Iterator[None]:
    """Loading makes a million objects and no cycles; the collector would walk over them dozens of times."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
