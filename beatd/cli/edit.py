"""Changes by commands to a file that a person wrote."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from beatd.cli.output import plural, print_json, print_line, rewrite_file
from beatd.config.editor import with_entries
from beatd.config.toml import read


def put_entries(
    path: Path, tables: Mapping[str, Mapping[str, Any]], *, replace: bool, as_json: bool = False, err: bool = False
) -> None:
    """Add entries to the file at ``path``, with ``replace`` also change some, and print the result.

    Raises ConfigError, or click.ClickException for a file that cannot be written.
    """
    with _locked(path):
        edited = with_entries(str(path), read(path, str(path)), tables, replace=replace)
        if edited.added or edited.changed:
            rewrite_file(path, edited.text)
    words = {"added": edited.added, "changed": edited.changed, "unchanged": edited.unchanged}
    if as_json:
        print_json({"entries": {name: word for word, names in words.items() for name in names}, "file": str(path)})
        return
    counts = [f"{plural(len(names), 'entry')} {word}" for word, names in words.items() if names]
    print_line(f"{path}: {', '.join(counts) or 'no entries'}", err=err)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Keep other commands from changing the file meanwhile: one of both changes would be lost.

    The lock is that of the folder, as the file is replaced. Where nothing can be locked, it does without.
    """
    folder = -1
    with suppress(OSError):
        folder = os.open(os.path.dirname(os.path.realpath(path)), os.O_RDONLY)  # noqa: PTH120 - a text is enough
        fcntl.flock(folder, fcntl.LOCK_EX)
    try:
        yield
    finally:
        if folder >= 0:
            os.close(folder)
