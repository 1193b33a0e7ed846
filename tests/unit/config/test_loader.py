"""The head of a file without its entries, and files with nothing but entries."""

import pytest

from beatd.config.loader import entry_tables, load_settings
from beatd.exceptions import ConfigError

SETTINGS = """
timezone = "Asia/Baku"
[redis]
url = "redis://:${PASSWORD}@host/0"
[defaults]
queue = "slow"
"""


@pytest.fixture
def write(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def written(text):
        (tmp_path / "f.toml").write_text(text)
        return "f.toml"

    return written


def test_the_head_is_read_while_entries_are_wrong(write):
    found = load_settings(write(SETTINGS + "[beat_schedule.bad]\nx = 1\n"), env={"PASSWORD": "s3cret"})
    assert found.settings.timezone == "Asia/Baku"
    assert found.settings.redis.url == "redis://:s3cret@host/0"
    assert found.defaults == {"queue": "slow"}


def test_faults_of_the_head_are_said_with_their_lines(write):
    with pytest.raises(ConfigError) as caught:
        load_settings(write(SETTINGS + "[redi]\n[beat_schedule.bad]\n"), env={})
    assert [fault.line for fault in caught.value.faults] == [4, 7]


def test_a_file_may_be_one_entry(write):
    file = write('task = "t"\nschedule = "@daily"\nargs = ["${A}"]\n')
    assert entry_tables(file, "x", env={"A": "1"}) == {"x": {"task": "t", "schedule": "@daily", "args": ["1"]}}


def test_a_file_may_have_several_entries_and_one_may_be_taken(write):
    file = write('[beat_schedule.a]\ntask = "t"\nschedule = 1\n[beat_schedule.b]\ntask = "t"\nschedule = 2\n')
    assert list(entry_tables(file, None)) == ["a", "b"]
    assert entry_tables(file, "b") == {"b": {"task": "t", "schedule": 2}}


@pytest.mark.parametrize(
    ("text", "name", "said"),
    [
        ('task = "t"\nschedul = 1\n', "x", 'f.toml:2:1: beat_schedule.x.schedul: unknown setting "schedul"'),
        ('task = "t"\nschedule = 1\n', None, "give its name"),
        ('[beat_schedule.a]\ntask = "t"\nschedule = "x"\n', None, "f.toml:3:1: beat_schedule.a.schedule"),
        (
            '[beat_schedule.nightly]\ntask = "t"\nschedule = 1\n',
            "nightli",
            '"nightli" in this file; did you mean',
        ),
        (
            'timezone = "UTC"\n[beat_schedule.a]\ntask = "t"\nschedule = 1\n',
            None,
            "f.toml:1:1: timezone: settings are",
        ),
        ('task = "t"\nschedule = 1\nargs = ["${NO}"]\n', "x", "f.toml:3:9: beat_schedule.x.args[0]"),
        ("", None, "no entry in this file"),
        ("task = ", "x", "f.toml:1"),
    ],
)
def test_what_is_wrong_with_such_a_file_is_said_with_its_line(write, text, name, said):
    with pytest.raises(ConfigError) as caught:
        entry_tables(write(text), name, env={})
    assert said in str(caught.value)
