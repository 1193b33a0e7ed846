"""The screen of ``beatd top``, without a terminal: sizes, keys, hostile names, what is asked before a change."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beatd.cli.output import cell_len
from beatd.cli.top_view import PAGE, Away, Change, Row, Snapshot, Table, View, cut

COLUMNS = ("entry", "last runs", "last", "next", "state")


def snapshot(names, *, tab=0, first=0, total=None, **more):
    rows = [Row((name, "failure ✗✗✓", "1m", "2m", ""), "bad", name, f"id-{name}" if tab == 1 else "") for name in names]
    table = Table(COLUMNS, rows, first, len(names) if total is None else total)
    facts = {"problems": ["x"], "entries": len(names), "failing": 1, "tab": tab, "table": table, **more}
    return Snapshot(1_790_000_000_000, "a leads, 1 daemon", **facts)


def view(*names, **more):
    one = View()
    one.take(snapshot(names or ["a", "b", "c"], **more))
    one.lines(80, 24)
    return one


def text(one, width=80, height=24):
    return "\n".join(line.text for line in one.lines(width, height))


@given(
    st.lists(st.text(max_size=60), max_size=30),
    st.integers(1, 200),
    st.integers(1, 60),
    st.text("jkGg1234?/rpus x\t", max_size=12),
)
def test_no_line_is_wider_than_the_screen_and_none_has_control_characters(names, width, height, keys):
    one = View()
    for key in ["", *keys]:
        one.take(snapshot(names, tab=one.wanted.tab))
        one.press("tab" if key == "\t" else key)
        lines = one.lines(width, height)
        assert len(lines) <= max(height, 1)
        for line in lines:
            assert cell_len(line.text) <= width
            assert line.text.isprintable()


def test_the_selected_entry_stays_selected_where_it_goes():
    one = view("a", "b", "c")
    one.press("j")
    assert [line.text.split()[0] for line in one.lines(80, 24) if line.style == "selected"] == ["b"]
    one.take(snapshot(["c", "x", "b", "a"]))
    assert [line.text.split()[0] for line in one.lines(80, 24) if line.style == "selected"] == ["b"]
    one.take(snapshot(["c"]))
    assert [line.text.split()[0] for line in one.lines(80, 24) if line.style == "selected"] == ["c"]


def test_entries_are_asked_for_in_pages():
    one = view(*[f"e{number}" for number in range(PAGE)], total=10_000)
    one.press("G")
    assert one.wanted.page == 10_000 // PAGE
    assert "…" in text(one)
    one.take(snapshot([f"e{n}" for n in range(9_800, 10_000)], first=9_800, total=10_000))
    assert "10,000 of 10,000" in text(one)
    one.press("home")
    assert one.wanted.page == 1


@pytest.mark.parametrize(
    ("keys", "change"),
    [
        (["r", "y"], Change("run", "a")),
        (["r", "n"], None),
        (["r", "esc"], None),
        (["j", "u", "y"], Change("resume", "b")),
        (["p", "enter"], Change("pause", "a")),
        (["p", *"90m", "enter"], Change("pause", "a", 5_400_000)),
        (["p", *"2h a b", "enter"], Change("pause", "a", 7_200_000, "a b")),
        (["p", *"soon", "enter"], None),
        (["p", "esc"], None),
        (["s", "y"], None),
        (["y"], None),
    ],
)
def test_changes_are_asked_about_first(keys, change):
    one = view()
    done = [one.press(key) for key in keys]
    assert done[:-1] == [None] * (len(keys) - 1)
    assert done[-1] == change


def test_a_run_is_stopped_where_runs_are_shown():
    one = view()
    one.press("2")
    one.take(snapshot(["a", "b"], tab=1))
    one.press("j")
    one.press("s")
    assert "y or n: Stop run id-b?" in text(one)
    assert one.press("y") == Change("stop", "id-b")


def test_a_store_that_is_away_is_told_and_the_rest_stays():
    one = view(away=Away(1_790_000_000_000 - 61_000, "connection refused"))
    assert "! The store is away since 2026-09-21 14:12:19 UTC: connection refused" in text(one)
    assert "failure ✗✗✓" in text(one)


def test_a_filter_is_written_and_ended():
    one = view()
    for key in ["/", *"bil", "backspace"]:
        one.press(key)
    assert (one.wanted.query, one.wanted.page) == ("bi", 1)
    one.press("enter")
    one.press("j")
    assert one.wanted.query == "bi"
    one.press("esc")
    assert one.wanted.query == ""


@pytest.mark.parametrize(
    ("text", "width", "shown"),
    [
        ("日本語", 6, "日本語"),
        ("日本語", 5, "日本…"),
        ("日本語", 4, "日…"),
        ("abc", 3, "abc"),
        ("abcd", 3, "ab…"),
        ("ab", 0, ""),
    ],
)
def test_a_text_is_cut_by_columns(text, width, shown):
    assert cut(text, width) == shown


def test_a_long_text_is_cut_in_no_time():
    began = time.monotonic()
    assert cell_len(cut("日本語é" * 5_000, 80)) <= 80
    assert time.monotonic() - began < 10, "in proportion to its length"
