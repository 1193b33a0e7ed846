"""Commands that write into a file of a person: ``add --into`` and ``import --into``."""

from __future__ import annotations

import json
import stat
import threading
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from beatd import config
from beatd.cli import main
from beatd.cli.edit import put_entries
from beatd.config.editor import with_entries

WRITTEN = """\
# Ours.
timezone = "Europe/Berlin"

[beat_schedule.a]   # first
task = "t"
schedule = "5m"     # often
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "beat.toml"
    path.write_text(WRITTEN)
    path.chmod(0o640)
    return path


def beatd(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def test_add_writes_into_a_file_and_keeps_the_rest(file):
    done = beatd("add", "b", "--task", "u", "--schedule", "1h", "--args", '["${HOME}"]', "--into", file)
    assert (done.exit_code, done.output) == (0, f"{file}: 1 entry added\n")
    assert file.read_text() == WRITTEN + '\n[beat_schedule.b]\ntask = "u"\nschedule = "1h"\nargs = ["$${HOME}"]\n'
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert config.load(file).entries[1].args == ("${HOME}",)
    again = beatd("add", "b", "--task", "u", "--schedule", "1h", "--args", '["${HOME}"]', "--into", file)
    assert again.output == f"{file}: 1 entry unchanged\n"


def test_add_changes_an_entry_with_force_alone(file):
    words = ["add", "a", "--task", "t", "--schedule", "7m", "--into", file]
    refused = beatd(*words)
    assert (refused.exit_code, file.read_text()) == (2, WRITTEN)
    assert "beat.toml:4: beat_schedule.a: the entry is there already; --force changes it" in refused.output
    done = beatd(*words, "--force", "--json")
    assert json.loads(done.output)["entries"] == {"a": "changed"}
    assert file.read_text() == WRITTEN.replace('"5m"', '"7m"')


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["b", "--task", "u", "--schedule", "61 * * * *"], "61"),
        (["b", "--task", "u", "--schedule", "1h", "--set", 'notify=["ops"]'], 'there is no target "ops"'),
        (["--from-file", "x.toml"], "--into takes NAME"),
    ],
)
def test_add_checks_before_it_writes(file, words, said):
    done = beatd("add", *words, "--into", file)
    assert (done.exit_code, file.read_text()) == (2, WRITTEN)
    assert said in done.output


def test_a_link_stays_a_link(file, tmp_path):
    link = tmp_path / "link.toml"
    link.symlink_to(file)
    assert beatd("add", "b", "--task", "u", "--schedule", "1h", "--into", link).exit_code == 0
    assert link.is_symlink()
    assert "beat_schedule.b" in file.read_text()


def test_import_adds_to_a_file_in_its_time_zone(file, tmp_path):
    (tmp_path / "crontab").write_text("CRON_TZ=Europe/Berlin\n0 7 * * * df -h\n")
    done = beatd("import", "crontab", tmp_path / "crontab", "--into", file)
    assert done.exit_code == 0, done.output
    assert file.read_text().startswith(WRITTEN)
    assert "timezone" not in file.read_text().removeprefix(WRITTEN)
    assert [entry.timezone for entry in config.load(file).entries] == ["Europe/Berlin"] * 2


def test_a_file_that_is_missing_is_named(tmp_path):
    done = beatd("add", "b", "--task", "u", "--schedule", "1h", "--into", tmp_path / "none.toml")
    assert done.exit_code == 2
    assert "none.toml: no such file" in done.output


@pytest.mark.parametrize("zone", ["Asia/Baku", "Europe/Berlin"])
def test_import_adds_to_a_file_whose_defaults_have_a_time_zone(file, tmp_path, zone):
    file.write_text(f'timezone = "UTC"\n[defaults]\ntimezone = "{zone}"\n')
    (tmp_path / "crontab").write_text("CRON_TZ=UTC\n0 7 * * * df -h\nCRON_TZ=Asia/Baku\n0 8 * * * du -h\n")
    done = beatd("import", "crontab", tmp_path / "crontab", "--into", file)
    assert done.exit_code == 0, done.output
    assert [entry.timezone for entry in config.load(file).entries] == ["UTC", "Asia/Baku"]


def test_of_two_changes_at_once_none_is_lost(file, monkeypatch):
    seen = []

    def interrupted(*given, **options):
        if not seen:  # another command begins, while this one has read the file and not written it
            seen.append(threading.Thread(target=put_entries, args=(file, {"y": table}), kwargs={"replace": False}))
            seen[0].start()
            seen[0].join(0.5)
        return with_entries(*given, **options)

    table = {"task": "t", "schedule": "1h"}
    monkeypatch.setattr("beatd.cli.edit.with_entries", interrupted)
    put_entries(file, {"x": table}, replace=False)
    seen[0].join(30)
    assert {entry.name for entry in config.load(file).entries} == {"a", "x", "y"}
