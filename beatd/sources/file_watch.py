"""File watch: the directories to watch so that no change of a file goes unseen, and snapshots to compare.

A file changes when it is written, and when a name on the way to it comes to mean something else: an editor renames a
new file into place, a deployment turns a symbolic link, Kubernetes swaps the ``..data`` link of a ConfigMap, a folder
is deleted and made again. So it is directories that are watched: of the file, and of each link on the way.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from glob import has_magic
from pathlib import Path

from beatd.config.search import matches

_LINKS = 40
"""Symbolic links that are followed for one file: Linux's own limit."""

Snapshot = dict[str, tuple[int, ...] | None]
"""What files look like: device, inode, size, the times of content and status in ns; None for one that is not there."""


def directories(files: Iterable[str], patterns: Iterable[str] = ()) -> set[str]:
    """The existing directories in which a change may change what ``files`` contain or what ``patterns`` match."""
    found: set[str] = set()
    for file in files:
        found |= _on_the_way(Path(file).parent / "file")
        found |= _on_the_way(Path(file))
    for pattern in patterns:
        found |= _on_the_way(_base(pattern) / "file")
        for match in matches(f"{pattern.rpartition('/')[0]}/"):
            found |= _on_the_way(Path(match) / "file")
    return found


def snapshot(files: Iterable[str], patterns: Iterable[str] = ()) -> Snapshot:
    """Take a snapshot of the files and of those that match: equal if nothing has changed."""
    names = set(files)
    for pattern in patterns:
        names.update(matches(pattern))
    return {name: _stat(name) for name in names}


def unchanged_since(instant_ns: int, facts: tuple[int, ...] | None) -> tuple[int, ...] | None:
    """Return the facts of a file that was last changed before the instant, else facts that no file has."""
    return facts if facts is None or facts[4] < instant_ns else ()


def unfinished(seen: Snapshot) -> bool:
    """True if a file is missing or empty: perhaps somebody is just writing it."""
    return any(facts is None or facts[2] == 0 for facts in seen.values())


def identities(names: Iterable[str]) -> dict[str, tuple[int, int] | None]:
    """Which directories these are: a watch holds on to the one that it was given, whatever its name comes to mean."""
    found: dict[str, tuple[int, int] | None] = {}
    for name in names:
        try:
            facts = os.stat(name)  # noqa: PTH116 - names, not paths
        except OSError:
            found[name] = None
        else:
            found[name] = (facts.st_dev, facts.st_ino)
    return found


def _stat(name: str) -> tuple[int, ...] | None:
    try:
        facts = os.stat(name)  # noqa: PTH116 - names, not paths
    except OSError:
        return None
    return (facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns)


def _base(pattern: str) -> Path:
    """The directory above the first part that has a wildcard."""
    parts = Path(pattern).parts
    plain = next((number for number, part in enumerate(parts) if has_magic(part)), len(parts) - 1)
    return Path(*parts[:plain])


def _on_the_way(path: Path, links: int = _LINKS) -> set[str]:
    """The directory of ``path``, or the nearest that exists, and that of each symbolic link on the way."""
    found: set[str] = set()
    here = Path(path.anchor)
    parts = path.parts[1:]
    for number, part in enumerate(parts):
        step = here / part
        if links > 0 and (link := _link(step)):
            found.add(str(here))
            rest = Path(*parts[number + 1 :]) if number + 1 < len(parts) else Path()
            target = Path(os.path.normpath(here / link / rest))
            return found | _on_the_way(target, links - 1)
        if number == len(parts) - 1 or not os.path.isdir(step):  # noqa: PTH112 - False also where nothing may be read
            return found | {str(here)}
        here = step
    return found | {str(here)}


def _link(path: Path) -> str:
    """The target of a symbolic link; empty for what is none, or may not be looked at."""
    try:
        return os.readlink(path)  # noqa: PTH115 - a text is enough
    except OSError:
        return ""
