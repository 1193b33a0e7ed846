"""Some entries of a schedule change and the rest of it is not touched."""

import logging

from beatd.exceptions import StoreUnavailable

DAY = 86_400_000


def times(rig, name):
    return [when for each, when in rig.sent if each == name]


def test_entries_are_put_changed_and_taken_out(rig, entry):
    rig.beat.schedule.replace([entry("kept", 10.0), entry("changed", 10.0), entry("removed", 10.0)])
    rig.run_for(14)
    put = {"changed": entry("changed", 20.0), "added": entry("added", 1.0)}
    rig.beat.schedule.amend(put, ["removed", "never there"])
    rig.run_for(22)
    assert times(rig, "kept") == [10.0, 20.0, 30.0]
    assert times(rig, "changed") == [10.0, 34.0]
    assert times(rig, "removed") == [10.0]
    assert times(rig, "added")[0] == 15.0


def test_it_is_what_a_term_begins_with(rig, entry):
    rig.beat.schedule.replace([entry("a", 10.0), entry("b", 10.0)])
    rig.beat.schedule.amend({"c": entry("c", 10.0)}, ["a"])
    rig.run_for(15)
    assert sorted(rig.sent) == [("b", 10.0), ("c", 10.0)]


def test_what_comes_and_goes_between_two_turns_was_never_there(rig, entry):
    rig.beat.schedule.replace([entry("a", 1.0)])
    rig.run_for(1.5)
    rig.beat.schedule.amend({"b": entry("b", 1.0)}, [])
    rig.beat.schedule.amend({}, ["b"])
    rig.beat.schedule.amend({}, ["a"])
    rig.beat.schedule.amend({"a": entry("a", 1.0)}, [])
    rig.run_for(2)
    assert times(rig, "b") == []
    assert times(rig, "a") == [1.0, 2.0, 3.0]


def test_an_entry_that_is_put_as_it_was_is_looked_at_anew_and_keeps_its_phase(rig, entry):
    rig.beat.schedule.replace([entry("a", 10.0)])
    rig.run_for(14)
    state, fingerprint = rig.claims.states["a"]
    rig.claims.states["a"] = (state, f"off {fingerprint}")  # as resuming leaves it when nobody saw the pause
    rig.beat.schedule.amend({"a": entry("a", 10.0)}, [])
    rig.run_for(20)
    assert rig.claims.states["a"][1] == fingerprint
    assert times(rig, "a") == [10.0, 20.0, 30.0]


def test_an_entry_that_comes_back_catches_up_nothing_of_the_time_between(rig, entry):
    """It was not in force then, as after a pause. It keeps its phase."""
    both = [entry("a", 10.0, catch_up="all"), entry("b", 10.0)]
    rig.beat.schedule.replace(both)
    rig.run_for(14)
    rig.beat.schedule.replace(both[1:])
    rig.run_for(60)
    rig.beat.schedule.replace(both)
    rig.run_for(17)
    assert times(rig, "a") == [10.0, 80.0, 90.0]
    assert times(rig, "b") == [float(due) for due in range(10, 91, 10)]
    assert rig.claims.gone == {}


def test_an_entry_that_was_away_for_moments_loses_no_run(rig, entry):
    """A schedule in several files is written in several steps. Runs of so short a time are late, not missed."""
    rig.beat.schedule.replace([entry("a", 10.0), entry("b", 10.0)])
    rig.run_for(14)
    rig.beat.schedule.replace([entry("b", 10.0)])
    rig.run_for(15)
    rig.beat.schedule.replace([entry("a", 10.0), entry("b", 10.0)])
    rig.run_for(16)
    assert times(rig, "a") == [10.0, 20.0, 30.0, 40.0]


def test_an_entry_that_left_while_nobody_led_is_marked_by_the_next_leader(rig, entry):
    rig.beat.schedule.replace([entry("a", 10.0), entry("b", 10.0)])
    rig.run_for(14)
    rig.start()
    rig.beat.schedule.replace([entry("b", 10.0)])
    rig.run_for(1)
    rig.beat.schedule.replace([entry("a", 10.0), entry("b", 10.0)])
    rig.run_for(30)
    assert times(rig, "a") == [10.0, 20.0, 30.0, 40.0]
    assert rig.claims.gone == {}


def test_the_state_of_an_entry_that_left_long_ago_is_forgotten_and_it_is_said_once(rig, entry, caplog):
    caplog.set_level(logging.INFO)
    rig.beat.schedule.replace([entry("a", "1d"), entry("b", "1d")])
    rig.run_for(1)
    rig.beat.schedule.replace([entry("b", "1d")])
    rig.jump_to(rig.begin_ms + 29 * DAY)
    assert rig.claims.states.keys() == {"a", "b"}
    rig.jump_to(rig.begin_ms + 33 * DAY)
    assert rig.claims.states.keys() == {"b"}
    (swept,) = [record for record in caplog.records if getattr(record, "event", "") == "state_swept"]
    assert (swept.entries, swept.count) == (["a"], 1)
    assert swept.getMessage() == "Deleted the state of entries that left the schedule long ago: 1"


def fails_once(monkeypatch, claims, verb):
    """The store does not answer the next call of that kind."""
    call, failed = getattr(claims, verb), []

    def first(*arguments, **more):
        if any(arguments) and not failed:
            failed.append(True)
            raise StoreUnavailable("gone")
        return call(*arguments, **more)

    monkeypatch.setattr(claims, verb, first)
    return failed


def test_an_entry_that_leaves_as_the_store_goes_away_catches_up_nothing_when_it_comes_back(rig, entry, monkeypatch):
    both = [entry("a", 10.0, catch_up="all"), entry("b", 10.0)]
    rig.beat.schedule.replace(both)
    rig.run_for(14)
    rig.beat.schedule.replace(both[1:])
    failed = fails_once(monkeypatch, rig.claims, "note_absence")
    rig.run_for(60)
    rig.beat.schedule.replace(both)
    rig.run_for(17)
    assert failed
    assert times(rig, "a") == [10.0, 80.0, 90.0]


def test_an_entry_that_comes_back_as_the_store_goes_away_is_not_marked_as_gone_for_long(rig, entry, monkeypatch):
    both = [entry("a", 10.0), entry("b", 10.0)]
    rig.beat.schedule.replace(both)
    rig.run_for(14)
    rig.beat.schedule.replace(both[1:])
    rig.run_for(60)
    assert rig.claims.gone.keys() == {"a"}
    failed = fails_once(monkeypatch, rig.claims, "note_absence")
    rig.beat.schedule.replace(both)
    rig.run_for(17)
    assert failed
    assert rig.claims.gone == {}
    assert times(rig, "a") == [10.0, 80.0, 90.0]


def test_a_store_that_goes_away_during_the_first_sweep_of_a_leader_is_swept_when_it_is_back(rig, entry, monkeypatch):
    rig.beat.schedule.replace([entry("a", 10.0), entry("b", 10.0)])
    rig.run_for(14)
    rig.start()
    rig.beat.schedule.replace([entry("b", 10.0)])
    failed = fails_once(monkeypatch, rig.claims, "sweep")
    rig.run_for(3)
    assert failed
    assert rig.claims.gone.keys() == {"a"}


def restarted(rig, seconds, *entries):
    """Nobody leads for some seconds; then another process does."""
    rig.clock.advance(seconds)
    rig.start()
    rig.beat.schedule.replace(entries)


def test_what_catch_up_has_left_out_is_decided_once(rig, entry):
    """A failover at the next run delays that run only: it is late, and none of those that were missed long before."""
    never = entry("a", 600.0, catch_up="none")
    rig.beat.schedule.replace([never])
    rig.run_for(650)
    restarted(rig, 1300, never)
    rig.run_for(445)
    restarted(rig, 10, never)
    rig.run_for(5)
    assert times(rig, "a") == [600.0, 2400.0]


def test_another_catch_up_brings_back_no_run_that_was_left_out(rig, entry):
    rig.beat.schedule.replace([entry("a", 600.0, catch_up="none")])
    rig.run_for(650)
    restarted(rig, 1300, entry("a", 600.0, catch_up="none"))
    rig.run_for(10)
    rig.beat.schedule.replace([entry("a", 600.0, catch_up="all")])
    rig.run_for(500)
    assert times(rig, "a") == [600.0, 2400.0]


def test_a_changed_entry_repeats_no_run_when_the_clock_is_set_back(rig, entry):
    """Before the change it passed over runs up to its next one, which was hours away."""
    rig.beat.schedule.replace([entry("a", 7200.0, catch_up="none")])
    rig.run_for(100)
    restarted(rig, 7200, entry("a", 7200.0, catch_up="none"))
    rig.run_for(10)
    rig.beat.schedule.replace([entry("a", 100.0)])
    rig.run_for(350)
    rig.clock.step(-300)
    rig.run_for(500)
    assert len(times(rig, "a")) == len(set(times(rig, "a"))) == 5
