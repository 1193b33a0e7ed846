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


def test_another_file_is_left_as_it_is(tmp_path: Path) -> None:
    """A slip of the keyboard does not cost a schedule; a link is replaced, and its target stays."""
    schedule, link, output = tmp_path / "beat.toml", tmp_path / "link.json", tmp_path / "s.json"
    schedule.write_text("[beat_schedule.a]")
    link.symlink_to(schedule)
    output.write_text('{ "old": 1 }')
    for path, code in ((schedule, 1), (link, 1), (tmp_path, 2), (output, 0)):
        done = CliRunner().invoke(schema, ["-o", str(path)])
        assert done.exit_code == code, done.output
    assert "beat.toml is there already and is no JSON file" in CliRunner().invoke(schema, ["-o", str(schedule)]).output
    assert schedule.read_text() == "[beat_schedule.a]"
    assert output.read_text() == SHIPPED
