"""``celerybeat-schedule``: the file in which celery beat remembers when entries last ran. Read as data."""

from __future__ import annotations

import dbm
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from beatd.exceptions import ConfigError, Fault
from beatd.importers.pickles import Record, read_pickle
from beatd.timestamps import in_range, to_ms

_ENDINGS = (".db", ".dat", ".dir", ".pag")
"""Of files of some formats, beside the name that :mod:`dbm` knows them by."""


def read_celerybeat_file(path: Path) -> dict[str, int]:
    """When entries last ran, by name (ms). Raises ConfigError for a file that is none of celery beat's."""
    try:
        if not any(Path(f"{path}{ending}").exists() for ending in ("", *_ENDINGS)):
            raise _refused(path, "no such file: name the schedule file of celery beat with --schedule-file")
        with dbm.open(_name(path), "r") as file:
            data = bytes(file[b"entries"])
        entries = read_pickle(data)
    except KeyError:
        raise _refused(path, "has no entries: it is no file of celery beat's, or one that is not used yet") from None
    except ValueError as error:
        raise _refused(path, str(error)) from None
    except (OSError, ImportError, *dbm.error) as error:
        why = " ".join(str(error).split())[:150]
        raise _refused(path, f"cannot be read as a schedule file of celery beat: {why}") from None
    if not isinstance(entries, dict):
        raise _refused(path, "has no entries: it is no file of celery beat's")
    return {name: ms for name, entry in entries.items() if isinstance(name, str) and (ms := _last_run(entry))}


def _name(path: Path) -> str:
    """The name that :mod:`dbm` knows the file by: some formats add an ending of their own."""
    for ending in _ENDINGS:
        if not path.exists() and path.with_name(path.name + ending).exists():
            return str(path)
        if path.name.endswith(ending):
            return str(path.with_name(path.name.removesuffix(ending)))
    return str(path)


def _last_run(entry: Any) -> int | None:
    """The third argument that ``ScheduleEntry`` was made with; none for an entry that has not run."""
    if not isinstance(entry, Record) or len(entry.made_with) < 4:
        return None
    moment, count = entry.made_with[2], entry.made_with[3]
    if not isinstance(moment, datetime) or not count:
        return None
    ms = to_ms(moment if moment.tzinfo else moment.replace(tzinfo=UTC))
    return ms if in_range(ms) else None


def _refused(path: Path, why: str) -> ConfigError:
    return ConfigError([Fault(str(path), None, "", why)])
