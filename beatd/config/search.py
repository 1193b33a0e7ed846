"""Search for files: the one to load, and those that it includes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from glob import escape, glob, has_magic
from itertools import takewhile
from pathlib import Path

from beatd.config.errors import ErrorReport
from beatd.config.toml_lines import KeyPath
from beatd.exceptions import ConfigError, Fault

FILE_VARIABLE = "BEATD_CONFIG"
PLACES = ("beat.toml", "/etc/beatd/beat.toml")


def find(path: str | Path | None = None, env: Mapping[str, str] | None = None) -> Path:
    """The file to load: ``path``, else ``$BEATD_CONFIG``, ``./beat.toml``, ``/etc/beatd/beat.toml``.

    Only the last two are looked for; what was named must exist when it is loaded. Raises ConfigError with the places
    that were tried.
    """
    named = path or (os.environ if env is None else env).get(FILE_VARIABLE)
    if named:
        return Path(named)
    for place in map(Path, PLACES):
        if _may_be_there(place):
            return place
    tried = f"tried ${FILE_VARIABLE} (not set), " + ", ".join(f"./{p}" if not p.startswith("/") else p for p in PLACES)
    text = f"no configuration file; {tried}; name one with --config, or write one with beatd init"
    raise ConfigError([Fault("beat.toml", None, "", text)])


def _may_be_there(place: Path) -> bool:
    """True for a file that is there, or that this user may not look at: reading it says so."""
    try:
        place.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        pass
    return True


def included(main: Path, pattern: str, report: ErrorReport, place: KeyPath) -> list[Path]:
    """The files of one pattern of ``include``, sorted. A pattern may match none; a plain path must be there."""
    where = Path(escape(str(main.parent))) / pattern
    found = [Path(file) for file in sorted(matches(str(where)))]
    if not found and (wrong := _unreadable(main.parent, pattern)):
        report.add(place, wrong)
    elif not found and not has_magic(pattern):
        report.add(place, "no such file; only a pattern with * may match nothing")
    if any(_is_same(file, main) for file in found):
        report.add(place, "the pattern matches this file: a file cannot include itself")
        return []
    is_folder = os.path.isdir  # False, and no error, where a folder lets its names be read and nothing else
    return [file for file in found if not (has_magic(pattern) and file.suffix != ".toml" and is_folder(file))]


def matches(pattern: str) -> set[str]:
    """The names that match, as :func:`glob.glob` finds them, but each folder is entered once by a ``**``.

    So symbolic links that lead back to a folder above them end the search, and no file is found under two names of its
    folder.
    """
    if pattern.endswith("/**"):
        pattern += "/*"
    base, found, rest = pattern.partition("/**/")
    if not found:
        return set(glob(pattern))  # noqa: PTH207 - may be absolute
    seen: set[tuple[int, int]] = set()
    folders = (below for top in sorted(glob(f"{base}/")) for below in _folders(top, seen))  # noqa: PTH207 - likewise
    return {name for folder in folders for name in matches(f"{escape(folder)}{rest}")}


def _folders(top: str, seen: set[tuple[int, int]]) -> Iterator[str]:
    """The folder and those below it that are not hidden, with a slash at the end; each once, links after the others."""
    try:
        facts = os.stat(top)  # noqa: PTH116 - names, not paths
        below = sorted(glob(f"{escape(top)}*/"), key=lambda name: (os.path.islink(name[:-1]), name))  # noqa: PTH114, PTH207
    except OSError:
        return
    if (identity := (facts.st_dev, facts.st_ino)) not in seen:
        seen.add(identity)
        yield top
        for name in below:
            yield from _folders(name, seen)


def _is_same(file: Path, other: Path) -> bool:
    try:
        return file.samefile(other)
    except OSError:  # it is gone, or may not be looked at: reading it says so
        return False


def _unreadable(folder: Path, pattern: str) -> str:
    """Return why the folder above the first wildcard of a pattern cannot be read; empty if it can, or is not there."""
    plain = takewhile(lambda part: not has_magic(part), Path(pattern).parts[:-1])
    try:
        os.listdir(folder.joinpath(*plain))  # noqa: PTH208 - names, not paths
    except PermissionError as error:
        return f"the folder {error.filename} cannot be read: {error.strerror}"
    except OSError:
        pass
    return ""
