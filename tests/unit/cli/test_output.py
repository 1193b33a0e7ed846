"""Texts from elsewhere stay inside their line."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beatd.cli.output import print_line, print_table
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
