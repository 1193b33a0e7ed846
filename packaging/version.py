"""The version of this source tree, for the build: ``python packaging/version.py`` prints it.

* A commit with the tag ``v1.2.0`` is 1.2.0.
* Any other commit is a development version of the next release: 1.3.0.dev42+g1a2b3c4, with the number of commits.
* Without git it is 1.3.0.dev0. ``$BEATD_VERSION`` overrides all of it, for builds from a copy, such as an image.

The last release is the first version in CHANGELOG.md, so a clone without tags has a version that is newer than that.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]


def version(root: Path = ROOT) -> str:
    """The version of the tree at ``root``."""
    if given := os.environ.get("BEATD_VERSION"):
        return given
    if tag := _git(root, "describe", "--tags", "--exact-match", "--match", "v[0-9]*"):
        return tag.removeprefix("v")
    major, minor = (int(part) for part in released(root).split(".")[:2])
    following = f"{major}.{minor + 1}.0.dev"
    commits, commit = _git(root, "rev-list", "--count", "HEAD"), _git(root, "rev-parse", "--short=8", "HEAD")
    return f"{following}{commits}+g{commit}" if commits and commit else f"{following}0"


def released(root: Path = ROOT) -> str:
    """The last release, as CHANGELOG.md has it."""
    found = re.search(r"^## (\d+\.\d+\.\S+)", (root / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    if found is None:
        raise ValueError("CHANGELOG.md has no version")
    return found[1]


def _git(root: Path, *words: str) -> str:
    """Output of git about the repository at ``root`` itself; empty where there is none."""
    if not (root / ".git").exists():
        return ""
    try:
        done = subprocess.run(  # noqa: S603 - our own words, no shell
            ["git", "-C", str(root), *words],  # noqa: S607 - the user's git
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


if __name__ == "__main__":
    print(version())
