"""Tags: in files and in the store, in lists, previews, pauses, and notification targets."""

import json

import pytest
from click.testing import CliRunner

from beatd import config
from beatd.cli.list_entries import list_entries
from beatd.cli.next import next_runs
from beatd.cli.pause import pause, resume
from beatd.client import Schedules
from beatd.config.writer import entry_table
from beatd.exceptions import ConfigError
from beatd.model import NotifyTarget
from beatd.planning.alerts import is_for

CONFIG = """
[redis]
url = "{url}"
[defaults]
tags = ["all"]
[beat_schedule.invoices]
task = "t"
schedule = "0 * * * *"
tags = ["billing", "eu", "billing"]
[beat_schedule.plain]
task = "t"
schedule = "0 * * * *"
"""


@pytest.fixture
def run(tmp_path, redis_url):
    path = tmp_path / "beat.toml"
    path.write_text(CONFIG.format(url=redis_url))
    with Schedules(redis_url) as schedules:
        schedules.put("tenant", task="t", schedule="5 * * * *", tags=["billing"])

    def run(command, *arguments):
        done = CliRunner().invoke(command, [*arguments, "--config", str(path)])
        return done.exit_code, done.output

    return run


def names(answer):
    code, output = answer
    assert code == 0, output
    return sorted(one["name"] for one in json.loads(output)["entries"])


def test_entries_are_listed_and_previewed_by_tag(run):
    assert names(run(list_entries, "--json")) == ["invoices", "plain", "tenant"]
    assert names(run(list_entries, "--json", "--tag", "billing")) == ["invoices", "tenant"]
    assert names(run(list_entries, "--json", "--tag", "billing", "--tag", "eu")) == ["invoices"]
    assert names(run(list_entries, "--json", "--tag", "all")) == ["plain"]
    tags = {one["name"]: one["tags"] for one in json.loads(run(list_entries, "--json")[1])["entries"]}
    assert tags["invoices"] == ["billing", "eu"]
    assert tags["plain"] == ["all"]
    code, output = run(next_runs, "--tag", "billing", "-n", "4", "--json")
    assert code == 0
    assert {one["entry"] for one in json.loads(output)} == {"invoices", "tenant"}
    assert "No entries" in run(list_entries, "--tag", "nothing")[1]


def test_entries_are_paused_and_resumed_by_tag(run):
    assert "Paused invoices\nPaused tenant\n" in run(pause, "--tag", "billing")[1]
    assert "Resumed invoices\nResumed tenant\n" in run(resume, "--tag", "billing")[1]
    code, output = run(pause, "--tag", "biling")
    assert code == 2
    assert 'no entry has the tag "biling"; did you mean billing?' in output
    assert run(pause)[0] == run(resume)[0] == 2
    assert names(run(list_entries, "--json", "--paused")) == []


def test_a_target_takes_entries_by_tag():
    entry = config.entry("x", {"task": "t", "schedule": 30, "tags": ["eu"]})
    assert is_for(NotifyTarget(name="ops", tags=("us", "eu")), entry)
    assert not is_for(NotifyTarget(name="ops", tags=("us",)), entry)
    assert not is_for(NotifyTarget(name="ops", tags=("eu",), match=("y*",)), entry)
    assert entry_table(entry, "UTC")["tags"] == ["eu"]


@pytest.mark.parametrize("wrong", ["billing", ["two words"], [""], [1], [["a"]], ["x" * 51], ["a,b"]])
def test_what_is_no_tag_is_refused(wrong):
    with pytest.raises(ConfigError, match=r"beat_schedule\.x\.tags: expected a (list of tags|tag of letters)"):
        config.entry("x", {"task": "t", "schedule": 30, "tags": wrong})
