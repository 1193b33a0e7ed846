"""Three sources and the pauses over them, as one schedule."""

import pytest
from msgspec import structs

from beatd import config
from beatd.config import Config
from beatd.config.entries import ENTRY
from beatd.message.json_codec import dumps
from beatd.sources import MergedSchedule


def table(**fields):
    return dumps({"task": "tasks.add", "schedule": 30} | fields)


@pytest.fixture
def files(tmp_path):
    """``files("a", "b", timezone="UTC")``: the configuration of a file with these entries."""

    def load(*names, timezone="UTC", defaults="") -> Config:
        entries = "".join(f'[beat_schedule.{name}]\ntask = "tasks.file"\nschedule = 60\n' for name in names)
        (tmp_path / "beat.toml").write_text(f'timezone = "{timezone}"\n[defaults]\n{defaults}\n{entries}')
        return config.load(tmp_path / "beat.toml")

    return load


def in_force(overlay):
    return {entry.name: entry for entry in overlay.in_force().entries}


def test_without_runtime_entries_and_pauses_the_files_count_as_they_are(files):
    loaded = files("a", "b")
    found = MergedSchedule(loaded).in_force()
    assert found.entries is loaded.entries, "nothing is copied"
    assert (found.runtime, found.paused) == (0, 0)


def test_runtime_entries_come_beside_those_of_the_files(files):
    overlay = MergedSchedule(files("a"))
    overlay.change({"b": table(), "c": table(schedule="@daily")})
    assert list(in_force(overlay)) == ["a", "b", "c"]
    assert in_force(overlay)["b"].source == "runtime:b"
    assert overlay.in_force().runtime == 2


def test_the_file_counts_before_the_store(files):
    overlay = MergedSchedule(files("a"))
    overlay.change({"a": table()})
    assert in_force(overlay)["a"].task == "tasks.file"
    assert overlay.in_force().runtime == 0
    assert [entry.name for entry in overlay.conflicts()] == ["a"]


def test_a_runtime_entry_counts_when_the_file_has_it_no_more(files):
    overlay = MergedSchedule(files("a"))
    overlay.change({"a": table()})
    overlay.set_base(files())
    assert in_force(overlay)["a"].task == "tasks.add"
    assert overlay.conflicts() == []


def test_what_is_removed_is_gone(files):
    overlay = MergedSchedule(files())
    overlay.change({"a": table(), "b": table()})
    overlay.change({"a": None, "never": None})
    assert list(in_force(overlay)) == ["b"]


def test_a_paused_entry_is_one_that_is_not_enabled_whatever_its_source(files):
    overlay = MergedSchedule(files("a"))
    overlay.change({"b": table()})
    overlay.pause(["a", "b", "nobody"])
    assert {name: entry.policies.enabled for name, entry in in_force(overlay).items()} == {"a": False, "b": False}
    assert overlay.in_force().paused == 2
    overlay.pause([])
    assert all(entry.policies.enabled for entry in in_force(overlay).values())


def test_an_entry_that_stays_paused_stays_the_same_object(files):
    overlay = MergedSchedule(files("a"))
    overlay.pause(["a"])
    before = in_force(overlay)["a"]
    overlay.change({"b": table()})
    overlay.pause(["a", "c"])
    assert in_force(overlay)["a"] is before


def test_the_time_zone_and_defaults_of_the_file_hold_for_runtime_entries(files):
    overlay = MergedSchedule(files(timezone="Asia/Baku", defaults='queue = "slow"'))
    overlay.change({"a": table(), "b": table(queue="own", timezone="UTC")})
    found = in_force(overlay)
    assert [(each.timezone, each.options.queue) for each in found.values()] == [("Asia/Baku", "slow"), ("UTC", "own")]
    overlay.set_base(files(timezone="Europe/Berlin"))
    assert (in_force(overlay)["a"].timezone, in_force(overlay)["a"].options.queue) == ("Europe/Berlin", None)


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"", "not a JSON document"),
        (b"\xff\xfe", "not a JSON document"),
        (b"[]", "not a JSON object"),
        (b'{"task": "t", "schedule": {"__type__": "datetime", "__value__": 5}}', "not a JSON document"),
        (b'{"task": "t", "schedule": {"__type__": "decimal", "__value__": "x"}}', "not a JSON document"),
        (b'{"task": "t", "schedule": {"__type__": "bytes", "__value__": 5}}', "not a JSON document"),
        (b'{"task": "t"}', "schedule is missing"),
        (b'{"task": "t", "schedule": 1, "quue": "x"}', 'did you mean "queue"?'),
        (b'{"task": "t", "schedule": 1, "args": 5}', "expected a list"),
        (b"[" * 100_000, "not a JSON document"),
    ],
)
def test_what_is_wrong_is_said_with_its_place_and_the_others_go_on(files, raw, said):
    overlay = MergedSchedule(files("a"))
    overlay.change({"bad": raw, "good": table()})
    assert list(in_force(overlay)) == ["a", "good"]
    (fault, *_) = overlay.faults["bad"]
    assert fault.file == "runtime:bad"
    assert said in str(fault)
    overlay.change({"bad": table()})
    assert overlay.faults == {}
    assert "bad" in in_force(overlay)


def test_a_name_that_no_entry_may_have_is_a_fault(files):
    overlay = MergedSchedule(files())
    overlay.change({"bell\a": table(), "": table()})
    assert in_force(overlay) == {}
    assert set(overlay.faults) == {"bell\a", ""}


def test_null_says_that_a_key_is_not_set(files):
    overlay = MergedSchedule(files())
    overlay.change({"a": table(queue=None, options={"priority": None})})
    assert in_force(overlay)["a"].options.queue is None


def test_equal_entries_share_their_schedule(files):
    overlay = MergedSchedule(files())
    overlay.change({f"e{number}": table(args=[number]) for number in range(10)})
    assert len({id(entry.schedule) for entry in overlay.in_force().entries}) == 1


def test_what_an_entry_means_is_not_changed_by_a_pause_but_for_being_off(files):
    overlay = MergedSchedule(files("a"))
    plain = in_force(overlay)["a"]
    overlay.pause(["a"])
    off = in_force(overlay)["a"]
    assert off == structs.replace(plain, policies=structs.replace(plain.policies, enabled=False))


DEEP = [b'{"x":', b"["]


@pytest.mark.parametrize("opening", DEEP)
@pytest.mark.parametrize("field", [*ENTRY, "unknown"])
def test_nesting_of_any_depth_is_a_fault_of_its_entry_alone(files, field, opening):
    closing = b"}" if opening == DEEP[0] else b"]"
    tables = {"good": table()}
    for depth in [*range(5, 1_000, 70), *range(900, 1_000, 5)]:
        nested = opening * depth + b"1" + closing * depth
        fields = {b"task": b'"t"', b"schedule": b"30", field.encode(): nested}
        tables[f"e{depth}"] = b"{" + b",".join(b'"%s":%s' % pair for pair in fields.items()) + b"}"
    overlay = MergedSchedule(files())
    overlay.change(tables)
    assert "good" in in_force(overlay)
    assert overlay.faults.keys() | in_force(overlay).keys() == tables.keys()
