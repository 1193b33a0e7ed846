"""The text of the Lua scripts."""

from pathlib import Path

import pytest

import beatd.store

SCRIPTS = sorted((Path(beatd.store.__file__).parent / "lua").glob("*.lua"))


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_no_line_is_longer_than_120_characters_and_a_header_comes_first(path):
    lines = path.read_text().splitlines()
    assert [number for number, line in enumerate(lines, 1) if len(line) > 120] == []
    assert lines[0].startswith("-- ")


def test_what_scripts_share_is_written_once():
    own = {path.stem: path.read_text() for path in SCRIPTS if path.stem != "_prelude"}
    for shared in ("'FENCED", "'CORRUPT", "'ROLLBACK", "'APPEND'", "call('TIME')"):
        assert [name for name, text in own.items() if shared in text] == [], shared
