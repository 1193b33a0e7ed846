"""What an importer finds, before it is known whether it is an entry."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class Note(NamedTuple):
    """Something that was not carried over, or means something else now."""

    entry: str
    """Its name, or where it stands (``crontab:12``)."""
    about: str
    """The part that is meant (``options.compression``); empty for the whole entry."""
    why: str

    def __str__(self) -> str:
        return f"{self.entry}: {self.about}: {self.why}" if self.about else f"{self.entry}: {self.why}"


class Found(NamedTuple):
    """The fields of each entry as ``beat.toml`` has them, checked by nobody yet; and what had to be left behind."""

    entries: Mapping[str, Mapping[str, Any]]
    notes: tuple[Note, ...] = ()
    timezone: str = "UTC"
    """The time zone of entries that have none of their own."""
