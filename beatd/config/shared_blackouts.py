"""Shared blackouts, ``[blackout]``: each has a name, by which entries and ``[defaults]`` use it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from msgspec import UNSET

from beatd.config.errors import ErrorReport
from beatd.config.fields import POLICIES, read_value
from beatd.config.schema_types import BLACKOUT_NAME
from beatd.config.toml_lines import KeyPath
from beatd.config.values import shown

SECTION = "blackout"
SHARED = "[blackout]"
"""The key of the shared blackouts among the defaults of a file, which no file can write itself."""
_WINDOWS = "windows"

Shared = Mapping[str, list[Any]]


def read_shared_blackouts(raw: Any, timezone: str, report: ErrorReport) -> dict[str, list[Any]]:
    """The shared blackouts by name, each as a list of its parts; what is faulty is reported and left out.

    The value of a name is a blackout as an entry has it, or a table with a list of ``windows``.
    """
    if not isinstance(raw, Mapping):
        text = f'expected names such as maintenance = "22:00-06:00", got {shown(raw)}'
        report.add((SECTION,), text)
        return {}
    found = {}
    for name, value in raw.items():
        path: KeyPath = (SECTION, name)
        if not re.fullmatch(BLACKOUT_NAME, name):
            report.add(path, "the name of a blackout begins with a letter and has letters, digits, _ and - only")
            continue
        if isinstance(value, Mapping) and set(value) == {_WINDOWS}:
            value, path = value[_WINDOWS], (*path, _WINDOWS)  # noqa: PLW2901
        if read_value(POLICIES["blackout"].read, value, timezone, report, path) is not UNSET:
            found[name] = parts_of(value)
    return found


def parts_of(value: Any) -> list[Any]:
    """The parts of a shared blackout."""
    if isinstance(value, Mapping) and set(value) == {_WINDOWS}:
        value = value[_WINDOWS]
    return list(value) if isinstance(value, list) else [value]


def with_shared(value: Any, shared: Shared) -> Any:
    """A blackout in which names of shared ones are replaced by their parts."""
    if not shared:
        return value
    if isinstance(value, str):
        return shared.get(value, value)
    if isinstance(value, list):
        parts = (shared.get(part, [part]) if isinstance(part, str) else [part] for part in value)
        return [part for several in parts for part in several]
    return value
