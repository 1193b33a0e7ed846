"""Texts from elsewhere stay inside their line."""

import json
import os

import click
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from beatd.cli import output
from beatd.cli.output import print_json, print_line, print_problem, print_table, write_file
from beatd.redaction import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("report", "report"),
        ("Übersicht – 夜間", "Übersicht – 夜間"),
        ("a\n! forged", r"a\n! forged"),
        ("a\r\tb", r"a\r\tb"),
        ("\x1b[2Jgone", r"\x1b[2Jgone"),
        ("\x9b31m", r"\x9b31m"),
        ("a\u2028b\u202ec", r"a\u2028b\u202ec"),
        ("\udcff", r"\udcff"),
    ],
)
def test_what_is_not_printable_is_shown_as_an_escape(text, shown):
    assert printable(text) == shown


@given(st.text())
def test_whatever_it_is_it_is_one_printable_line(text):
    assert printable(text).isprintable()


def test_a_cell_cannot_add_lines_to_a_table(capsys):
    print_table(["entry", "state"], [["a\n! forged", "\x1b[31mred"], ["b", ""]])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert lines[2] == r"a\n! forged   \x1b[31mred"


def test_a_line_stays_one(capsys):
    print_line("one\ntwo")
    assert capsys.readouterr().out == "one\\ntwo\n"


@pytest.fixture
def terminal(monkeypatch, capsys):
    """A terminal of a width; returns the lines that it showed."""
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("LINES", "24")
    monkeypatch.setenv("TERM", "xterm")

    def lines(width, show):
        monkeypatch.setattr(output.sys.stdout, "isatty", lambda: True, raising=False)
        monkeypatch.setenv("COLUMNS", str(width))
        show()
        return capsys.readouterr().out.splitlines()

    return lines


NAME = st.text("abc-", min_size=1, max_size=60).filter(lambda text: text.strip())
CELL = st.text("ab 夜,", max_size=70)


@given(rows=st.lists(st.tuples(NAME, CELL, CELL, CELL), min_size=1, max_size=4), width=st.sampled_from([60, 80, 120]))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_a_name_is_never_folded_and_no_other_line_is_too_wide(terminal, rows, width):
    shown = terminal(width, lambda: print_table(["entry", "schedule", "next", "state"], rows))
    names = [row[0] for row in rows]
    assert all(any(line.startswith(name) for line in shown) for name in names)
    assert all(cell_len(line) <= width for line in shown if line not in names)


def test_a_wide_table_has_names_on_lines_of_their_own(terminal):
    rows = [["a" * 60, "every 3s", "in 2s"], ["b", "0 7 * * *", "in 5h"]]
    assert terminal(60, lambda: print_table(["entry", "schedule", "next"], rows)) == [
        "entry",
        "  schedule    next",
        "─" * 60,
        "a" * 60,
        "  every 3s    in 2s",
        "b",
        "  0 7 * * *   in 5h",
    ]


def test_sentences_in_the_last_column_are_folded_where_there_is_room(terminal):
    rows = [["schedule", "yes", "at 03:00, every day, Europe/Berlin time, and not in the holidays of 2026"]]
    assert terminal(60, lambda: print_table(["rule", "passes", "detail"], rows))[2:] == [
        "schedule   yes      at 03:00, every day, Europe/Berlin time,",
        "                    and not in the holidays of 2026         ",
    ]
    assert terminal(50, lambda: print_table(["rule", "passes", "detail"], rows))[3] == "schedule"


def test_a_long_problem_is_indented_and_its_words_stay_whole(terminal):
    text = "some-entry is held back since 2026-11-25 21:26:21 UTC: " + "x" * 90 + "; next try at 21:27"
    shown = terminal(80, lambda: print_problem(text))
    assert shown[0].startswith("! some-entry")
    assert all(line.startswith("  ") for line in shown[1:])
    assert any("x" * 90 in line for line in shown)
    assert " ".join(" ".join(shown).split()) == f"! {text}"


@pytest.mark.parametrize(
    "value", [{}, [], {"a": [], "b": {}}, [{"ü": ["x\u009by", 1.5, None, True]}], [10**30], "\ud800"]
)
def test_json_is_laid_out_as_python_does_it(value, capsys):
    print_json(value)
    shown = capsys.readouterr().out
    plain = json.dumps(value, indent=2, ensure_ascii=False)
    assert shown == "".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in plain) + "\n"


def test_numbers_that_json_does_not_have_are_null(capsys):
    print_json([float("inf"), float("nan"), 0.5])
    assert json.loads(capsys.readouterr().out) == [None, None, 0.5]


def test_a_text_of_a_task_is_whole_for_programs_and_harmless_in_a_terminal(terminal, capsys):
    output.print_text("a\x07\tb\nc")
    assert capsys.readouterr().out == "a\x07\tb\nc\n"
    assert terminal(80, lambda: output.print_text("a\x1b[2J\tb\nc")) == ["a\\x1b[2J\tb", "c"]


@pytest.mark.parametrize("force", [True, False])
def test_a_place_that_may_not_be_looked_at_is_named(tmp_path, monkeypatch, force):
    stat = os.stat

    def refused(path, *more, **options):
        if str(path).startswith(str(tmp_path / "closed")):
            raise PermissionError(13, "Permission denied", str(path))
        return stat(path, *more, **options)

    monkeypatch.setattr(os, "stat", refused)
    for name in ("closed/out.toml", "x" * 300):
        with pytest.raises(
            click.ClickException, match=r"cannot be written: (No such file|Permission|File name too long)"
        ):
            write_file(tmp_path / name, "text", force=force)
