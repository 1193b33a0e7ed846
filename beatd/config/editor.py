"""Changes to files that people wrote: entries are added and changed; comments, order and layout stay.

New entries go to the end, in the style of the documentation. An entry that is there keeps its table: the settings that
differ are replaced in their lines, new ones follow the last one. What is written is read again before it is returned.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import tomlkit
from tomlkit.exceptions import TOMLKitError
from tomlkit.items import Item, Table

from beatd.config.toml import SCHEDULE, Document
from beatd.config.toml_parser import TomlError, parse
from beatd.config.writer import table_text, toml_value
from beatd.exceptions import ConfigError, Fault
from beatd.model import alike


class Edited(NamedTuple):
    """The new text, and the names of the entries by what became of them."""

    text: str
    added: Sequence[str]
    changed: Sequence[str]
    unchanged: Sequence[str]


def with_entries(file: str, text: str, tables: Mapping[str, Mapping[str, Any]], *, replace: bool = False) -> Edited:
    """The text of ``file`` with these entries in it. ``tables`` have their values as a file has them.

    An entry that is there with other settings is changed only with ``replace``. Raises ConfigError for text that is not
    TOML, for entries that may not be changed, and for a layout that cannot be edited.
    """
    document = Document(file, text)
    there = {raw.name: raw.fields for raw in document.entries()}
    changed = [name for name, table in tables.items() if name in there and not alike(there[name], table)]
    if changed and not replace:
        raise ConfigError(
            Fault(
                file,
                document.line_of((SCHEDULE, name)),
                f"{SCHEDULE}.{name}",
                "the entry is there already; --force changes it",
            )
            for name in changed
        )
    added = [name for name in tables if name not in there]
    edited = _changed(text, {name: tables[name] for name in changed}) if changed else text
    for name in added:
        edited = f"{edited.rstrip()}\n\n{table_text(name, tables[name])}".lstrip("\n")
    if "\r\n" in text and text.count("\r\n") == text.count("\n"):  # where lines end in both ways, the others stay
        edited = edited.replace("\r\n", "\n").replace("\n", "\r\n")
    expected = {**there, **{name: dict(tables[name]) for name in (*changed, *added)}}
    if not alike(_schedule(edited), expected):
        raise ConfigError(
            [Fault(file, None, "", "its layout is one that cannot be edited safely; write the entries by hand")]
        )
    return Edited(edited, added, changed, [name for name in tables if name not in {*added, *changed}])


def _schedule(text: str) -> dict[str, Any] | None:
    try:
        found = parse(text).get(SCHEDULE, {})
    except TomlError:
        return None
    return found if isinstance(found, dict) else None


def _changed(text: str, tables: Mapping[str, Mapping[str, Any]]) -> str:
    """The text with other settings in these entries; the same text where tomlkit cannot do it."""
    try:
        document = tomlkit.parse(f"{text.rstrip()}\n")
        for name, table in tables.items():
            _change(document[SCHEDULE][name], table)
        return tomlkit.dumps(document)
    except (TOMLKitError, KeyError, TypeError, AttributeError, ValueError):
        return text


def _change(there: Any, table: Mapping[str, Any]) -> None:
    for key in [key for key in there if key not in table]:
        del there[key]
    last = list(there)[-1] if there else None
    for key, value in table.items():
        if key in there:
            item = there[key]  # tomlkit has flags as they are
            if not alike(item.unwrap() if isinstance(item, Item) else item, value):
                there[key] = tomlkit.value(toml_value(value))
            continue
        item = tomlkit.value(toml_value(value))
        if last is not None and isinstance(there, Table):
            # Appended, it would come after the comments above the next table.
            there.value._insert_after(last, key, item)
        else:
            there[key] = item
        last = key
