"""A file as a commit of git has it, with all that is beside it: what ``beatd diff --git`` compares with."""

from __future__ import annotations

import io
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

_GIT_S = 120.0
"""Seconds that git may take."""


@contextmanager
def checkout(path: Path, commit: str) -> Iterator[Path]:
    """The place of the file at ``path`` in a copy of the commit; the file may be missing there.

    Raises click.UsageError where there is no repository or no such commit.
    """
    folder = path.absolute().parent
    top = Path(
        _git(folder, "rev-parse", "--show-toplevel", why=f"{path} is in no repository of git").decode().rstrip("\n")
    )
    try:
        inside = path.absolute().resolve().relative_to(top.resolve())
    except ValueError:
        raise click.UsageError(f"{path} is a link to a file outside of the repository {top}") from None
    unknown = f'there is no commit "{commit}" here; in a shallow clone: git fetch --depth=1 origin COMMIT'
    found = _git(top, "rev-parse", "--verify", "--end-of-options", f"{commit}^{{commit}}", why=unknown).decode().strip()
    archive = _git(top, "archive", "--format=tar", found, why=f"git cannot read the commit {commit}")
    with tempfile.TemporaryDirectory(prefix="beatd-diff-") as copy:
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            tar.extractall(copy, filter=_inside)  # noqa: S202 - it filters more than "data" does
        yield Path(copy) / inside


def _inside(member: tarfile.TarInfo, folder: str) -> tarfile.TarInfo | None:
    """Leave out what does not stay inside of the copy, such as links to files of the host."""
    try:
        return tarfile.data_filter(member, folder)
    except tarfile.FilterError:
        return None


def _git(folder: Path, *words: str, why: str) -> bytes:
    git = shutil.which("git")
    if git is None:
        raise click.UsageError("--git needs git, which is not on PATH")
    try:
        done = subprocess.run(  # noqa: S603 - no shell; the commit follows --end-of-options
            [git, "-C", str(folder), *words], capture_output=True, timeout=_GIT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise click.ClickException(f"git does not answer: {error}") from None
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise click.UsageError(f"{why}{f' ({said[-1]})' if said else ''}")
    return done.stdout
