"""Output of the importers' child processes: a JSON document, and errors in words."""

from __future__ import annotations

import os
import sys
import sysconfig
import traceback
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from beatd.exceptions import ConfigError, MessageError
from beatd.importers.report import FoundSchedule, Note
from beatd.message.json_codec import dumps
from beatd.sources.celery_schedule import dropped, is_celery_schedule, notation


def write(descriptor: int, where: str, name: str, find: Callable[[], FoundSchedule]) -> None:
    """Write what ``find`` finds as JSON, or the fault that it raises, and leave at once."""
    write_document(descriptor, where, name, lambda: _document(find()))


def write_document(descriptor: int, where: str, name: str, make: Callable[[], dict[str, Any]]) -> None:
    """Write the document that ``make`` makes, or the fault that it raises, and leave at once."""
    os.set_inheritable(descriptor, False)
    sys.path.insert(0, str(Path.cwd()))
    try:
        document = make()
    except ConfigError as error:
        document = {"faults": list(error.faults)}
    except (Exception, SystemExit) as error:  # noqa: BLE001 - the user's code may raise anything
        document = {"faults": [[where, None, name, f"reading it failed:\n{_shown(error)}"]]}
    with os.fdopen(descriptor, "wb") as answer:
        answer.write(dumps(document))
    sys.stdout.flush()
    os._exit(0)


def plain(fields: Mapping[str, Any]) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """Fields with the notations of ``beat.toml`` for Celery's objects; and what there is none for, with the reason.

    Raises ValueError for a schedule without a counterpart.
    """
    table: dict[str, Any] = {}
    left_behind = list(dropped(fields))
    for key, value in fields.items():
        if is_celery_schedule(value):
            try:
                table |= notation(value)
            except ValueError as error:
                if key == "schedule":
                    raise
                left_behind.append((key, str(error)))
        elif key == "relative" and is_celery_schedule(fields.get("schedule")):
            continue  # Celery, too, asks it of plain intervals only
        elif isinstance(value, timedelta):
            table[key] = value.total_seconds()
        elif key == "options" and isinstance(value or {}, Mapping):
            table[key], inner = plain(value or {})
            left_behind += [(f"options.{option}", why) for option, why in inner]
        else:
            try:
                dumps(value)
                table[key] = value
            except MessageError as error:
                left_behind.append((key, str(error)))
    return table, left_behind


def _document(found: FoundSchedule) -> dict[str, Any]:
    entries, notes = {}, list(found.notes)
    for name, fields in found.entries.items():
        try:
            entries[name], left_behind = plain(fields)
        except Exception as error:  # noqa: BLE001 - objects of the user's may raise anything
            notes.append(Note(name, "", str(error) or type(error).__name__))
            continue
        notes += [Note(name, about, why) for about, why in left_behind]
    last_runs = dict(found.last_runs)
    return {"entries": entries, "notes": notes, "timezone": found.timezone, "last_runs": last_runs}


def _shown(error: BaseException) -> str:
    """The traceback from the first frame of the user's code on; only the error, if none of it was reached."""
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename.startswith(_NOT_THE_USERS):
        frames = frames.tb_next
    if frames is None:
        return "".join(traceback.format_exception_only(error)).rstrip()
    return "".join(traceback.format_exception(type(error), error, frames)).rstrip()


_NOT_THE_USERS = ("<frozen", str(Path(__file__).parent), sysconfig.get_path("stdlib"), sysconfig.get_path("purelib"))
