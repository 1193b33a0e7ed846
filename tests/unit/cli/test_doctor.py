"""Findings of ``beatd doctor`` that need no server."""

from __future__ import annotations

from pathlib import Path

from beatd.cli import doctor
from beatd.cli.systemd_units import DAEMON, Install, fitted, source


def units():
    return next(found for found in doctor.examine("nowhere.toml", None) if found.part == "units")


def test_a_unit_whose_program_has_a_space_in_its_path(tmp_path, monkeypatch):
    program = tmp_path / "my programs" / "100%" / "beatd"
    (tmp_path / DAEMON).write_text(fitted(source(DAEMON), Install(program, Path("/etc/beatd/beat.toml"), None)))
    monkeypatch.setattr(doctor, "UNIT_FOLDERS", (tmp_path,))
    found = units()
    assert (found.level, f"starts {program}, which is not there" in found.text) == (doctor.WRONG, True)
    program.parent.mkdir(parents=True)
    program.touch()
    found = units()
    assert found.level == doctor.OK


def test_a_unit_that_somebody_else_wrote(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "UNIT_FOLDERS", (tmp_path,))
    (tmp_path / DAEMON).write_text("[Service]\nExecStart=/nowhere/start-beatd now\n")
    found = units()
    assert "starts /nowhere/start-beatd, which is not there" in found.text
