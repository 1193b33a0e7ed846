"""Sources that had entries and have none any more: more likely a half-written or lost file than a decision."""

from __future__ import annotations

from collections.abc import Iterator

from beatd.config import Config
from beatd.exceptions import Fault
from beatd.model import Entry

_REMEDY = "allow_empty = true at the top of {} takes them out of the schedule"


def emptied(before: Config, now: Config) -> list[Fault]:
    """Name the sources that lost all of their entries since ``before``: the files, a pattern of ``include``, the app.

    Entries that moved elsewhere are not lost, nor are those of a pattern or an app that the file no longer names.
    Nothing is lost where ``allow_empty`` is set.
    """
    if now.settings.allow_empty:
        return []
    main = now.files[0]
    found = [*_files(before, now), *_patterns(before, now), *_app(before, now)]
    left = {entry.name for entry in now.entries} if found else set()
    return [
        Fault(file, None, path, f"{why}, before there were {len(entries):,}; {_REMEDY.format(main)}")
        for file, path, why, entries in found
        if left.isdisjoint(entry.name for entry in entries)
    ]


_Lost = tuple[str, str, str, list[Entry]]


def _files(before: Config, now: Config) -> Iterator[_Lost]:
    if _have_entries(before) and not _have_entries(now):
        yield now.files[0], "", "no entries left", _of_files(before)


def _patterns(before: Config, now: Config) -> Iterator[_Lost]:
    """Patterns that match no file any more. If no file has entries at all, that is said once."""
    if not _have_entries(now):
        return
    by_file = dict(zip(before.files, before.memory.values(), strict=False))
    matched = dict(zip(before.globs, before.matched, strict=True))
    for place, (pattern, files) in enumerate(zip(now.globs, now.matched, strict=True)):
        entries = [entry for file in matched.get(pattern, ()) for entry in by_file[file].entries]
        if entries and not files:
            yield now.files[0], f"include[{place}]", "no file matches any more", entries


def _app(before: Config, now: Config) -> Iterator[_Lost]:
    if before.settings.app is None or before.settings.app != now.settings.app:
        return
    entries, left = _of_app(before), _of_app(now)
    if entries and not left and not now.refused:
        yield now.files[0], now.settings.app or "", "the app registers no entries any more", entries


def _have_entries(config: Config) -> bool:
    return any(memory.entries for memory in config.memory.values())


def _of_files(config: Config) -> list[Entry]:
    return [entry for memory in config.memory.values() for entry in memory.entries]


def _of_app(config: Config) -> list[Entry]:
    """The entries after those of the files: see :func:`beatd.sources.merge.merge`."""
    return list(config.entries[sum(len(memory.entries) for memory in config.memory.values()) :])
