"""The entries of the page follow the files, and a mistake hides none of them."""

import pytest

from beatd import config
from beatd.clock import SystemClock
from beatd.exceptions import ConfigError
from beatd.web.entries import EntryListing

ENTRY = '[beat_schedule.{}]\ntask = "t"\nschedule = "1m"\n'


@pytest.fixture
def schedule(tmp_path):
    path = tmp_path / "beat.toml"
    path.write_text(ENTRY.format("one"))
    schedule = EntryListing(path, lambda: config.load(path, env={}), SystemClock())
    schedule.first()
    schedule.start()
    yield schedule
    schedule.stop()


def names(schedule):
    return [entry.name for entry in schedule.listing.entries]


def test_an_edit_is_shown(schedule, wait_until):
    before = schedule.listing.digest
    schedule.path.write_text(ENTRY.format("two") + ENTRY.format("One"))
    wait_until(lambda: names(schedule) == ["One", "two"], what="the new entries")
    assert schedule.listing.digest != before


def test_faults_are_kept_until_they_are_mended(schedule, wait_until, caplog):
    schedule.path.write_text("[beat_schedule.one]\n")
    wait_until(lambda: schedule.faults, what="the faults")
    assert names(schedule) == ["one"]

    def said():
        return {record.event for record in caplog.records if record.name == "beatd.web"}

    assert wait_until(said, what="the faults to be said") == {"config_broken"}
    schedule.path.write_text(ENTRY.format("one"))
    wait_until(lambda: not schedule.faults, what="the end of the faults")
    assert names(schedule) == ["one"]


def test_a_file_that_is_broken_at_first_is_refused(tmp_path):
    path = tmp_path / "beat.toml"
    path.write_text("[beat_schedule.one]\n")
    with pytest.raises(ConfigError, match="one"):
        EntryListing(path, lambda: config.load(path, env={}), SystemClock()).first()
