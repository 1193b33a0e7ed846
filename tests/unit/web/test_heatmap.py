"""The heat map of a timeline: rows and columns that fit the marks above them, in whatever zone."""

import pytest

from beatd.web.heatmap import heat_map


def day(start):
    return {"step_ms": 60_000, "counts": [1] * 1_440, "from": start, "blackouts": [], "clock_changes": []}


@pytest.mark.parametrize("timezone", ["UTC", "Europe/Berlin", "Asia/Kolkata", "Asia/Kathmandu", "Australia/Lord_Howe"])
def test_the_rows_of_a_day_begin_at_full_hours_of_the_zone(timezone):
    drawn = heat_map(day("2026-11-24T22:10:00.000+00:00"), timezone)
    assert {row.label[-3:] for row in drawn.rows} == {drawn.marks[0]}
    for row in drawn.rows:
        assert [int(cell.text.partition(": ")[0][-2:]) for cell in row.cells] == [cell.column for cell in row.cells]
    assert sum(len(row.cells) for row in drawn.rows) == 1_440
