"""Crontab files become entries that run the same commands at the same times."""

from __future__ import annotations

import pytest

from beatd.importing import carry_over
from beatd.importing.crontab import read_crontab


def carried(text: str, *, has_users: bool = False, timezone: str = "UTC"):
    return carry_over(read_crontab(text, shown="crontab", has_users=has_users, timezone=timezone))


def test_a_line_becomes_a_command():
    found = carried("30 7 * * mon  /usr/local/bin/report --weekly > /tmp/out 2>&1\n", timezone="Europe/Berlin")
    (entry,) = found.entries
    assert entry.name == "report"
    assert entry.task == "beatd.command"
    assert entry.args == ("/bin/sh", "-c", "/usr/local/bin/report --weekly > /tmp/out 2>&1")
    assert entry.schedule.notation == "30 7 * * mon"
    assert entry.timezone == "Europe/Berlin"
    assert found.notes == ()


def test_variables_hold_for_the_lines_below_them():
    text = '@daily one\nSHELL=/bin/bash\nPATH = "/opt/bin:/bin"\nCRON_TZ=Asia/Baku\n@daily two\n'
    one, two = carried(text).entries
    assert (one.args[0], one.kwargs, one.timezone) == ("/bin/sh", {}, "UTC")
    assert (two.args[0], two.kwargs, two.timezone) == ("/bin/bash", {"env": {"PATH": "/opt/bin:/bin"}}, "Asia/Baku")


def test_system_crontabs_name_a_user():
    found = carried("17 * * * * root  run-parts /etc/cron.hourly\n0 4 * * * www-data backup\n", has_users=True)
    assert [entry.kwargs for entry in found.entries] == [{}, {"user": "www-data"}]
    assert [(note.entry, note.about) for note in found.notes] == [("run-parts-etc-cron-hourly", "user")]


def test_percent_signs():
    found = carried("@daily date +\\%F\n@hourly cat%one%two\n")
    assert [entry.args[-1] for entry in found.entries] == ["date +%F", "cat"]
    assert [(note.entry, note.about) for note in found.notes] == [("cat", "args")]


def test_names_are_not_given_twice():
    found = carried("@daily backup a\n@hourly backup a\n@weekly backup a\n")
    assert [entry.name for entry in found.entries] == ["backup-a", "backup-a-2", "backup-a-3"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("@reboot start", "@reboot has no counterpart"),
        ("nonsense", "not a line of a crontab"),
        ("* * * *", "not a line of a crontab"),
        ("61 * * * * bad", "61 is out of range"),
        ("@sometimes bad", "@sometimes"),
    ],
)
def test_what_cannot_be_carried_over_is_said(line, words):
    found = carried(f"@daily good\n{line}\n")
    assert [entry.name for entry in found.entries] == ["good"]
    assert found.lost == 1
    assert words in str(found.notes[0])


def test_settings_of_cron_that_mean_nothing_here_are_said():
    found = carried("MAILTO=me@example.com\nRANDOM_DELAY=10\n@daily good\n")
    assert [(note.entry, note.about) for note in found.notes] == [("good", "RANDOM_DELAY"), ("crontab", "MAILTO")]
    assert found.lost == 0
