"""Findings of ``beatd doctor`` that need no server."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

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


@pytest.fixture
def noted(tmp_path, monkeypatch):
    """``noted(text, NAME=...)``: what is said of these variables beside a file with that text, by name."""
    for name in [each for each in os.environ if each.startswith("BEATD_")]:
        monkeypatch.delenv(name)

    def noted(text, **variables):
        with monkeypatch.context() as patched:
            for name, value in variables.items():
                patched.setenv(name, value)
            (tmp_path / "beat.toml").write_text(text)
            findings = [
                each for each in doctor.examine(str(tmp_path / "beat.toml"), None) if "environment has" in each.text
            ]
        assert {each.level for each in findings} <= {doctor.NOTE}
        return {each.text.split()[3].rstrip(","): each.text.rpartition("; ")[2] for each in findings}

    return noted


STORE = '[redis]\nurl = "embedded"\n'


def test_a_misspelt_variable_is_named_with_the_right_one(noted):
    found = noted(STORE, BEATD_CONFG="a.toml", BEATD_BROKER="redis://h", BEATD_ZZZ="1")
    assert found["BEATD_CONFG"] == "did you mean BEATD_CONFIG?"
    assert found["BEATD_BROKER"] == "did you mean BEATD_BROKER_URL?"
    assert found["BEATD_ZZZ"].startswith("it reads BEATD_CONFIG, BEATD_APP, ")
    assert len(found) == 3


def test_variables_that_something_reads_are_not_misspelt(noted, tmp_path):
    (tmp_path / "more.toml").write_text('[defaults]\nqueue = "${BEATD_QUEUE}"\n')
    files = f'include = ["more.toml"]\ntimezone = "${{BEATD_ZONE:-UTC}}"\n{STORE}'
    own = {"BEATD_QUEUE": "q", "BEATD_ZONE": "UTC", "BEATD_QUIET": "1", "BEATD_DEBUG": "1", "BEATD_TITLE": "t"}
    service = {"BEATD_WEB_SERVICE_HOST": "h", "BEATD_WEB_SERVICE_PORT_HTTP": "80", "BEATD_WEB_PORT_80_TCP": "h"}
    assert noted(files, **own, **service) == {}


def test_the_name_of_a_variable_that_a_file_misses_is_the_nearest(noted):
    found = noted('[redis]\nurl = "${BEATD_STORE_PLACE}"\n', BEATD_STORE_PLAICE="redis://h")
    assert found == {"BEATD_STORE_PLAICE": "did you mean BEATD_STORE_PLACE?"}
