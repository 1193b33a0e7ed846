"""Pages are followed to the letter: files written, commands run, outputs compared, in a clean folder."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from beatd.cli.tutorial_page import ShellCommand, TextFile, missing, parts
from beatd.cli.tutorial_session import TutorialSession, Unexpected

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
FOLLOWED = [DOCS / "tutorial.md", *sorted((DOCS / "how-to").glob("*.md")), *sorted(ROOT.glob("examples/*/README.md"))]
"""Pages on which every command is run, or says why not."""


def clean_environment(home: Path) -> dict[str, str]:
    """The environment of somebody who has just logged in."""
    kept = {key: os.environ[key] for key in ("PATH", "LANG", "TERM") if key in os.environ}
    return {**kept, "HOME": str(home), "TMPDIR": str(home)}


def follow(page: Path, folder: Path) -> None:
    with TutorialSession(folder, clean_environment(folder.parent)) as session:
        for part in parts(page.read_text()):
            if isinstance(part, TextFile):
                session.write(part)
            elif isinstance(part, ShellCommand) and part.how != "not run":
                session.run(part)


@pytest.mark.parametrize("page", FOLLOWED, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_works_to_the_letter(page, tmp_path):
    folder = tmp_path / "work"
    if page.name == "README.md":
        shutil.copytree(page.parent, folder, ignore=shutil.ignore_patterns(".beatd", "__pycache__"))
    else:
        folder.mkdir()
    follow(page, folder)


@pytest.mark.parametrize("page", FOLLOWED, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_command_that_is_not_run_says_why(page):
    skipped = [part for part in parts(page.read_text()) if isinstance(part, ShellCommand) and part.how == "not run"]
    assert [part.line for part in skipped if not part.reason] == []


def test_a_page_that_is_wrong_fails(tmp_path):
    page = '```text title="a.txt"\none\n```\n\n```console\n$ cat a.txt\ntwo\n```\n'
    file, command = parts(page)
    with TutorialSession(tmp_path) as session:
        session.write(file)
        with pytest.raises(Unexpected, match="'two' is not in its output"):
            session.run(command)


@pytest.mark.parametrize(
    ("expected", "lacks"),
    [(("a b", "c"), None), (("c", "a"), "a"), (("a … c",), None), (("a  b",), None), (("d",), "d")],
)
def test_lines_are_found_in_their_order(expected, lacks):
    assert missing(expected, "a   b\nx\nc\n") == lacks
