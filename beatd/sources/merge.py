"""All sources as one schedule."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from beatd import config
from beatd.config import Config
from beatd.config.size import too_large
from beatd.exceptions import Fault
from beatd.model import Entry
from beatd.sources.app import read_app

log = logging.getLogger(__name__)


def load(
    path: str | Path, *, app: str | None = None, env: Mapping[str, str] | None = None, before: Config | None = None
) -> Config:
    """The file at ``path`` with the registrations of ``app``, or of the app that the file names, merged in.

    The module is imported in a process of its own, and may be beside the file. What was loaded ``before`` saves
    reading again what is written alike. Raises ConfigError with every fault of the first source that has any; but a
    registration of the app that cannot be read costs only itself, and is among the ``refused``.
    """
    found = config.load(path, env=env, before=before)
    name = app or found.settings.app
    if name is None:
        return found
    registered = read_app(
        name,
        timezone=found.settings.timezone,
        defaults=found.defaults,
        where="-A" if app else str(path),
        directory=str(Path(found.settings.file).parent),
    )
    most_bytes = found.settings.broker.max_message_bytes
    refused, light = list(registered.refused), []
    for entry in registered.entries:
        if fault := too_large(entry, most_bytes):
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
        remarks=registered.remarks,
        refused=tuple(refused),
    )


def merge(file_entries: Iterable[Entry], app_entries: Iterable[Entry]) -> tuple[Entry, ...]:
    """The file's entries, then those of the app whose names the file does not have; each such conflict is logged."""
    merged = {entry.name: entry for entry in file_entries}
    for entry in app_entries:
        if (other := merged.setdefault(entry.name, entry)) is not entry:
            log.warning(
                "Entry %s is in %s and in %s; the first counts",
                entry.name,
                other.source,
                entry.source,
                extra={"event": "entry_overruled", "entry": entry.name},
            )
    return tuple(merged.values())
