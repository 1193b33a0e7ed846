"""Changes to a file that a person wrote: comments, order and layout stay."""

from __future__ import annotations

import random
import tomllib
from datetime import UTC, date, datetime, time
from typing import Any

import pytest

from beatd.config.editor import with_entries
from beatd.config.toml_parser import parse
from beatd.exceptions import ConfigError
from tests.unit.config.test_fuzz import GOOD, mutated, restructured

WRITTEN = """\
# The schedule of the shop.
timezone = "UTC"   # as the servers

# Every five minutes.
[beat_schedule.a]   # asked for by Ann
task = "t"          # the task
schedule   =   "5m" # often
args = [ 1,
         2 ]        # two

# about b
[beat_schedule.b]
task = "u"
schedule = { minute = "5" }   # x
"""


def edited(text: str, tables: dict[str, dict[str, Any]], **options: bool) -> str:
    return with_entries("beat.toml", text, tables, **options).text


def test_a_new_entry_follows_the_others():
    text = edited(WRITTEN, {"c d": {"task": "v", "schedule": "1h", "kwargs": {"x": 1}}})
    assert text == WRITTEN + '\n[beat_schedule."c d"]\ntask = "v"\nschedule = "1h"\nkwargs = { x = 1 }\n'


@pytest.mark.parametrize("text", ["", "# nothing yet\n", "\n\n", 'timezone = "UTC"'])
def test_the_first_entry(text):
    new = edited(text, {"a": {"task": "t", "schedule": "5m"}})
    assert new.startswith(text.strip())
    assert tomllib.loads(new)["beat_schedule"] == {"a": {"task": "t", "schedule": "5m"}}


def test_only_what_differs_is_changed():
    new = edited(WRITTEN, {"a": {"task": "t", "schedule": "7m", "queue": "q", "args": [1, 2]}}, replace=True)
    changed = WRITTEN.replace('"5m" # often', '"7m" # often').replace("# two\n", '# two\nqueue = "q"\n')
    assert new == changed


def test_a_setting_that_is_gone_leaves_the_others_as_they_are():
    new = edited(WRITTEN, {"a": {"task": "t", "schedule": "5m"}}, replace=True)
    assert new == WRITTEN.replace("args = [ 1,\n         2 ]        # two\n", "")


def test_an_entry_that_is_the_same_is_left_alone():
    result = with_entries("beat.toml", WRITTEN, {"b": {"task": "u", "schedule": {"minute": "5"}}})
    assert (result.text, result.unchanged) == (WRITTEN, ["b"])


def test_an_entry_that_is_there_needs_force():
    with pytest.raises(ConfigError, match=r"beat\.toml:5: beat_schedule\.a: the entry is there already; --force"):
        edited(WRITTEN, {"a": {"task": "t", "schedule": "1h"}})


def test_lines_keep_their_ends():
    new = edited(WRITTEN.replace("\n", "\r\n"), {"c": {"task": "t", "schedule": "5m"}})
    assert new.count("\r\n") == new.count("\n")


@pytest.mark.parametrize(
    "text",
    [
        'beat_schedule = { a = { task = "t", schedule = "5m" } }\n',
        'beat_schedule.a.task = "t"\nbeat_schedule.a.schedule = "5m"\n',
        '[beat_schedule]\na = { task = "t", schedule = "5m" }   # one\n',
        '[beat_schedule]\na.task = "t"\na.schedule = "5m"\n',
    ],
)
def test_other_layouts_are_edited_or_refused(text):
    for tables in ({"a": {"task": "t", "schedule": "7m"}}, {"b": {"task": "u", "schedule": "1h"}}):
        try:
            new = edited(text, tables, replace=True)
        except ConfigError:
            continue
        assert tomllib.loads(new)["beat_schedule"].items() >= tables.items()


def test_any_file_is_edited_or_refused():
    dice = random.Random("editor")
    tables = {"nightly": {"task": "t", "schedule": "7m"}, "new": {"task": "u", "schedule": "1h"}}
    done = 0
    for number in range(200):
        text = (mutated if number % 2 else restructured)(GOOD, dice).decode("utf-8", "replace")
        try:
            result = with_entries("beat.toml", text, tables, replace=True)
        except ConfigError:
            continue
        assert parse(result.text)["beat_schedule"].items() >= tables.items()
        done += 1
    assert done > 20


def test_where_lines_end_in_both_ways_all_stay_as_they_are():
    """Also inside of texts of several lines, which would mean something else."""
    text = '# one\r\n[beat_schedule.a]\ntask = "t"\r\nschedule = "5m"\nkwargs = { x = """one\ntwo\r\nthree""" }\r\n'
    new = edited(text, {"b": {"task": "u", "schedule": "1h"}})
    assert new == text.rstrip() + '\n\n[beat_schedule.b]\ntask = "u"\nschedule = "1h"\n'
    changed = edited(text, {"a": {**parse(text)["beat_schedule"]["a"], "schedule": "7m"}}, replace=True)
    assert changed == text.replace('"5m"', '"7m"').rstrip() + "\n"


@pytest.mark.parametrize(("old", "new"), [("1", True), ("true", 1), ("1", 1.0), ("1.0", 1), ("0", False)])
def test_values_that_only_python_takes_for_equal_are_changed(old: str, new: Any):
    text = f'[beat_schedule.a]\ntask = "t"\nschedule = "5m"\nargs = [{old}]\nkwargs = {{ x = {old} }}\n'
    table = {"task": "t", "schedule": "5m", "args": [new], "kwargs": {"x": new}}
    with pytest.raises(ConfigError, match="the entry is there already"):
        edited(text, {"a": table})
    read = parse(edited(text, {"a": table}, replace=True))["beat_schedule"]["a"]
    assert repr(read) == repr(table)


def test_a_flag_is_changed():
    text = '[beat_schedule.a]\ntask = "t"\nschedule = "5m"\nenabled = true  # for now\n'
    table = {"task": "t", "schedule": "7m", "enabled": True}
    assert edited(text, {"a": table}, replace=True) == text.replace("5m", "7m")
    assert edited(text, {"a": {**table, "enabled": False}}, replace=True) == text.replace("5m", "7m").replace(
        "true  #", "false  #"
    )


def test_moments_are_compared_as_they_are_written():
    text = (
        '[beat_schedule.a]\ntask = "t"\nschedule = "5m"\nstart = 2027-01-01T00:00:00Z\nargs = [2027-01-01, 07:30:00]\n'
    )
    table = {
        "task": "t",
        "schedule": "5m",
        "start": datetime(2027, 1, 1, tzinfo=UTC),
        "args": [date(2027, 1, 1), time(7, 30)],
    }
    assert with_entries("beat.toml", text, {"a": table}).unchanged == ["a"]
    later = {**table, "start": datetime(2028, 1, 1, tzinfo=UTC)}
    assert parse(edited(text, {"a": later, "b": later}, replace=True))["beat_schedule"]["b"]["start"] == later["start"]
