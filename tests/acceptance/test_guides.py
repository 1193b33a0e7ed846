"""Each guide of docs/how-to works to the letter, and each command that is not run says why."""

from __future__ import annotations

import pytest

from beatd.cli.tutorial_page import ShellCommand, missing, parts
from beatd.cli.tutorial_session import TutorialSession, Unexpected
from tests.acceptance.pages import DOCS, EXAMPLES, GUIDES, follow, name_of


@pytest.mark.parametrize("page", GUIDES, ids=name_of)
def test_a_guide_works_to_the_letter(page, tmp_path):
    folder = tmp_path / "work"
    folder.mkdir()
    follow(page, folder)


@pytest.mark.parametrize("page", [DOCS / "tutorial.md", *GUIDES, *EXAMPLES], ids=name_of)
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


def test_processes_that_share_an_output_write_in_no_order():
    assert missing(("c", "a"), "a\nc\n", ordered=False) is None
