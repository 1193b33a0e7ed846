"""Exports have the variables that the files have, and never what they stand for."""

from __future__ import annotations

from pathlib import Path

import pytest

from beatd import config
from beatd.config.references import references
from beatd.config.writer import export

ENV = {"TOKEN": "Sek/tail9", "EVERY": "30s", "QUEUE": "slow", "ZONE": "Asia/Baku", "ARGS": "[1, null]", "YES": "true"}

MAIN = """
timezone = "Europe/Berlin"
include = ["more/*.toml"]

[defaults]
queue = "${QUEUE}"

[beat_schedule.plain]
task = "t"
schedule = 30
queue = "fast"
args = ["$${HOME}"]

[beat_schedule.secret]
task = "t"
schedule = "${EVERY}"
relative = true
kwargs = { token = "Bearer ${TOKEN}", home = "$${HOME}", deep = [{ x = "${TOKEN:-none}" }] }
options = { headers = { auth = "${TOKEN}" } }

[beat_schedule.json]
task = "t"
schedule = { every = "${EVERY}" }
args = "${ARGS}"
"""
MORE = """
timezone = "${ZONE}"
[beat_schedule.elsewhere]
task = "t"
schedule = "30 7 * * *"
expires = "${EVERY}"
ignore_result = "${YES}"
"""


@pytest.fixture
def loaded(tmp_path: Path) -> config.Config:
    (tmp_path / "more").mkdir()
    (tmp_path / "beat.toml").write_text(MAIN)
    (tmp_path / "more" / "one.toml").write_text(MORE)
    return config.load(tmp_path / "beat.toml", env=ENV)


def test_an_export_has_variables_and_means_the_same(loaded: config.Config, tmp_path: Path) -> None:
    text = export(loaded.entries, timezone="Europe/Berlin", references=references(loaded))
    assert "Sek" not in text
    assert 'token = "Bearer ${TOKEN}"' in text
    assert 'home = "$${HOME}"' in text
    assert 'headers = { auth = "${TOKEN}" }' in text
    assert text.count('queue = "${QUEUE}"') == 3
    assert 'timezone = "${ZONE}"' in text
    (tmp_path / "out.toml").write_text(text)
    again = config.load(tmp_path / "out.toml", env=ENV)
    assert again.digest == loaded.digest
    assert export(again.entries, timezone="Europe/Berlin", references=references(again)) == text
    elsewhere = config.load(tmp_path / "out.toml", env={**ENV, "EVERY": "45s"})
    assert {entry.name: entry.schedule.notation for entry in elsewhere.entries}["json"] == "45s"


def test_only_fields_with_variables_are_taken_from_the_files(loaded: config.Config) -> None:
    found = references(loaded)
    assert set(found) == {"secret", "json", "elsewhere"}
    assert set(found["secret"]) == {"schedule", "relative", "kwargs", "headers", "queue"}
    assert set(found["elsewhere"]) == {"queue", "timezone", "expires", "ignore_result"}
