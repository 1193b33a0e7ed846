"""Rows of django-celery-beat: an entry that has had its runs has no more of them there."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from beatd import config
from beatd.importers.django_rows import rows_of
from beatd.timestamps import to_ms

NOW_MS = to_ms(datetime(2030, 1, 1, 12, tzinfo=UTC))
PAST, FUTURE = "2030-01-01T11:00:00Z", "2030-01-01T13:00:00Z"


@pytest.mark.parametrize(
    ("fields", "last_due_ms", "runs", "is_enabled"),
    [
        ({"schedule": {"at": FUTURE}}, None, 0, True),
        ({"schedule": {"at": FUTURE}}, NOW_MS, 0, True),
        ({"schedule": {"at": PAST}}, None, 0, False),
        ({"schedule": {"at": PAST}}, NOW_MS - 3_600_000, 1, False),
        ({"schedule": {"at": PAST}}, NOW_MS - 7_200_000, 0, True),  # it was missed, and is made up for
        ({"schedule": "1h", "max_runs": 1}, NOW_MS, 1, False),
        ({"schedule": "1h", "max_runs": 1}, NOW_MS, 0, True),
        ({"schedule": "1h", "max_runs": 3}, NOW_MS, 3, False),
        ({"schedule": "0 4 * * *"}, NOW_MS, 30, True),
    ],
)
def test_what_is_over_is_not_enabled(fields, last_due_ms, runs, is_enabled):
    entry = config.entry("x", {"task": "t", **fields})
    last_dues = {} if last_due_ms is None else {"x": last_due_ms}
    found = rows_of([entry], last_dues, [], NOW_MS, {"x": runs})
    assert found.rows["x"]["enabled"] is is_enabled
    assert any("all of its runs" in note.why for note in found.notes) is not is_enabled
