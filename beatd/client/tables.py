"""What may be put into the store: tables of entries, checked and in the form in which they are stored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from beatd import config
from beatd.config.entries import without_none
from beatd.config.tables import plain_table
from beatd.exceptions import ConfigError, Fault
from beatd.store.runtime import place
from beatd.wire import dumps, loads

LARGEST = 1024 * 1024
"""Bytes that the table of an entry may have as JSON."""


def checked(
    name: str, table: Mapping[str, Any], *, timezone: str = "UTC", defaults: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The table as it is stored, without Python's own values; raises ConfigError with all that is wrong.

    ``timezone`` and ``defaults`` are those of the daemons' files, if they are known: a runtime entry is read with them.
    """
    plain = without_none(plain_table(table))
    config.entry(name, plain, timezone=timezone, defaults=defaults, source=place(name))
    raw = dumps(plain)
    if len(raw) > LARGEST:
        message = f"the entry has {len(raw) >> 10:,} KiB as JSON; at most {LARGEST >> 10:,} KiB are stored"
        raise ConfigError([Fault(place(name), None, "", message)])
    stored: dict[str, Any] = loads(raw)
    if stored != plain:  # it is this that daemons will read
        config.entry(name, stored, timezone=timezone, defaults=defaults, source=place(name))
    return stored
