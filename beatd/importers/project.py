"""The source code of a project that uses Celery: uses, and changes of import lines. Nothing of it is run."""

from __future__ import annotations

import ast
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from beatd.exceptions import ConfigError, Fault
from beatd.importers.celery_imports import find_imports, read_source, rewritten, unified_diff
from beatd.importers.celery_usage import Use, has_celery, uses_of
from beatd.importers.command_lines import NAMES, command_uses

_LEFT_OUT = {
    "__pycache__", "node_modules", "site-packages", "dist-packages", "venv", "env", "build", "dist", "htmlcov",
}  # fmt: skip
"""Folders that have no code of the project, and those whose names begin with a dot."""
_MOST_FILES = 50_000
_LARGEST = 4 << 20


class FileChange(NamedTuple):
    """The changed import lines of one file."""

    path: Path
    name: str
    new: str
    encoding: str
    imports: int
    diff: tuple[str, ...]


class Project(NamedTuple):
    """Result of looking at a project. ``unread`` are files that could not be read, with the reason."""

    shown: str
    files: int
    with_celery: int
    uses: tuple[Use, ...]
    changes: tuple[FileChange, ...]
    unread: tuple[str, ...]
    app: str | None
    """The name of the app, if there is exactly one."""


def read_project(place: Path) -> Project:
    """Look at all files of a folder, or at one file. Raises ConfigError if there is nothing to look at."""
    root = place if place.is_dir() else place.parent
    uses: list[Use] = []
    changes: list[FileChange] = []
    unread: list[str] = []
    apps: list[str] = []
    files = with_celery = 0
    for path in _files(place, unread):
        files += 1
        name = _shown(path, root)
        try:
            if path.stat().st_size > _LARGEST:
                unread.append(f"{name}: has more than {_LARGEST >> 20} MiB, and was not read")
                continue
            data = path.read_bytes()
        except OSError as error:
            unread.append(f"{name}: cannot be read: {error.strerror}")
            continue
        if b"elery" not in data and b"CELERY" not in data and b"kombu" not in data and b"BROKER_" not in data:
            continue
        if path.suffix == ".py":
            found = _python(path, name, data, unread)
            if found is None:
                continue
            uses += found.uses
            changes += [found.change] if found.change else []
            apps += found.apps
            with_celery += found.is_of_celery
        else:
            uses += command_uses(name, data.decode("utf-8", "replace"))
    if not files:
        raise ConfigError([Fault(str(place), None, "", "has no Python files")])
    return Project(str(place), files, with_celery, tuple(uses), tuple(changes), tuple(unread), _one(apps))


class _Python(NamedTuple):
    uses: list[Use]
    change: FileChange | None
    apps: list[str]
    is_of_celery: bool


def _python(path: Path, name: str, data: bytes, unread: list[str]) -> _Python | None:
    try:
        text, encoding = read_source(data)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the user's code, such as escapes that are none
            tree = ast.parse(data, filename=name)
    except (SyntaxError, UnicodeDecodeError, ValueError, RecursionError, MemoryError) as error:
        line = f":{error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        why = error.msg if isinstance(error, SyntaxError) else str(error) or type(error).__name__
        unread.append(f"{name}{line}: is no Python that can be read: {why}")
        return None
    imports = find_imports(text, tree)
    try:
        uses = list(uses_of(name, tree, imports))
    except RecursionError:
        unread.append(f"{name}: is nested too deeply")
        return None
    change = None
    if imports.edits:
        new = rewritten(text, imports.edits)
        change = FileChange(path, name, new, encoding, len(imports.edits), tuple(unified_diff(name, text, new)))
    is_of_celery = has_celery(imports, uses)
    apps = [_module(name)] if any(use.feature == "app" and use.what.endswith("(…)") for use in uses) else []
    return _Python(uses if is_of_celery else [], change, apps, is_of_celery)


def _files(place: Path, unread: list[str]) -> Iterator[Path]:
    """The files to look at, in order."""
    if not place.is_dir():
        yield place
        return
    count = 0
    for folder, folders, names in os.walk(place):
        folders[:] = sorted(name for name in folders if name not in _LEFT_OUT and not name.startswith("."))
        for name in sorted(names):
            path = Path(folder, name)
            if not (name.endswith(".py") or NAMES.fullmatch(name)) or not path.is_file():
                continue
            count += 1
            if count > _MOST_FILES:
                unread.append(f"{place}: has more than {_MOST_FILES:,} files; the others were not read")
                return
            yield path


def _shown(path: Path, root: Path) -> str:
    name = str(path.relative_to(root) if path.is_relative_to(root) else path)
    return name.encode("utf-8", "replace").decode()


def _module(name: str) -> str:
    """The module of a file, by Celery's rules: ``proj/celery.py`` is ``proj``."""
    parts = list(Path(name).with_suffix("").parts)
    if len(parts) > 1 and parts[-1] in ("celery", "__init__"):
        parts.pop()
    return ".".join(parts)


def _one(apps: list[str]) -> str | None:
    """The app, if there is one; those of tests do not count."""
    real = [name for name in dict.fromkeys(apps) if not {"tests", "test", "conftest"} & set(name.split("."))]
    return real[0] if len(real) == 1 else None
