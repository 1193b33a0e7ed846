"""The JSON Schema of ``beat.toml``, for editors: made from the tables of settings and from what their readers take."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from beatd.config.entries import DEFAULTS, ENTRY, LONGEST_NAME, NEEDED
from beatd.config.fields import ABOUT_SECTIONS, CAN_BE_OFF, OPTIONS, SECTIONS, Field, Fields
from beatd.config.schema_types import (
    BLACKOUT_NAME,
    DEFINITIONS,
    INTERVAL,
    TEXT,
    JsonSchema,
    accepted,
    definition,
    either,
    table,
    wrapped,
)
from beatd.config.secret_file import FILE
from beatd.config.settings import SECRETS, STATE_DIR, STRUCTS, TOP
from beatd.config.shared_blackouts import SECTION
from beatd.config.targets import NOTIFY, TARGET, notify_schema
from beatd.config.values import size_text
from beatd.model import NotifyTarget, Options, Policies
from beatd.schedules import duration_text

ID = "https://raw.githubusercontent.com/beatd/beatd/main/config/beat.schema.json"
"""The address of the schema, also in the catalog of SchemaStore."""

_ENTRY_DEFAULTS = {
    "timezone": "UTC",
    "dst": "cron",
    "relative": False,
    "args": [],
    "kwargs": {},
    "options": {},
    **{key: getattr(struct, key) for struct in (Options(), Policies()) for key in struct.__struct_fields__},
}
_TOP_DEFAULTS = {"timezone": "UTC", "include": [], "allow_empty": False, "state_dir": STATE_DIR}


def schema() -> JsonSchema:
    """The schema, in draft 7, which is what editors of TOML understand."""
    sections = {name: _section(name, fields) for name, fields in SECTIONS.items()}
    schedule = {
        "type": "object",
        "description": "The entries, each in a table of its own: [beat_schedule.NAME].",
        "propertyNames": {"minLength": 1, "maxLength": LONGEST_NAME, "pattern": r"^(?=.*\S)[^\x00-\x1f\x7f-\x9f]*$"},
        "additionalProperties": definition("entry"),
    }
    defaults = _closed({name: _as_in_an_entry(name) for name in DEFAULTS})
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "$id": ID,
        "title": "beat.toml",
        "description": "The schedule of beatd, and the settings of its daemon.",
        **_closed(
            {
                **_properties(TOP, _TOP_DEFAULTS),
                **sections,
                NOTIFY: notify_schema(_properties(TARGET, _target_defaults())),
                SECTION: {
                    "type": "object",
                    "description": "Shared blackouts, each with a name by which entries use it.",
                    "propertyNames": {"pattern": BLACKOUT_NAME},
                    "additionalProperties": either(
                        *DEFINITIONS["blackout"]["anyOf"], table(("windows",), windows=definition("blackout"))
                    ),
                },
                "defaults": {"description": "What holds for each entry that does not say otherwise.", **defaults},
                "beat_schedule": schedule,
            }
        ),
        "definitions": {
            **DEFINITIONS,
            "entry": _entry(),
            "options": _closed({name: _as_in_an_entry(name) for name in OPTIONS}),
        },
    }


def _target_defaults() -> dict[str, Any]:
    target = NotifyTarget(name="")
    return {"on": list(target.on), "match": "*"} | {
        key: getattr(target, key) for key in ("after", "repeat_ms", "interval_ms", "timeout_ms")
    }


def schema_text() -> str:
    """The schema as the file that stands beside ``beat.toml``."""
    return json.dumps(schema(), indent=2) + "\n"


def _entry() -> JsonSchema:
    """An option stands in the entry or in its ``options``, not in both; and only an interval can be relative."""
    elsewhere = {name: {"properties": {"options": {"not": {"required": [name]}}}} for name in OPTIONS}
    properties = _properties(ENTRY, _ENTRY_DEFAULTS)
    properties |= {name: _or_off(properties[name]) for name in ENTRY if name in CAN_BE_OFF}
    return {
        "description": "An entry.",
        **_closed(properties),
        "required": list(NEEDED),
        "dependencies": elsewhere,
        "if": {"properties": {"relative": {"const": True}}, "required": ["relative"]},
        "then": {"properties": {"schedule": either(*INTERVAL["anyOf"], {"type": "object"})}},
    }


def _section(name: str, fields: Fields) -> JsonSchema:
    struct = STRUCTS[name]()
    defaults = {key: getattr(struct, key) for key in struct.__struct_fields__}
    in_files = {FILE.format(key): key for key in SECRETS if key in fields}
    files = {file: {**wrapped(TEXT), "description": f"A file that holds the {key}."} for file, key in in_files.items()}
    closed = {"description": ABOUT_SECTIONS[name], **_closed({**_properties(fields, defaults), **files})}
    if in_files:
        closed["dependencies"] = {file: {"not": {"required": [key]}} for file, key in in_files.items()}
    return closed


def _closed(properties: JsonSchema) -> JsonSchema:
    return {"type": "object", "additionalProperties": False, "properties": properties}


def _properties(fields: Fields, defaults: Mapping[str, Any]) -> JsonSchema:
    return {name: _property(field, defaults.get(field.into)) for name, field in fields.items()}


def _property(field: Field, default: Any) -> JsonSchema:
    said = {**wrapped(accepted(field.read)), "description": field.about, "examples": [field.example]}
    if definition("duration") in said.get("anyOf", ()):
        said["description"] += ' Seconds (30, 0.5), or a text such as "1h30m".'
    if default is not None:
        said["default"] = _written(field.into, default)
    return said


def _or_off(said: JsonSchema) -> JsonSchema:
    """The same, or ``false``."""
    taken = {key: value for key, value in said.items() if key not in ("description", "examples", "default")}
    notes = {key: value for key, value in said.items() if key not in taken}
    parts = taken["anyOf"] if set(taken) == {"anyOf"} else taken["allOf"] if set(taken) == {"allOf"} else [taken]
    return {**either(*parts, definition("off")), **notes}


def _written(attribute: str, value: Any) -> Any:
    """A value as one writes it in the file; the attribute's name says its unit."""
    if attribute.endswith("_ms"):
        return duration_text(value)
    if attribute.endswith("_bytes"):
        return size_text(value)
    return list(value) if isinstance(value, tuple) else value


def _as_in_an_entry(name: str) -> JsonSchema:
    return {"$ref": f"#/definitions/entry/properties/{name}"}
