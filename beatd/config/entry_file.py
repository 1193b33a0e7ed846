"""A file with entries to be put into the state store: tables as in ``beat.toml``, or the keys of one entry alone."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from beatd.config.entries import EntryReader
from beatd.config.faults import Report, near, quoted
from beatd.config.lines import Path as Keys
from beatd.config.text import SCHEDULE, Document, read
from beatd.config.variables import plain, substitute
from beatd.exceptions import ConfigError, Fault


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
    which is called ``name``. Raises ConfigError with all that is wrong, each at its line.
    """
    shown = str(path)
    document = Document(shown, read(Path(path), shown))
    report = Report()
    found = {raw.name: raw.fields for raw in document.entries()}
    alone = not found and bool(document.settings)
    if alone:
        if name is None:
            raise ConfigError([Fault(shown, None, "", "this is one entry: give its name, as in beatd add NAME")])
        found = {name: document.settings}
    else:
        for key in document.settings:
            report.add((key,), "only entries are read here, and this is a setting")
    if name is not None and name not in found:
        raise ConfigError([Fault(shown, None, "", f"there is no entry {quoted(name)} here{near(name, found)}")])
    reader = EntryReader(timezone, defaults or {})
    tables = {}
    for each, fields in found.items() if name is None else [(name, found[name])]:
        tables[each] = substitute(fields, os.environ if env is None else env, report, (SCHEDULE, each))
        reader.read(each, tables[each], report, shown)

    def line_of(keys: Keys) -> int | None:
        return document.line_of(keys[2:] if alone and keys[:1] == (SCHEDULE,) else keys)

    if report:
        raise ConfigError(report.faults(shown, line_of))
    if not tables:
        raise ConfigError([Fault(shown, None, "", "there is no entry in this file")])
    return {each: plain(fields) for each, fields in tables.items()}
