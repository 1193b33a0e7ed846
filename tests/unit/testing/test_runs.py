"""``beatd.testing.runs_between``: the runs of a file in a span of time."""

from datetime import UTC, datetime

import pytest

from beatd.exceptions import ConfigError
from beatd.testing import runs_between

FILE = """
timezone = "Europe/Berlin"
[beat_schedule.report]
task = "proj.report"
schedule = "0 18 * * mon-fri"
args = ["daily"]
options = { queue = "mail" }
[beat_schedule.night]
task = "proj.night"
schedule = "30 2 * * *"
blackout = "12-24..12-26"
[beat_schedule.off]
task = "proj.off"
schedule = 60
enabled = false
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "beat.toml"
    path.write_text(FILE.replace('blackout = "12-24..12-26"\n', ""))
    return path


def test_runs_are_in_the_order_in_which_they_leave(file):
    runs = runs_between(file, "2026-12-24", "2026-12-25")
    assert list(map(str, runs)) == ["night 2026-12-24 02:30:00 CET", "report 2026-12-24 18:00:00 CET"]
    assert runs[1].task == "proj.report"
    assert (list(runs[1].args), runs[1].queue, runs[1].note) == (["daily"], "mail", "")


def test_the_first_moment_belongs_to_the_span_and_the_last_does_not(file):
    assert len(runs_between(file, "2026-12-24 18:00", "2026-12-24 18:01")) == 1
    assert runs_between(file, "2026-12-24 17:59", "2026-12-24 18:00") == []
    [run] = runs_between(file, datetime(2026, 12, 24, 17, tzinfo=UTC), datetime(2026, 12, 24, 17, 1, tzinfo=UTC))
    assert run.due == datetime(2026, 12, 24, 17, tzinfo=UTC)


def test_a_change_of_the_clock_is_noted(file):
    [run] = runs_between(file, "2026-03-29", "2026-03-30", entry="night")
    assert str(run) == "night 2026-03-29 03:00:00 CEST"
    assert run.note == "moved out of the skipped hour"


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (("tomorrow", "2026-01-01"), ValueError, "since: 'tomorrow'"),
        (("2026-01-02", "2026-01-01"), ValueError, "is before since"),
    ],
)
def test_wrong_moments_are_named(file, arguments, error, words):
    with pytest.raises(error, match=words):
        runs_between(file, *arguments)


def test_wrong_names_files_and_spans_are_named(file, tmp_path):
    with pytest.raises(LookupError, match='no entry "nihgt"'):
        runs_between(file, "2026-01-01", "2026-01-02", entry="nihgt")
    with pytest.raises(ConfigError, match="no such file"):
        runs_between(tmp_path / "none.toml", "2026-01-01", "2026-01-02")
    file.write_text('[beat_schedule.a]\ntask = "a"\nschedule = 1\n')
    with pytest.raises(ValueError, match="more than 100,000 runs"):
        runs_between(file, "2026-01-01", "2026-01-08")
