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


SHARED = """
timezone = "Europe/Berlin"
include = ["more/*.toml"]

[blackout]
nights = "${NIGHT}"
events = [{ ics = "https://calendar.example.com/${TOKEN}/x.ics" }, "2026-12-24"]
team = { windows = [{ ics = "${TOKEN}.ics" }, "22:00-23:00"] }
plain = "2026-01-01"

[defaults]
ping = "https://hc-ping.com/${TOKEN}/x"
queue = "${QUEUE}"
timezone = "Asia/Baku"
headers = { tenant = "${TOKEN}" }

[beat_schedule.one]
task = "t"
schedule = 60
blackout = "events"

[beat_schedule.two]
task = "t"
schedule = 60
blackout = ["plain", "team", "2026-02-02"]
only_on = "business-days"

[beat_schedule.three]
task = "t"
schedule = 60
blackout = "plain"
only_on = "business-days"
queue = "slow"

[beat_schedule.four]
task = "t"
schedule = 60
blackout = ["${NIGHT}"]
only_on = "business-days"
"""
SHARED_ENV = {**ENV, "TOKEN": "Sek-tail9", "NIGHT": "22:00-06:00"}


def _loaded(folder: Path, text: str) -> config.Config:
    (folder / "beat.toml").write_text(text)
    return config.load(folder / "beat.toml", env=SHARED_ENV)


def _again(folder: Path, text: str) -> config.Config:
    (folder / "out.toml").write_text(text)
    return config.load(folder / "out.toml", env=SHARED_ENV)


def test_shared_blackouts_have_their_variables(tmp_path: Path) -> None:
    loaded = _loaded(tmp_path, SHARED)
    text = export(loaded.entries, timezone="Europe/Berlin", references=references(loaded))
    assert "Sek" not in text
    assert 'ics = "https://calendar.example.com/${TOKEN}/x.ics"' in text
    assert _again(tmp_path, text).digest == loaded.digest, "with the business days beside the blackouts"


def test_entries_from_elsewhere_have_the_variables_of_defaults_and_shared_blackouts(tmp_path: Path) -> None:
    loaded = _loaded(tmp_path, SHARED)
    tables = {
        "a": {"schedule": 30},
        "b": {"schedule": 30, "queue": "fast", "blackout": ["events", "2026-03-03", "nights"]},
        "c": {"schedule": 30, "ping": "https://example.com/own", "headers": {"own": None}},
        "d": {"schedule": 30, "blackout": "plain", "queue": "slow"},
    }
    others = [
        config.entry(name, {"task": "t", **table}, timezone="Europe/Berlin", defaults=loaded.defaults)
        for name, table in tables.items()
        if name != "c"
    ]
    text = export([*loaded.entries, *others], timezone="Europe/Berlin", references=references(loaded, others))
    assert "Sek" not in text
    assert 'queue = "fast"' in text
    assert 'queue = "slow"' in text, "of the entry three, which is in the file, and says so itself"
    assert text.count('ping = "https://hc-ping.com/${TOKEN}/x"') == len(loaded.entries) + len(others)
    assert _again(tmp_path, text).digest == config.digest([*loaded.entries, *others])
    unwritable = config.entry("c", {"task": "t", **tables["c"]}, defaults=loaded.defaults)
    assert references(loaded, [unwritable]).keys().isdisjoint({"c"})


def test_the_zone_of_defaults_counts_before_that_of_an_included_file(tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    entry = '[beat_schedule.x]\ntask = "t"\nschedule = "0 7 * * *"\n'
    for main, more in (
        ('timezone = "UTC"\n[defaults]\ntimezone = "Europe/Berlin"\n', 'timezone = "${ZONE}"\n'),
        ('[defaults]\ntimezone = "${ZONE}"\n', 'timezone = "Europe/Berlin"\n'),
        ('timezone = "${ZONE}"\n', ""),
        ('timezone = "${ZONE}"\n', 'timezone = "Europe/Berlin"\n'),
    ):
        (tmp_path / "more" / "one.toml").write_text(more + entry)
        loaded = _loaded(tmp_path, 'include = ["more/*.toml"]\n' + main)
        text = export(loaded.entries, timezone=loaded.settings.timezone, references=references(loaded))
        assert _again(tmp_path, text).digest == loaded.digest, text


def test_an_address_with_variables_that_an_entry_replaces_is_not_written(tmp_path: Path) -> None:
    text = '[defaults]\nexchange = "${QUEUE}"\nrouting_key = "k"\n[beat_schedule.a]\ntask = "t"\nschedule = 30\n{}\n'
    for own in ('queue = "own"', 'options = { exchange = "own" }', "priority = 1"):
        loaded = _loaded(tmp_path, text.replace("{}", own))
        written = export(loaded.entries, timezone="UTC", references=references(loaded))
        assert _again(tmp_path, written).digest == loaded.digest, written
        assert ("${QUEUE}" in written) == (own == "priority = 1")
