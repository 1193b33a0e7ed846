"""Fields with ``${VARIABLES}`` as the files have them, so that an export has the variables and not their values."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from beatd.config.entries import DEFAULTS
from beatd.config.fields import OPTIONS
from beatd.config.loader import Config
from beatd.config.toml import Document, has_reference, read

_TOGETHER = ("schedule", "relative", "dst")
"""Fields that mean one thing: when one has a variable, the others are as written, too."""


def references(config: Config) -> dict[str, dict[str, Any]]:
    """The fields with variables of each entry of the files, by its name; those of ``[defaults]`` where they hold.

    Reads the files again. Raises ConfigError if one cannot be read any more.
    """
    found: dict[str, dict[str, Any]] = {}
    defaults: dict[str, Any] = {}
    for number, file in enumerate(config.files):
        text = read(Path(file), file)
        document = Document(file, text)
        own = {key: each for key, each in _table(document.settings.get("defaults")).items() if key in DEFAULTS}
        if "timezone" in document.settings:
            own = {"timezone": document.settings["timezone"], **own}
        if number == 0:
            defaults = own
        elif own:
            own = {**defaults, **own}
        for entry in document.entries():
            if fields := _with_variables({**(own or defaults), **_flat(_table(entry.fields))}):
                found[entry.name] = fields
    return found


def _flat(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of an entry with its ``options`` beside the others."""
    options = {key: each for key, each in _table(fields.get("options")).items() if key in OPTIONS}
    return {key: each for key, each in {**fields, **options}.items() if key != "options"}


def _with_variables(fields: Mapping[str, Any]) -> dict[str, Any]:
    keys = {key for key, each in fields.items() if has_reference(each)}
    if keys.intersection(_TOGETHER):
        keys.update(_TOGETHER)
    return {key: each for key, each in fields.items() if key in keys}


def _table(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
