"""``[notify.NAME]`` and what entries say of notifications: what is read, and the errors, in which no address is."""

from __future__ import annotations

from pathlib import Path

import pytest

from beatd import config
from beatd.exceptions import ConfigError

ENTRY = '\n[beat_schedule.a]\ntask = "t"\nschedule = 30\n'


@pytest.fixture
def load(tmp_path: Path):
    def loaded(text: str, **env: str) -> config.Config:
        (tmp_path / "beat.toml").write_text(text)
        return config.load(tmp_path / "beat.toml", env=env)

    return loaded


def test_a_target_is_read(load, tmp_path):
    (tmp_path / "hook").write_text("https://example.com/SECRET\n")
    loaded = load('[notify.ops]\nwebhook_file = "hook"\nrepeat = "24h"\nmatch = "x-*"\non = ["held"]' + ENTRY)
    [target] = loaded.settings.notify
    assert (target.webhook, target.repeat_ms, target.match) == ("https://example.com/SECRET", 86_400_000, ("x-*",))
    assert target.on == ("held",)
    assert "SECRET" not in repr(loaded.settings)
    assert str(tmp_path / "hook") in loaded.beside


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("notify = 5", "1:1: notify: expected tables such as [notify.ops], got 5"),
        ("[notify.ops]", "notify.ops: expected one of url, urls, webhook or command"),
        ('[notify.ops]\nwebhook = "ftp://SECRET"', "2:1: notify.ops.webhook: expected a URL such as https://HOST/PATH"),
        ('[notify.ops]\nwebhook = "https://SECRET:x"', "notify.ops.webhook: expected a URL"),
        ('[notify.ops]\nwebhook = "${HOOK}"', "the environment variable HOOK is not set"),
        ('[notify.ops]\nurl = "SECRET"', "notify.ops.url: expected a URL of apprise"),
        ('[notify.ops]\nwebhook_file = "none"', 'notify.ops.webhook_file: "none" cannot be read: No such file'),
        ('[notify.ops]\ncommand = "mail-it"', "notify.ops.command: expected a list of words"),
        (
            '[notify.ops]\ncommand = ["x"]\nheaders = { a = "SECRET" }',
            "notify.ops.headers: allowed only beside webhook",
        ),
        ('[notify.ops]\ncommand = ["x"]\non = ["fail"]', 'got "fail"; did you mean "failure"?'),
        ('[notify.ops]\ncommand = ["x"]\nafter = 0', "notify.ops.after: expected a whole number from 1"),
        ('[notify.ops]\ncommand = ["x"]\nrepeat = "1s"', "notify.ops.repeat: expected a duration of at least 60000 ms"),
        ('[notify."a b"]\ncommand = ["x"]', "cannot be the name of a target"),
        ('[notify.ops]\ncommand = ["x"]' + ENTRY + 'notify = ["opps"]', 'no target "opps"; did you mean "ops"?'),
        (ENTRY + 'notify = ["ops"]', 'there is no target "ops": expected a table [notify.ops] in the main file'),
        (ENTRY + 'ping = "mailto:SECRET"', "beat_schedule.a.ping: expected a URL"),
        (ENTRY + 'sentry = { dsn = "https://SECRET.com/x" }', "beat_schedule.a.sentry: dsn: expected https://KEY@HOST"),
        (ENTRY + 'sentry = { dns = "https://k@SECRET/1" }', "expected a table such as { dsn ="),
    ],
)
def test_errors_name_the_place_and_what_is_right(load, text, said):
    with pytest.raises(ConfigError) as caught:
        load(text)
    assert said in str(caught.value)
    assert "SECRET" not in str(caught.value)


def test_a_target_that_defaults_name_is_missed_once_in_its_place(load):
    entries = "".join(ENTRY.replace(".a]", f".a{number}]") for number in range(3))
    for text in (entries, ""):
        with pytest.raises(ConfigError) as caught:
            load('[notify.ops]\ncommand = ["x"]\n[defaults]\nnotify = ["opps"]' + text)
        [fault] = caught.value.faults
        assert str(fault).endswith(':4:1: defaults.notify: there is no target "opps"; did you mean "ops"?')


def test_only_the_main_file_has_targets(load, tmp_path):
    (tmp_path / "more.toml").write_text('[notify.ops]\ncommand = ["x"]\n')
    with pytest.raises(ConfigError, match="allowed only in"):
        load('include = ["more.toml"]')


def test_a_target_that_goes_is_missed_by_entries_that_are_not_read_again(load, tmp_path):
    entry = ENTRY + 'notify = ["ops"]\n'
    before = load('[notify.ops]\ncommand = ["x"]' + entry)
    (tmp_path / "beat.toml").write_text(entry)
    with pytest.raises(ConfigError, match="there is no target"):
        config.load(tmp_path / "beat.toml", env={}, before=before)


def test_apprise_is_asked_for_where_it_is_missing(load, monkeypatch):
    monkeypatch.setattr("beatd.config.targets.find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"pip install 'beatd\[notify\]'"):
        load('[notify.ops]\nurl = "json://localhost"')
