"""The first minutes with beatd: a file that runs, the schedule as one file, units for systemd."""

from __future__ import annotations

import subprocess
import tomllib

import pytest

from beatd.cli.systemd_units import UNITS


def test_the_first_file_runs_as_it_is(tmp_path, beatd, start_beatd):
    done = beatd("init")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].strip() == "beatd dev --builtin command"
    assert beatd("check", "--strict").returncode == 0
    assert (tmp_path / "beat.schema.json").read_text().startswith("{")
    dev = start_beatd("dev", "--builtin", "command", "--no-web")
    dev.expect("beatd.command.*succeeded", timeout=40)
    assert dev.end() == 0


def test_a_file_that_is_there_is_not_overwritten(tmp_path, beatd):
    (tmp_path / "beat.toml").write_text("# mine\n")
    done = beatd("init")
    assert (done.returncode, done.stderr) == (1, "Error: beat.toml is there already; --force overwrites it\n")
    assert (tmp_path / "beat.toml").read_text() == "# mine\n"
    nowhere = beatd("init", "no/such/folder/beat.toml")
    assert (nowhere.returncode, "cannot be written: No such file" in nowhere.stderr) == (1, True)


FILES = {
    "beat.toml": """
        timezone = "Europe/Berlin"
        app = "proj:app"
        include = ["more/*.toml"]
        [redis]
        url = "redis://:secret@localhost/0"
        [defaults]
        queue = "slow"
        [beat_schedule.one]
        task = "t.one"
        schedule = 30
        """,
    "more/two.toml": """
        timezone = "Asia/Baku"
        [beat_schedule.two]
        task = "t.two"
        schedule = { minute = "30", hour = "7" }
        """,
    "proj.py": """
from beatd import App
app = App("proj")
@app.task
def three(): ...
app.add_periodic_task(5, three.s(), name="three")
""",
}


def test_export_is_the_whole_schedule_and_loads_as_the_same(tmp_path, beatd):
    (tmp_path / "more").mkdir()
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    done = beatd("export", "--offline")
    assert done.returncode == 0, done.stderr
    assert "secret" not in done.stdout
    exported = tomllib.loads(done.stdout)
    assert exported["beat_schedule"] == {
        "one": {"task": "t.one", "schedule": "30s", "queue": "slow"},
        "two": {
            "task": "t.two",
            "schedule": {"minute": "30", "hour": "7"},
            "timezone": "Asia/Baku",
            "queue": "slow",
        },
        "three": {"task": "proj.three", "schedule": "5s", "queue": "slow"},
    }
    assert exported.pop("defaults") == {"queue": False}, "so that it can be included where the default is"
    (tmp_path / "flat").mkdir()
    (tmp_path / "flat" / "beat.toml").write_text(done.stdout)
    again = beatd("export", "--offline", cwd=tmp_path / "flat")
    assert tomllib.loads(again.stdout) == exported


def test_export_has_what_was_added_at_run_time(tmp_path, beatd, redis_url):
    (tmp_path / "beat.toml").write_text(
        f'[redis]\nurl = "{redis_url}"\n[beat_schedule.one]\ntask = "t"\nschedule = 1\n'
    )
    added = beatd("add", "two", "--task", "t", "--schedule", "@daily", "--args", "[1]", "--set", "jitter=5m")
    assert added.returncode == 0, added.stderr
    done = beatd("export", "-o", "all.toml")
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "all.toml").read_text()
    assert text.startswith("# 2 entries from beat.toml, 1 of them from its state store.\n")
    assert tomllib.loads(text)["beat_schedule"] == {
        "one": {"task": "t", "schedule": "1s"},
        "two": {"task": "t", "schedule": "@daily", "args": [1], "jitter": "5m"},
    }
    (tmp_path / "beat.toml").write_text('[redis]\nurl = "redis://127.0.0.1:1/0"\n')
    unreachable = beatd("export")
    assert (unreachable.returncode, unreachable.stdout) == (1, "")


@pytest.mark.parametrize("options", [(), ("--user",)], ids=["system", "user"])
def test_units_have_the_paths_of_this_installation(tmp_path, beatd, options):
    (tmp_path / "beat.toml").write_text("")
    done = beatd("service", "install", *options, "--web", "--config", "beat.toml", "--to", "units")
    assert done.returncode == 0, done.stderr
    texts = [(tmp_path / "units" / unit).read_text() for unit in UNITS]
    for text, subcommand in zip(texts, ("run", "worker", "web"), strict=True):
        (command,) = (line for line in text.splitlines() if line.startswith("ExecStart="))
        assert command.split()[1:4] == [subcommand, "--config", str(tmp_path / "beat.toml")]
        assert ("User=beatd" in text) == (options == ())
        assert ("WantedBy=default.target" in text) == (options != ())
        assert f"EnvironmentFile=-{tmp_path}/environment" in text
    assert beatd("service", "install", *options, "--to", "units").returncode in (1, 2)  # they are there


@pytest.mark.needs("systemd-analyze")
def test_systemd_has_nothing_to_say_against_them(tmp_path, beatd):
    odd = tmp_path / "a folder with 100% spaces"
    odd.mkdir()
    (odd / "beat.toml").write_text("")
    done = beatd("service", "install", "--web", "--config", str(odd / "beat.toml"), "--to", str(tmp_path))
    assert done.returncode == 0, done.stderr
    for unit in UNITS:
        done = subprocess.run(
            ["systemd-analyze", "verify", tmp_path / unit], capture_output=True, text=True, timeout=60, check=False
        )
        assert [line for line in done.stderr.splitlines() if "beatd" in line] == []
        assert done.returncode == 0
