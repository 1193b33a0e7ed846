"""Pickles as data: what is in them is read, and no code of anybody's is run.

A pickle names classes and functions to be called. Here none of them is imported: each becomes a :class:`Record` of how
it was called. Only values that are harmless to make (moments, durations, sets) are made.
"""

from __future__ import annotations

import datetime
import io
import pickle
import zoneinfo
from typing import Any

LARGEST = 4 << 20
"""Bytes of one pickle."""


class Record:
    """An object of a pickle: its class by name, how it was made, and its state."""

    name = ""

    def __new__(cls, *args: Any, **_kwargs: Any) -> Record:
        """Note the arguments; pickles make objects with and without ``__init__``."""
        self = super().__new__(cls)
        self.made_with = args
        return self

    def __init__(self, *_: Any, **__: Any) -> None:
        self.made_with: tuple[Any, ...]

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __call__(self, *args: Any, **kwargs: Any) -> Record:
        """Note a call of something that a call has made."""
        return type(self)(*args, **kwargs)

    def append(self, _value: Any) -> None:
        """Take items of a list's subclass, and forget them."""

    def extend(self, _values: Any) -> None:
        """The same, for several."""

    def __setitem__(self, _key: Any, _value: Any) -> None:
        """Take items of a dict's subclass, and forget them."""

    state: Any = None

    @property
    def fields(self) -> dict[str, Any]:
        """The state as a mapping: a dict, the first of a pair with slots, or nothing."""
        state = self.state
        if isinstance(state, tuple):
            merged: dict[str, Any] = {}
            for part in state:
                merged |= part if isinstance(part, dict) else {}
            return merged
        return state if isinstance(state, dict) else {}


def _datetime(*args: Any) -> Any:
    """A moment; its time zone may be one of pytz. With one that is not known it stays a record, which is no moment."""
    if len(args) > 1 and isinstance(args[-1], Record):
        if (known := zone_of(args[-1])) is None:
            return Record(*args)
        args = (*args[:-1], known)
    return datetime.datetime.__new__(datetime.datetime, *args)


def _zone(key: str, *_: Any) -> datetime.tzinfo:
    return zoneinfo.ZoneInfo(key)


def _attribute(owner: Any, name: Any) -> Any:
    """``getattr`` for the one thing that moments need it for."""
    return _zone if (owner, name) == (_zone, "_unpickle") else Record


_VALUES: dict[tuple[str, str], Any] = {
    ("builtins", "getattr"): _attribute,
    ("zoneinfo", "ZoneInfo"): _zone,
    ("zoneinfo", "ZoneInfo._unpickle"): _zone,
    ("datetime", "datetime"): _datetime,
    ("datetime", "date"): datetime.date,
    ("datetime", "time"): datetime.time,
    ("datetime", "timedelta"): datetime.timedelta,
    ("datetime", "timezone"): datetime.timezone,
    ("builtins", "set"): set,
    ("builtins", "frozenset"): frozenset,
}


class _Reader(pickle.Unpickler):
    def find_class(self, module_name: str, global_name: str, /) -> Any:
        if (module_name, global_name) in _VALUES:
            return _VALUES[module_name, global_name]
        return type("Record", (Record,), {"name": f"{module_name}.{global_name}"})

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError(f"it refers to something outside of it: {pid!r}"[:100])


def read_pickle(data: bytes) -> Any:
    """The content of a pickle. Raises ValueError for what is none."""
    if len(data) > LARGEST:
        raise ValueError(f"its pickle has more than {LARGEST >> 20} MiB")
    try:
        return _Reader(io.BytesIO(data)).load()
    except Exception as error:  # noqa: BLE001 - broken pickles raise anything
        why = " ".join(str(error).split())[:150]
        raise ValueError(f"its pickle cannot be read: {why or type(error).__name__}") from None


def class_of(value: Any) -> str:
    """The name of the class of a record, without its module; empty for other values."""
    return value.name.rpartition(".")[2] if isinstance(value, Record) else ""


def zone_of(value: Any) -> datetime.tzinfo | None:
    """The time zone of a pickle, also one of pytz or dateutil; None for one that does not say which it is."""
    if not isinstance(value, Record):
        return value if isinstance(value, datetime.tzinfo) else None
    if name := _named(value):
        try:
            return zoneinfo.ZoneInfo(name)
        except (LookupError, ValueError, OSError):
            return None
    first = value.made_with[0] if value.made_with else None
    made = first.name if isinstance(first, type) and issubclass(first, Record) else value.name
    if "UTC" in made.upper():
        return datetime.UTC
    offset = value.fields.get("_offset")  # of dateutil
    if class_of(value) == "FixedOffset" and isinstance(first, int):  # of pytz, in minutes
        offset = datetime.timedelta(minutes=first)
    return datetime.timezone(offset) if isinstance(offset, datetime.timedelta) else None


def _named(value: Record) -> str:
    """The name of a zone of pytz: it is the first argument of the function that makes it."""
    first = value.made_with[0] if value.made_with else ""
    return first if isinstance(first, str) else ""


def zone_name(value: Any) -> str:
    """The name of a time zone of a pickle; empty if it has none."""
    if isinstance(value, Record) and (name := _named(value)):
        return name
    zone = zone_of(value)
    if not isinstance(zone, datetime.timezone):
        return str(getattr(zone, "key", "") or "")
    hours = zone.utcoffset(None) / datetime.timedelta(hours=1)
    if not hours:
        return "UTC"
    return f"Etc/GMT{-int(hours):+d}" if hours.is_integer() and -12 <= hours <= 14 else ""
