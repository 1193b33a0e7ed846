"""Pages are followed to the letter: files written, commands run, outputs compared, in a clean folder."""

from __future__ import annotations

import os
from pathlib import Path

from beatd.cli.tutorial_page import ShellCommand, TextFile, parts
from beatd.cli.tutorial_session import TutorialSession

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
GUIDES = sorted((DOCS / "how-to").glob("*.md"))
EXAMPLES = sorted(ROOT.glob("examples/*/README.md"))


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def clean_environment(home: Path, **more: str) -> dict[str, str]:
    """The environment of somebody who has just logged in."""
    kept = {key: os.environ[key] for key in ("PATH", "LANG", "TERM") if key in os.environ}
    return {**kept, "HOME": str(home), "TMPDIR": str(home), **more}


def follow(page: Path, folder: Path, **env: str) -> None:
    """Do all that the page says in the folder. Raises Unexpected at the first difference."""
    with TutorialSession(folder, clean_environment(folder.parent, **env)) as session:
        for part in parts(page.read_text()):
            if isinstance(part, TextFile):
                session.write(part)
            elif isinstance(part, ShellCommand) and part.how != "not run":
                session.run(part)
