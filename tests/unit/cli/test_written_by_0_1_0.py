"""What 0.1.0 left on a host: its units, start records, pid files and beat.toml are read as 0.1.0 meant them.

The files in ``tests/data/0.1.0`` were written by the code of 0.1.0; ``make.py`` there wrote them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from beatd import config
from beatd.cli import main
from beatd.cli.multi import multi
from beatd.cli.multi_processes import NodeRecords
from beatd.cli.pidfile import locked, owner_of
from beatd.cli.service import service
from beatd.cli.systemd_units import DAEMON, SYSUSERS, UNITS, WORKER, installed_as
from beatd.exceptions import ConfigError

DATA = Path(__file__).parents[2] / "data" / "0.1.0"
NODE = "celery1@host"

HOLD = """
import fcntl, os, sys
file = open(sys.argv[1], "a+", encoding="ascii")
fcntl.lockf(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
file.truncate(0)
file.write(f"{os.getpid()}\\n")
file.flush()
print(flush=True)
sys.stdin.read()
"""
"""A process that owns a pid file as a worker of 0.1.0 does. It ends when it is told, or when its input does."""


def run(command: click.Command, *words: str | Path) -> Result:
    return CliRunner().invoke(command, list(map(str, words)))


# -- units ------------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["system", "user"])
def units(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, list[str]]:
    monkeypatch.setenv("PATH", str(tmp_path))  # no systemctl
    shutil.copytree(DATA / request.param, tmp_path / "units")
    return tmp_path / "units", ["--user"] if request.param == "user" else []


def test_units_are_recognised_and_reported_as_outdated(units: tuple[Path, list[str]]) -> None:
    folder, options = units
    done = run(service, "status", *options, "--to", folder)
    assert (done.exit_code, done.output.count("outdated or changed by hand")) == (1, 2)
    assert "not written by beatd" not in done.output
    assert "beatd service install --force" in done.output


def test_the_parameters_of_units_are_read_back(units: tuple[Path, list[str]]) -> None:
    folder, options = units
    for name in (DAEMON, WORKER):
        install = installed_as((folder / name).read_text())
        assert install is not None
        assert install.command == Path("/opt/beatd/bin/beatd")
        assert install.config == Path("/etc/beatd/beat.toml")
        assert install.user == (None if options else "beatd")


def test_units_are_renewed(units: tuple[Path, list[str]]) -> None:
    folder, options = units
    install = ["install", *options, "--config", "/etc/beatd/beat.toml", "--to", folder]
    assert run(service, *install).exit_code != 0  # they may have been changed by hand
    assert run(service, *install, "--force").exit_code == 0
    assert "outdated" not in run(service, "status", *options, "--to", folder).output


def test_units_are_removed(units: tuple[Path, list[str]]) -> None:
    folder, options = units
    done = run(service, "uninstall", *options, "--to", folder)
    assert done.exit_code == 0, done.output
    assert "did not write it" not in done.output
    assert list(folder.iterdir()) == []


def test_a_unit_that_was_copied_by_hand_is_kept(tmp_path: Path) -> None:
    packaged = Path(__file__).parents[3] / "packaging" / "systemd"
    for name in (*UNITS, SYSUSERS):
        shutil.copy(packaged / name, tmp_path)
    run(service, "uninstall", "--to", tmp_path)
    assert {path.name for path in tmp_path.iterdir()} >= set(UNITS)


# -- nodes of multi ---------------------------------------------------------------------------------------------------


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[subprocess.Popen[str]]:
    """A process with a pid file and a start record as 0.1.0 wrote them, in a folder of the test."""
    records = tmp_path / "beatd" / "multi"
    records.mkdir(parents=True)
    text = (DATA / f"{NODE}.json").read_text().replace("/var/lib/proj", str(tmp_path))
    (records / f"{NODE}.json").write_text(text)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "celery1.pid")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "\n"
        yield process
        process.kill()


def test_a_start_record_gives_the_same_command_line(node: subprocess.Popen[str], tmp_path: Path) -> None:
    started = NodeRecords(tmp_path / "beatd" / "multi").read(NODE)
    assert started is not None
    assert (started.folder, started.pid) == (str(tmp_path), node.pid)
    words = started.command[started.command.index("worker") + 1 :]
    worker = main.get_command(click.Context(main), "worker")
    assert worker is not None
    given = worker.make_context("worker", words).params
    assert (given["concurrency"], given["hostname"]) == (1, NODE)


def test_a_node_is_found_and_stopped(node: subprocess.Popen[str]) -> None:
    assert run(multi, "status").output == f"{NODE}: runs, pid {node.pid}\n"
    done = run(multi, "stopwait", NODE)
    assert (done.exit_code, done.output) == (0, f"{NODE}: stopped\n")
    assert node.wait(10) < 0  # ended by the signal


def test_a_pid_file_is_owned_while_its_process_lives(node: subprocess.Popen[str], tmp_path: Path) -> None:
    path = tmp_path / "celery1.pid"
    assert owner_of(path) == node.pid
    with pytest.raises(ConfigError, match=f"belongs to process {node.pid}"), locked(path):
        pass


def test_a_pid_file_that_was_left_behind_is_taken_over(tmp_path: Path) -> None:
    path = Path(shutil.copy(DATA / "celery1.pid", tmp_path))
    assert owner_of(path) is None
    with locked(path):
        assert path.read_text() == f"{os.getpid()}\n"
    assert not path.exists()


# -- beat.toml --------------------------------------------------------------------------------------------------------


def test_beat_toml_means_the_same() -> None:
    loaded = config.load(DATA / "beat.toml", env={"REDIS_PASSWORD": "x", "RABBITMQ_PASSWORD": "x"})
    assert loaded.digest == (DATA / "digest").read_text().strip()
    assert (loaded.settings.app, loaded.settings.redis.url) == ("tasks:app", "embedded")
