"""Secrets that are kept in files of their own, such as ``/run/secrets/redis-url``; they are never shown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from msgspec import UNSET

from beatd.config import values
from beatd.config.errors import ErrorReport
from beatd.config.fields import read_value
from beatd.config.toml import Substituted
from beatd.config.toml_lines import KeyPath
from beatd.config.values import CONTROL, InvalidValue, shown

FILE = "{}_file"
"""The setting that names the file of another one."""
_LONGEST = 8192


def read_secrets(
    table: KeyPath, keys: Iterable[str], raw: Mapping[str, Any], folder: Path, report: ErrorReport
) -> dict[str, Substituted]:
    """The settings of a table that are kept in a file, with what is in it."""
    found = {}
    for key in keys:
        if (named := FILE.format(key)) in raw:
            path = (*table, named)
            if key in raw:
                report.add(path, f"{key} and {named} are both set; expected one of them")
            secret = read_value(lambda value, _zone: _content(folder, value), raw[named], "", report, path)
            if secret is not UNSET:  # an address may have blank lines around it, and a password one line end
                text = secret.removesuffix("\n").removesuffix("\r") if key == "password" else secret.strip()
                found[key] = Substituted(text, secret.written)
    return found


def named_files(tables: Iterable[Any], keys: Iterable[str]) -> Iterator[str]:
    """The files that tables of a configuration name; what cannot be the name of a file is left out."""
    for table in tables:
        if isinstance(table, Mapping):
            named = (table.get(FILE.format(key)) for key in keys)
            yield from (str(path) for path in named if isinstance(path, str) and path and not CONTROL.search(path))


def _content(folder: Path, raw: Any) -> Substituted:
    path = folder / values.text(raw)
    try:
        if path.exists() and not path.is_file():
            raise InvalidValue(f"{shown(raw)} is not a regular file")
        with path.open(encoding="utf-8-sig") as file:
            text = file.read(_LONGEST + 1)
    except OSError as error:
        raise InvalidValue(f"{shown(raw)} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InvalidValue(f"{shown(raw)} cannot be read: it is not UTF-8") from None
    if len(text) > _LONGEST:
        raise InvalidValue(f"{shown(raw)} has more than {_LONGEST} characters; expected one short line")
    return Substituted(text, str(shown(raw)))
