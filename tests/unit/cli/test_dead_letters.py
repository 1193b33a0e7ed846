"""The table of dead letters: columns stay below each other, and no line is wider than 80, whatever names have."""

from __future__ import annotations

from typing import Any

import pytest

from beatd.cli.dead_letters import _print
from beatd.cli.output import cell_len
from beatd.client.dead_letters import Found, LetterGroup
from beatd.store.dead_letters import DeadLetter


def letter(queue: str, reason: str) -> LetterGroup:
    place: Any = None
    return LetterGroup(Found(place, DeadLetter(b"{}", reason, queue, "2026-11-27T12:00:00+00:00", "w", b"no", 2)), 3)


def test_wide_names_keep_their_columns(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    names = ["celery", "夜間バッチ処理のキュー", "é" * 40, "a\x1b[2J"]
    _print([letter(name, f"理由 {name} " * 20) for name in names])
    header, *rows = capsys.readouterr().out.splitlines()
    assert len(rows) == len(names)
    for row in rows:
        assert cell_len(row) <= 80
        assert cell_len(row[: row.index("3 ×")]) == header.index("reason")
        assert row.isprintable()
