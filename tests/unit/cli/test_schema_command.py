"""``beatd schema``."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner

from beatd.cli.schema import schema

SHIPPED = (Path(__file__).parents[3] / "config" / "beat.schema.json").read_text()


def test_it_prints_what_is_shipped() -> None:
    done = CliRunner().invoke(schema, [])
    assert (done.exit_code, done.stdout) == (0, SHIPPED)


def test_it_writes_to_a_file(tmp_path: Path) -> None:
    done = CliRunner().invoke(schema, ["-o", str(tmp_path / "s.json")])
    assert (done.exit_code, done.stdout) == (0, "")
    assert (tmp_path / "s.json").read_text() == SHIPPED


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    done = CliRunner().invoke(schema, ["-o", str(tmp_path / "none" / "s.json")])
    assert done.exit_code == 1
    assert "s.json cannot be written: No such file or directory" in done.stderr
