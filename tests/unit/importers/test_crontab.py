"""Crontab files become entries that run the same commands at the same times."""

from __future__ import annotations

import contextlib
import gzip
import pickle
import subprocess
import time

import pytest

from beatd.exceptions import ConfigError
from beatd.importers import carry_over
from beatd.importers.crontab import decoded, read_crontab

CWD = ("crontab", "cwd")
"""The note that cron's working directory is another one."""


def carried(text: str, *, has_users: bool | None = False, timezone: str | None = "UTC"):
    return carry_over(read_crontab(text, shown="crontab", has_users=has_users, timezone=timezone))


def said(found) -> list[tuple[str, str]]:
    """What the notes are about, without the one that each file without HOME has."""
    return [note[:2] for note in found.notes if note[:2] != CWD]


def test_a_line_becomes_a_command():
    found = carried("30 7 * * mon  /usr/local/bin/report --weekly > /tmp/out 2>&1\n", timezone="Europe/Berlin")
    (entry,) = found.entries
    assert entry.name == "report"
    assert entry.task == "beatd.command"
    assert entry.args == ("/bin/sh", "-c", "/usr/local/bin/report --weekly > /tmp/out 2>&1")
    assert entry.schedule.notation == "30 7 * * mon"
    assert entry.timezone == "Europe/Berlin"
    assert [note[:2] for note in found.notes] == [CWD]


def test_variables_hold_for_the_lines_below_them():
    text = '@daily one\nSHELL=/bin/bash\nPATH = "/opt/bin:/bin"  \nCRON_TZ=Asia/Baku\n@daily two\n'
    one, two = carried(text).entries
    assert (one.args[0], one.kwargs, one.timezone) == ("/bin/sh", {}, "UTC")
    assert (two.args[0], two.timezone) == ("/bin/bash", "Asia/Baku")
    assert two.kwargs == {"env": {"SHELL": "/bin/bash", "PATH": "/opt/bin:/bin"}}


def test_home_is_the_working_directory():
    found = carried("HOME=/srv/app\n@daily ./run\n")
    assert found.entries[0].kwargs == {"env": {"HOME": "/srv/app"}, "cwd": "/srv/app"}
    assert found.notes == ()


def test_tz_is_for_the_command():
    found = carried("TZ=Asia/Tokyo\n@daily date\n")
    assert found.entries[0].kwargs == {"env": {"TZ": "Asia/Tokyo"}}
    assert found.entries[0].timezone == "UTC"
    assert said(found) == [("date", "TZ")]


@pytest.mark.parametrize(
    ("text", "is_taken_as_utc"),
    [
        ("@daily a\n", True),
        ("# CRON_TZ=Asia/Baku\n@daily a\n", True),
        ("@daily echo CRON_TZ=Asia/Baku\n", True),
        ("@daily a\nCRON_TZ=Asia/Baku\n@daily b\n", True),
        ("CRON_TZ=\n@daily b\n", True),
        ("CRON_TZ=Asia/Baku\n@daily b\n", False),
        ("", False),
    ],
)
def test_times_that_are_taken_as_utc_are_said(text, is_taken_as_utc):
    assert ("crontab", "timezone") not in said(carried(text, timezone="Asia/Baku"))
    assert (("crontab", "timezone") in said(carried(text, timezone=None))) is is_taken_as_utc


def test_system_crontabs_name_a_user():
    found = carried("17 * * * * root  run-parts /etc/cron.hourly\n0 4 * * * www-data backup\n", has_users=True)
    assert [entry.kwargs for entry in found.entries] == [{}, {"user": "www-data"}]
    assert said(found) == [("run-parts-etc-cron-hourly", "user"), ("crontab", "user")]
    other = carried("0 4 * * * /usr/bin/backup now\n", has_users=True)
    assert (other.lost, "crontab without users?" in str(other.notes[0])) == (1, True)


@pytest.mark.parametrize(
    "text",
    ["17 * * * * root run-parts /etc/cron.hourly\n", "#\nA=1\n@daily\tdaemon  x y\n* * * * * nobody z\n"],
)
def test_a_crontab_that_seems_to_have_users_is_refused(text):
    with pytest.raises(ConfigError, match=r"^crontab:\d: .* is the name of a user.*--system"):
        carried(text, has_users=None)
    assert len(carried(text, has_users=False).entries) == text.count("\n") - 2 * text.startswith("#")


@pytest.mark.parametrize("text", ["@daily sync\n", "@daily mail\n@daily my-backup now\n", "", "@daily root\n"])
def test_a_crontab_without_users_is_none_with_users(text):
    assert carried(text, has_users=None).lost == 0


def test_a_leading_minus_means_not_logged():
    found = carried("-*/15 * * * * root x\n-@daily root y\n", has_users=True)
    assert [entry.schedule.notation for entry in found.entries] == ["*/15 * * * *", "@daily"]
    assert said(found) == [("x", "schedule"), ("x", "user"), ("y", "schedule"), ("y", "user")]


def test_percent_signs():
    (plain, given) = carried("@daily date +\\%F\n@hourly cat > out%one%two \\% three\n").entries
    assert plain.args == ("/bin/sh", "-c", "date +%F")
    assert given.args[-3:] == ("/bin/sh", "cat > out", "one\ntwo % three\n")


@pytest.mark.parametrize(
    ("line", "output"),
    [
        ("@daily cat%one%two", "one\ntwo\n"),
        ("@daily cat%one%", "one\n"),
        ("@daily cat; exit 3%", ""),
        (r"@daily echo '\%' \\x", "% \\x\n"),
    ],
)
def test_the_command_runs_as_cron_would_run_it(line, output):
    (entry,) = carried(line + "\n").entries
    done = subprocess.run(entry.args, check=False, capture_output=True, text=True, timeout=10)
    assert (done.stdout, done.returncode) == (output, 3 if "exit 3" in line else 0)


def test_lines_end_where_cron_ends_them():
    text = "\ufeff@daily one\r\n@daily echo a\x0cb\u2028c\x1c\x85d\r\n \t@daily\t three  \n\u00a0\n@daily four"
    found = carried(decoded(text.encode(), "crontab"))
    assert [entry.args[-1] for entry in found.entries] == ["one", "echo a\x0cb\u2028c\x1c\x85d", "three", "four"]
    assert found.lost == 1


def test_bytes_that_are_not_utf8():
    found = carried(decoded(b"# caf\xe9\n@daily caf\xe9\n@daily tea\n", "crontab"))
    assert [entry.name for entry in found.entries] == ["tea"]
    assert str(found.notes[0]) == "crontab:2: the line is not UTF-8"
    with pytest.raises(ConfigError, match="binary"):
        decoded(b"\x7fELF\x00", "crontab")


@pytest.mark.parametrize(
    ("line", "notation"),
    [
        ("0 */24 * * *", "0 0 * * *"),
        ("*/60 * * * *", "0 * * * *"),
        ("*/60,30 * * * *", "0,30 * * * *"),
        ("10-20/30 4 * * *", "10 4 * * *"),
        ("0 0 */31 * *", "0 0 1 * *"),
        ("5/15 * * * *", "5-59/15 * * * *"),
    ],
)
def test_steps_are_written_in_their_plain_form(line, notation):
    found = carried(f"{line} x\n")
    assert found.entries[0].schedule.notation == notation
    assert said(found) == [("x", "schedule")]


def test_random_times_are_fixed_by_the_name():
    found = carried("0~29 ~ * * * x\n")
    minute, hour, *days = found.entries[0].schedule.notation.split()
    assert int(minute) < 30
    assert int(hour) < 24
    assert days == ["*", "*", "*"]
    assert [note.about for note in found.notes][:2] == ["schedule", "schedule"]


def test_variables_of_the_shell_stay_what_they_are():
    (entry,) = carried('d=/tmp\n@daily echo "${HOME}" ${d}/b.tar $${x}\n').entries
    assert entry.args[-1] == 'echo "${HOME}" ${d}/b.tar $${x}'


def test_a_zone_that_not_every_cron_reads_is_said():
    found = carried("CRON_TZ=Asia/Baku\n@daily a\n")
    assert said(found) == [("crontab", "CRON_TZ")]


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("PGPASSWORD=hunter2 pg_dump shop", "pg-dump-shop"),
        ("A=1 PGPASSWORD='hunter2 x' pg_dump shop", "pg-dump-shop"),
        ("env PGPASSWORD=hunter2 pg_dump shop", "env-pg-dump-shop"),
        ("curl -s -u me:hunter2 https://me:hunter2@example.com/ping?key=hunter2", "curl-example-com"),
        ("tool --password hunter2 --out=a b", "tool-b"),
        ("run-parts --report /etc/cron.daily", "run-parts-etc-cron-daily"),
        ("bash -c 'cd /srv && ./backup now'", "bash-cd-srv"),
        ("python3 -m shop.report", "python3-shop-report"),
    ],
)
def test_names_have_no_secrets(command, name):
    (entry,) = carried(f"@daily {command}\n").entries
    assert entry.name == name


def test_names_are_not_given_twice():
    found = carried("@daily backup a\n@hourly backup a\n@weekly backup a\n")
    assert [entry.name for entry in found.entries] == ["backup-a", "backup-a-2", "backup-a-3"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("@reboot start", "@reboot is not supported"),
        ("nonsense", "not a line of a crontab"),
        ("* * * *", "not a line of a crontab"),
        ("61 * * * * bad", "61 is out of range"),
        ("@sometimes bad", "@sometimes"),
        ("CRON_TZ=Nowhere/Else\n@daily bad", "Nowhere/Else"),
    ],
)
def test_what_cannot_be_carried_over_is_said(line, words):
    found = carried(f"@daily good\n{line}\n")
    assert [entry.name for entry in found.entries] == ["good"]
    assert found.lost == 1
    assert any(words in str(note) for note in found.notes)
    assert found.toml.startswith("# Left behind: ")
    assert words in found.toml.partition("\n")[0]


def test_settings_of_cron_that_mean_nothing_here_are_said():
    found = carried('MAILTO=me@example.com\nRANDOM_DELAY=10\n@daily good\nMAILTO=""\n')
    assert said(found) == [("good", "RANDOM_DELAY"), ("crontab", "MAILTO")]
    assert found.lost == 0


OTHERS = {
    "YAML; expected a crontab; beatd import kubernetes x": "apiVersion: v1\nkind: CronJob\nspec:\n  a b c d e f: g\n",
    "YAML; expected a crontab; beatd import github-actions x": "on:\n  schedule:\n    - cron: 0 3 * * *\njobs: {}\n",
    "YAML; expected a crontab; beatd import cronstable x": "# jobs\njobs:\n  - name: a\n    command: a b c d e f g\n",
    "YAML; expected a crontab; beatd import reads those": "---\n- a: one two three four five six\n- b: 2\n",
    "JSON; expected a crontab; beatd import dkron x": '[\n  {"name": "a",\n   "schedule": "@every 1m"}\n]\n',
    "JSON; expected a crontab; beatd import kubernetes x": '{"a": 1,\n "kind": "CronJobList",\n "items": []}\n',
    "TOML; expected a crontab; .*beatd check x": 'timezone = "UTC"\n\n[beat_schedule.a]\nschedule = "0 3 * * *"\n',
    "a systemd unit; expected a crontab; beatd import systemd x": "[Timer]\nOnCalendar=*-*-* 03:00\n",
    "HTML or XML; expected a crontab$": "\n<!DOCTYPE html>\n<title>404 the page was not found here</title>\n",
    "Python; expected a crontab; beatd import celery MODULE": '"""App."""\nfrom celery import Celery\napp = Celery()\n',
}


@pytest.mark.parametrize("words", OTHERS)
def test_a_file_of_another_format_is_one_error(words):
    with pytest.raises(ConfigError, match=f"^x: is {words}") as raised:
        read_crontab(OTHERS[words], shown="x", has_users=None)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"SQLite format 3\0\x10", "an SQLite database; .*beatd import apscheduler sqlite:///x"),
        (pickle.dumps({"trigger": 1}), "a pickle; .*beatd import apscheduler x"),
        (gzip.compress(b"@daily a\n", mtime=0), "compressed by gzip; .*unpack it"),
        ("@daily a\n".encode("utf-16"), "a text in UTF-16; .*write it as UTF-8"),
        (b"\x7fELF\0", "a binary file; expected a crontab$"),
    ],
)
def test_a_binary_file_is_one_error(data, words):
    with pytest.raises(ConfigError, match=f"^x: is {words}"):
        decoded(data, "x")


def test_prose_is_one_error():
    with pytest.raises(ConfigError, match=r"^x:2: none of its lines is one of a crontab, .*: The quick brown fox"):
        carried_as(
            "x", "# 1\nThe quick brown fox jumps over\nand the lazy dog sees it all\n\ncat\n2024-01-01 12:00 a b c d\n"
        )


def carried_as(shown, text):
    return carry_over(read_crontab(text, shown=shown, has_users=None))


@pytest.mark.parametrize(
    "text",
    [
        "kind: CronJob\n0 3 * * * a\n",
        "[Timer]\n-*/5 1-3 1,2 jan-mar mon a\n",
        "<html>\n@daily a\n",
        "{\n0~29 0 * * 1#2 a\n",
        "a\nb c\n99 * * * * a\n",
    ],
)
def test_one_line_of_a_crontab_makes_it_a_crontab(text):
    found = carried_as("x", text)
    assert found.lost == len(text.splitlines()) - len(found.entries)


@pytest.mark.parametrize("text", ["9" * 200_000 + " x", "[" + " " * 200_000, "1 " * 100_000 + "\n", "@a" * 100_000])
def test_long_lines_are_read_at_once(text):
    begin = time.process_time()
    with contextlib.suppress(ConfigError):
        carried_as("x", f"{text}\na: b\n")
    assert time.process_time() - begin < 2
