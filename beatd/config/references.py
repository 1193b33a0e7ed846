"""Fields with ``${VARIABLES}`` as the files have them, so that an export has the variables and not their values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from beatd.config.entries import DEFAULTS, ENTRY
from beatd.config.entries import entry as made_entry
from beatd.config.fields import OPTIONS, over_defaults
from beatd.config.loader import Config
from beatd.config.shared_blackouts import SECTION, SHARED, Shared, parts_of, with_shared
from beatd.config.toml import Document, has_reference, read
from beatd.config.writer import Unwritable, entry_table
from beatd.model import Entry, alike

_TOGETHER = ({"schedule", "relative", "dst"}, {"blackout", "only_on"})
"""Fields that mean one thing: when one has a variable, the others are as written, too."""


def references(config: Config, others: Iterable[Entry] = ()) -> dict[str, dict[str, Any]]:
    """The fields with variables of each entry of the files, by its name; those of ``[defaults]`` where they hold.

    ``others`` are entries of an app or of the state store. What they have in common with ``[defaults]`` and shared
    blackouts is taken to come from there. Reads the files again. Raises ConfigError if one cannot be read any more.
    """
    found: dict[str, dict[str, Any]] = {}
    names: set[str] = set()
    zone: Mapping[str, Any] = {}
    defaults: Mapping[str, Any] = {}
    shared: Shared = {}
    has_variables = False
    for number, file in enumerate(config.files):
        document = Document(file, read(Path(file), file))
        settings = document.settings
        own_zone = {"timezone": settings["timezone"]} if "timezone" in settings else zone
        own = {key: each for key, each in _table(settings.get("defaults")).items() if key in DEFAULTS}
        if number == 0:
            zone, defaults, has_variables = own_zone, over_defaults({}, own), "${" in document.text
            shared = {name: parts_of(each) for name, each in _table(settings.get(SECTION)).items()}
        if not has_variables and "${" not in document.text:
            continue
        for entry in document.entries():
            names.add(entry.name)
            fields = _flat(_table(entry.fields))
            fields = {**own_zone, **over_defaults(over_defaults(defaults, own), fields)}
            if fields := _with_variables(fields, shared):
                found[entry.name] = fields
    if has_variables and (elsewhere := [entry for entry in others if entry.name not in names]):
        inherited = _Inherited(config, {**zone, **defaults}, shared)
        found |= {entry.name: fields for entry in elsewhere if (fields := inherited.of(entry))}
    return found


def _flat(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of an entry with its ``options`` beside the others."""
    options = {key: each for key, each in _table(fields.get("options")).items() if key in OPTIONS}
    return {key: each for key, each in {**fields, **options}.items() if key != "options"}


def _with_variables(fields: Mapping[str, Any], shared: Shared) -> dict[str, Any]:
    """The fields with variables, also with those of shared blackouts, which are written out."""
    fields = {key: with_shared(each, shared) if key == "blackout" else each for key, each in fields.items()}
    keys = {key for key, each in fields.items() if has_reference(each)}
    for several in _TOGETHER:
        if keys & several:
            keys |= several
    return {key: each for key, each in fields.items() if key in keys}


class _Inherited:
    """The fields with variables that entries have from ``[defaults]`` and shared blackouts of the main file."""

    def __init__(self, config: Config, defaults: Mapping[str, Any], shared: Shared) -> None:
        self._config = config
        self._written = _with_variables(defaults, shared)
        self._values = self._table({})
        self._parts: list[tuple[Any, Any]] = []
        """Parts of shared blackouts that have variables: the value of each, and what is written."""
        for name, values in config.defaults.get(SHARED, {}).items():
            for value, written in zip(values, shared[name], strict=True):
                if has_reference(written):
                    self._parts.append((self._table({"blackout": [value]})["blackout"][0], written))

    def of(self, entry: Entry) -> dict[str, Any]:
        """The fields that an entry has from there, as they are written."""
        try:
            table = entry_table(entry, "", leave_out=ENTRY.keys() - self._written.keys() - {"blackout"})
        except Unwritable:  # said where it is written
            return {}
        same = {key for key, each in table.items() if key in self._values and alike(self._values[key], each)}
        if "blackout" in same:
            same.add("only_on")
        fields = {key: each for key, each in self._written.items() if key in same}
        if "blackout" in table.keys() - fields.keys():
            parts = [self._part(part) for part in table["blackout"]]
            if parts != table["blackout"]:
                fields["blackout"] = parts
        return fields

    def _part(self, part: Any) -> Any:
        return next((written for value, written in self._parts if value == part), part)

    def _table(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """The table of an entry that has these fields, and the defaults."""
        config = self._config
        table = {"task": "t", "schedule": "@yearly", **fields}
        rules: dict[str, Any] = {"timezone": config.settings.timezone, "defaults": config.defaults}
        return entry_table(made_entry("defaults", table, **rules, source=config.settings.file), "")


def _table(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
