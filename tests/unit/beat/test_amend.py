"""Some entries of a schedule change and the rest of it is not touched."""


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
