"""A window run through ahead of time, compared with the runs one by one."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from xml.etree import ElementTree

import pytest

from beatd import config
from beatd.cli.simulate import Bars, svg_chart, text_chart
from beatd.model import Entry
from beatd.planning.policies import Skip
from beatd.planning.preview import all_upcoming
from beatd.planning.simulation import TooManyRuns, column_width, simulate, window_state
from beatd.timestamps import to_ms

START = to_ms(datetime(2026, 3, 28, tzinfo=UTC))
DAY = 86_400_000


def entry(name: str, **fields: object) -> Entry:
    return config.entry(name, {"task": "t", "timezone": "Europe/Berlin", **fields})


MIXED = [
    entry("minutely", schedule="* * * * *", blackout="22:00-06:00"),
    entry("twin", schedule="30 2 * * *"),
    entry("nightly", schedule="30 2 * * *"),
    entry("late", schedule="0 */4 * * *", jitter="5h"),
    entry("interval", schedule="7s"),
    entry("begun", schedule="1h", start=datetime(2026, 3, 28, 12, 30, tzinfo=UTC)),
    entry("thrice", schedule="@hourly", blackout="00:30-03:30", max_runs=3),
    entry("relative", schedule={"every": "25m", "relative": True}),
    entry("worthless", schedule="@hourly", options={"expires": datetime(2026, 3, 28, 6, 30, tzinfo=UTC)}),
    entry("off", schedule=1, enabled=False),
]


@pytest.mark.parametrize("days", [0.25, 1, 2.5])
def test_it_counts_what_the_preview_lists(days: float) -> None:
    end = START + int(days * DAY)
    found = simulate(MIXED, START, end, limit=1_000_000, busiest=3)
    listed = list(all_upcoming(MIXED, START - 1, state_of=lambda each: window_state(each, START), until_ms=end))
    sent = [run for run in listed if run.skip is None]
    assert {total.entry.name: total.sent for total in found.totals} == {
        each.name: sum(run.entry is each for run in sent) for each in MIXED if each.policies.enabled
    }
    skipped = Counter((run.entry.name, run.skip) for run in listed if run.skip)
    assert {(t.entry.name, why): n for t in found.totals for why, n in t.skipped.items()} == skipped
    moved = Counter(run.entry.name for run in listed if run.note.endswith("moved out of the skipped hour"))
    assert {total.entry.name: total.moved for total in found.totals if total.moved} == moved
    seconds = Counter(run.fire_ms // 1000 for run in sent)
    expected = sorted(seconds.items(), key=lambda item: (-item[1], item[0]))[:3]
    assert [(busy.second, busy.runs) for busy in found.busiest] == expected
    for busy in found.busiest:
        names = Counter(run.entry.name for run in sent if run.fire_ms // 1000 == busy.second)
        assert dict(busy.entries) == names
    assert sum(found.columns) == found.sent == len(sent)


def test_the_window_begins_with_its_first_moment_and_ends_before_its_last() -> None:
    (total,) = simulate([entry("a", schedule="@daily", timezone="UTC")], START, START + DAY, limit=10).totals
    assert total.sent == 1


def test_overlaps_are_runs_within_the_runtime_of_the_one_before() -> None:
    entries = [
        entry("close", schedule="0,5 * * * *", max_runtime="10m"),
        entry("apart", schedule="0,5 * * * *", max_runtime="5m"),
    ]
    apart, close = simulate(entries, START, START + DAY, limit=1000).totals
    assert (apart.overlaps, apart.first_overlap_ms) == (0, None)
    assert (close.overlaps, close.first_overlap_ms) == (24, START + 300_000)


def test_blacked_out_runs_do_not_make_a_second_busy() -> None:
    hidden = entry("a", schedule="@hourly", blackout="2026-03-28")
    found = simulate([hidden], START, START + DAY // 2, limit=100)
    assert (found.sent, found.busiest, found.totals[0].skipped) == (0, [], {Skip.BLACKOUT: 12})


def test_a_window_with_too_many_runs_is_refused_before_it_is_walked() -> None:
    quick = entry("quick", schedule="10ms")
    with pytest.raises(TooManyRuns, match=r"at least 3,153,600,000 runs \(3,153,600,000 of quick\); 1,000 are allowed"):
        simulate([quick], START, START + 365 * DAY, limit=1000)
    with pytest.raises(TooManyRuns, match="more than 1,000 runs by 2026-03-29 00:00:00 UTC"):
        simulate([entry("a", schedule="* * * * *")], START, START + 365 * DAY, limit=1000)


def test_equal_schedules_are_walked_once() -> None:
    herd = [entry(f"e{number:04}", schedule="@hourly") for number in range(2000)]
    found = simulate(herd, START, START + DAY, limit=100, busiest=1)
    assert found.sent == 48_000
    assert found.busiest[0].runs == 2000
    assert len(found.busiest[0].entries) == 10


def test_progress_adds_up_to_the_window() -> None:
    done: list[int] = []
    simulate(MIXED, START, START + int(2.5 * DAY), limit=1_000_000, progress=done.append)
    assert sum(done) == int(2.5 * DAY)


@pytest.mark.parametrize(("length", "width"), [(1000, 1), (3_600_000, 10), (DAY, 300), (365 * DAY, 86_400)])
def test_columns_are_as_narrow_as_the_chart_allows(length: int, width: int) -> None:
    assert column_width(length, 400) == width


def bars(*counts: int, minutes: int = 10) -> Bars:
    return Bars(datetime(2026, 3, 28, tzinfo=UTC), timedelta(minutes=minutes), counts)


def test_a_text_chart_fits_80_columns() -> None:
    lines = text_chart(bars(0, 1, 999_999_999, 500_000_000))
    assert max(map(len, lines)) <= 80
    assert lines[0].split() == ["2026-03-28", "00:00:00", "0"]
    assert lines[2].count("█") == 2 * lines[3].count("█") + 1
    assert text_chart(bars(1, 2), plain=True)[0].count("#") == 22


def test_bars_are_joined_until_they_fit() -> None:
    joined = bars(*range(12)).joined(3, [timedelta(minutes=15), timedelta(minutes=30), timedelta(hours=1)])
    assert (joined.width, joined.counts) == (timedelta(hours=1), [15, 51])
    assert bars(1, 2).joined(1, []).counts == (1, 2)


def test_the_svg_is_a_document_with_a_bar_for_each_count() -> None:
    root = ElementTree.fromstring(svg_chart(bars(3, 0, 1), "a <b> & c"))
    rects = root.findall("{*}rect")
    assert [rect[0].text for rect in rects] == ["2026-03-28 00:00:00: 3", "2026-03-28 00:20:00: 1"]
    assert root.findtext("{*}title") == "a <b> & c"


def test_a_window_that_begins_within_a_second_has_the_runs_of_that_second_in_its_first_column() -> None:
    found = simulate([entry("a", schedule="100ms")], START + 300, START + 10_300, limit=1_000)
    assert (found.columns[0], found.columns[-1], sum(found.columns)) == (16, 3, 99)


def test_the_first_moment_of_a_window_is_a_run_of_a_list_with_an_interval() -> None:
    both = entry("both", schedule=["0 0 * * *", "45m"], timezone="UTC")
    (total,) = simulate([both], START, START + DAY, limit=100).totals
    assert total.sent == 1 + 31
    (total,) = simulate([entry("alone", schedule="45m")], START, START + DAY, limit=100).totals
    assert total.sent == 31
