"""How commands write files for people: never over something, unless they were told to, and never half of it."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import click


def write_file(path: Path, text: str, *, force: bool = False, mode: int = 0o644) -> None:
    """Write all of ``text`` or nothing. Raises click.ClickException if the file is there or cannot be written."""
    if path.exists() and not force:
        raise click.ClickException(f"{path} is there already; --force overwrites it")
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        Path(temporary).chmod(mode)
        Path(temporary).replace(path)
    except OSError as error:
        raise click.ClickException(f"{path} cannot be written: {error.strerror}") from None
