"""Fleets of beatd's worker and a Celery worker of some version: the tasks of one composition run on both."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.acceptance.celery_pairs import await_ready
from tests.celery_process import celeries, older_python
from tests.forked import environment

pytestmark = pytest.mark.soak

MODULE = Path(__file__).with_name("mixed_fleet.py")
CHORDS = {
    "chord": 16,
    "body on the other": 16,
    "group in a chord": 16,
    "chain in a chord": 13,
    "chord in a chord": 32,
    "chord in a chain": 105,
    "chord of a chain": 1016,
    "error": ["ChordError", True],
    "late error": ["ChordError", True],
    "errback": [["ChordError", True], "caught"],
}
EXPECTED = {f"{name}, last {last}": value for name, value in CHORDS.items() for last in ("ours", "theirs")}


@pytest.mark.parametrize(
    ("version", "ordered", "clients"),
    [
        ("4.4", "", ["theirs"]),  # its worker counts in a list, and so do ours what its clients send
        ("4.4", "False", ["theirs", "ours"]),
        ("4.4", "True", ["theirs", "ours"]),
        ("5.2", "", ["theirs", "ours"]),
        ("", "", ["theirs", "ours"]),
    ],
)
def test_compositions_run_on_both_workers(version, ordered, clients, tmp_path, start_beatd, redis_url, monkeypatch):
    text = MODULE.read_text()
    for name, module in {
        "theirs": text,
        "ours": text.replace("from celery import C", "from beatd import App as C"),
    }.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "mixed_fleet.py").write_text(module)
    for name, value in {"BROKER": redis_url, "BACKEND": redis_url, "ORDERED": ordered}.items():
        monkeypatch.setenv(name, value)
    python = older_python(version) if version else sys.executable
    with celeries(tmp_path / "theirs", python) as start:
        theirs = start.worker("-P", "threads", "-c", "8", "-Q", "theirs", "-l", "info", app="mixed_fleet")
        ours = start_beatd(
            "worker", "-A", "mixed_fleet", "-P", "threads", "-c", "8", "-Q", "ours", cwd=tmp_path / "ours"
        )
        ours.expect(r" ready\.", timeout=60)
        await_ready(theirs.log, theirs.process)
        for client in clients:
            command = [python if client == "theirs" else sys.executable, "mixed_fleet.py"]
            done = subprocess.run(
                command,
                cwd=tmp_path / client,
                env=environment(),
                capture_output=True,
                text=True,
                timeout=100,
                check=False,
            )
            assert done.returncode == 0, done.stderr
            outcomes = json.loads(done.stdout)
            assert outcomes == EXPECTED, (client, theirs.text[-3000:], ours.text[-3000:])
        assert theirs.process.poll() is None
        assert ours.process.poll() is None
