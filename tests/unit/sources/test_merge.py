"""Two sources with the same name."""

from __future__ import annotations

import msgspec
import pytest

from beatd import config
from beatd.model import Entry
from beatd.sources import merge


def entry(name: str, source: str) -> Entry:
    return config.entry(name, {"task": "tasks.add", "schedule": 30}, source=source)


def test_all_entries_of_both_are_there() -> None:
    merged = merge([entry("a", "beat.toml:1")], [entry("b", "tasks.py")])
    assert [each.name for each in merged] == ["a", "b"]


def test_the_file_overrules_the_app_and_says_so_if_they_differ(caplog: pytest.LogCaptureFixture) -> None:
    merge([entry("a", "beat.toml:1")], [entry("a", "tasks.py")])
    assert caplog.records == []
    other = msgspec.structs.replace(entry("a", "tasks.py"), task="other")
    (one,) = merge([entry("a", "beat.toml:1")], [other])
    assert one.source == "beat.toml:1"
    (record,) = caplog.records
    assert (record.event, record.entry) == ("entry_overruled", "a")
    assert record.getMessage() == "Entry a is in beat.toml:1 and in tasks.py; the first counts"
