"""The cells of the history: what is written is read, and what nobody wrote is no record."""

import uuid
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beatd.model import manual_run_id, run_id
from beatd.store import history
from beatd.store.history import CELL, OUTCOMES, Cells, Record, RecordFilter

DUE = 1_790_000_000_000
moments = st.integers(0, 2**47)


@given(due=moments, jitter=st.integers(0, 2**32 - 1), late=st.integers(0, 2**32 - 1))
def test_a_run_that_was_sent_is_read_as_it_was_written(due, jitter, late):
    raw = history.run_cell(history.SENT, due, due + jitter, due + jitter + late)
    assert len(raw) == CELL
    [record] = history.read("a", raw)
    assert record == Record("a", "scheduled", due, due + jitter + late, late)
    assert (record.run_id, record.is_open) == (run_id("a", due), True)


@pytest.mark.parametrize("reason", history.REASONS)
def test_a_run_that_was_skipped_is_counted_by_its_reason(reason):
    cell, word = history.skipped(reason, DUE, DUE + 5, DUE + 7)
    assert word == reason
    assert list(history.read("a", cell)) == [Record("a", "skipped", DUE, DUE + 7, 2, reason=reason)]


@given(after=moments, before=moments)
def test_missed_runs_are_a_stretch_of_time(after, before):
    assert list(history.read("a", history.missed(after, before))) == [Record("a", "missed", after, before)]


def test_a_run_that_was_asked_for_has_its_own_id():
    own = manual_run_id("a", "request")
    raw = history.by_hand(history.TRIGGERED, DUE, DUE + 1, own) + history.by_hand(history.BACKFILLED, DUE, DUE + 2)
    backfilled, triggered = history.read("a", raw)
    assert (triggered.kind, triggered.run_id) == ("triggered", own)
    assert (backfilled.kind, backfilled.run_id) == ("backfilled", run_id("a", DUE))


def test_an_id_whose_run_was_cut_off_is_no_record():
    raw = history.by_hand(history.TRIGGERED, DUE, DUE, str(uuid.uuid4()))
    assert list(history.read("a", raw[CELL:])) == []


def test_how_a_run_ended_is_the_end_of_its_cell():
    raw = history.run_cell(history.SENT, DUE, DUE, DUE)
    end = history.end("FAILURE", 1_234)
    [record] = history.read("a", raw[: -len(end)] + end)
    assert (record.outcome, record.runtime_ms, record.is_open) == ("FAILURE", 1_234, False)


def test_late_is_counted_from_a_second_on():
    cells = Cells()
    assert cells.sent(DUE, DUE + 10, DUE + 1_009).word == ""
    assert cells.sent(DUE, DUE + 10, DUE + 1_010).word == "late"


def test_the_runs_of_a_herd_share_their_cell():
    cells = Cells()
    assert cells.sent(DUE, DUE, DUE) is cells.sent(DUE, DUE, DUE)


def test_a_clock_that_went_back_makes_nothing_early():
    [record] = history.read("a", history.run_cell(history.SENT, DUE, DUE, DUE - 5_000))
    assert record.late_ms == 0


@given(noise=st.binary(max_size=70), tail=st.integers(0, 3))
def test_reading_stops_at_what_nobody_can_read(noise, tail):
    good = history.run_cell(history.SENT, DUE, DUE, DUE) * tail
    found = list(history.read("a", noise + good))
    assert found[:tail] == list(history.read("a", good))
    assert_open_runs_agree(noise + good)


def assert_open_runs_agree(raw):
    """The open runs are those that the newest records tell of."""
    for count in (1, 3, 20):
        records = [one for one in islice(history.read("a", raw), count) if one.is_open]
        told = [(one.due_ms, one.at_ms, one.kind == "scheduled", one.own_id) for one in records]
        assert list(history.open_runs(raw, count)) == told


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from(OUTCOMES)), max_size=6), st.binary(max_size=3))
def test_short_looks_at_a_history_find_what_its_records_say(runs, before):
    raw, wanted = before, RecordFilter(failed=True)
    for number, (kind, outcome) in enumerate(runs):
        cell = [
            history.run_cell(history.SENT, DUE, DUE, DUE),
            history.skipped("overlap", DUE, DUE, DUE).cell,
            history.missed(DUE, DUE + number),
            history.by_hand(history.TRIGGERED, DUE, DUE, str(uuid.uuid4()))[:CELL],
        ][kind]
        end = history.end(outcome, 7) if outcome and kind in (0, 3) else b""
        own_id = history.by_hand(history.TRIGGERED, DUE, DUE, str(uuid.uuid4()))[CELL:] if kind == 3 else b""
        raw += cell[: CELL - len(end)] + end + own_id
    found = [one for one in history.read("a", raw) if wanted.takes(one)]
    assert wanted.may_take(raw) or not found
    told = [
        (one.at_ms, "skipped" if not one.sent else "failed" if wanted.takes(one) else "sent")
        for one in history.read("a", raw)
        if one.kind != "missed"
    ]
    assert list(history.departures(raw)) == told
    assert_open_runs_agree(raw)
    assert len(found) == sum(
        outcome in ("FAILURE", "REJECTED", "REVOKED", "REFUSED", "LOST") and kind in (0, 3) for kind, outcome in runs
    )
