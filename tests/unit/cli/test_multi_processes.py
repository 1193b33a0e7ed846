"""A pid file is only ever a file that beatd made: nothing else is overwritten, and no link is followed."""

import os
import subprocess
import sys

import pytest

from beatd.cli.multi_processes import NodeRecord, NodeRecords
from beatd.cli.pidfile import locked, owner_of
from beatd.exceptions import ConfigError


@pytest.mark.parametrize("content", [b'timezone = "UTC"\n', b"1" * 33, b"12 34\n", b"-1\n", b"12\n13\n", b"\xff"])
def test_another_file_is_left_as_it_is(tmp_path, content):
    path = tmp_path / "beat.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="not a pid file"), locked(path):
        pass
    assert path.read_bytes() == content
    assert owner_of(path) is None


def test_no_link_is_followed(tmp_path):
    path, target = tmp_path / "pid", tmp_path / "target"
    path.symlink_to(target)
    with pytest.raises(ConfigError, match="symbolic link"), locked(path):
        pass
    assert not target.exists()
    assert owner_of(path) is None


def test_a_pipe_and_a_folder_are_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path):
        with pytest.raises(ConfigError), locked(path):
            pass
        assert owner_of(path) is None


@pytest.mark.parametrize("content", [b"", b"999999999\n", b"7"])
def test_a_stale_one_is_taken_over(tmp_path, content):
    path = tmp_path / "pid"
    path.write_bytes(content)
    with locked(path):
        assert path.read_bytes() == b"%d\n" % os.getpid()
    assert not path.exists()


NODE_0_1_0 = """{
  "node": "celery1@host",
  "arguments": [
    "--app=proj",
    "--concurrency=2"
  ],
  "folder": "/srv/proj",
  "pidfile": "%s",
  "logfile": "/srv/proj/celery1%%I.log"
}"""


def test_a_record_of_0_1_0_is_read(tmp_path):
    (tmp_path / "celery1@host.json").write_text(NODE_0_1_0 % "/srv/proj/celery1.pid")
    records = NodeRecords(tmp_path)
    started = NodeRecord(
        "celery1@host",
        ["--app=proj", "--concurrency=2"],
        "/srv/proj",
        "/srv/proj/celery1.pid",
        "/srv/proj/celery1%I.log",
    )
    assert (records.nodes(), records.read("celery1@host")) == (["celery1@host"], started)
    assert started.command[2:5] == ["beatd", "worker", "--app=proj"]


PIDFILE_0_1_0 = """
import fcntl, os, sys
file = open(sys.argv[1], "a+", encoding="ascii")
fcntl.lockf(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
file.truncate(0)
file.write(f"{os.getpid()}\\n")
file.flush()
print("held", flush=True)
sys.stdin.read()
"""


def test_a_worker_of_0_1_0_that_still_runs_is_found_by_its_pid_file(tmp_path):
    path = tmp_path / "celery1.pid"
    (tmp_path / "celery1@host.json").write_text(NODE_0_1_0 % path)
    command = [sys.executable, "-c", PIDFILE_0_1_0, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdout.readline() == "held\n"
        assert NodeRecords(tmp_path).read("celery1@host").pid == worker.pid
        with pytest.raises(ConfigError, match=f"belongs to process {worker.pid}"), locked(path):
            pass
        worker.stdin.close()
        worker.wait(timeout=30)
    assert NodeRecords(tmp_path).read("celery1@host").pid is None
