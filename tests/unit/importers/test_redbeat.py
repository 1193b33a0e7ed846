"""RedBeat's keys, as RedBeat itself writes them."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

from celery.schedules import crontab, schedule
from redbeat.decoder import RedBeatJSONEncoder
from redbeat.schedules import rrule

from beatd.importers import carry_over
from beatd.importers.redbeat import read_redbeat


class Keys:
    """What a Redis would answer."""

    def __init__(self, **definitions: object) -> None:
        self._raw = {f"redbeat:{name}".encode(): value for name, value in definitions.items()}

    def zrange(self, name: str, start: int, end: int) -> list[bytes]:
        assert (name, start, end) == ("redbeat::schedule", 0, -1)
        return list(self._raw)

    def hget(self, name: str, key: str) -> object:
        if key == "meta":
            return None
        assert key == "definition"
        return self._raw[name.encode()]


def definition(when: object, **fields: object) -> bytes:
    entry = {"name": "one", "task": "t.one", "args": None, "kwargs": None, "options": None, "enabled": True}
    return json.dumps({**entry, "schedule": when, **fields}, cls=RedBeatJSONEncoder).encode()


def test_intervals_and_crontabs():
    keys = Keys(
        one=definition(schedule(timedelta(minutes=5)), args=[1, 2], options={"queue": "q"}),
        two=definition(crontab(minute="*/10", day_of_week="mon-fri"), name="two", enabled=False),
        three=definition(schedule(60, relative=True), name="three", kwargs={"a": datetime(2026, 1, 1, tzinfo=UTC)}),
    )
    carried = carry_over(read_redbeat(keys, timezone="Europe/Berlin"))
    one, two, three = carried.entries
    assert (one.schedule.notation, one.args, one.options.queue) == ("5m", (1, 2), "q")
    assert (two.schedule.notation, two.policies.enabled) == ({"minute": "*/10", "day_of_week": "mon-fri"}, False)
    assert two.timezone == "Europe/Berlin"
    assert three.schedule.notation == {"every": "1m", "relative": True}
    assert three.kwargs == {"a": datetime(2026, 1, 1, tzinfo=UTC)}
    assert carried.notes == ()


def test_what_has_no_counterpart_or_cannot_be_read_is_said():
    keys = Keys(
        rule=definition(rrule("DAILY", dtstart=datetime(2026, 1, 1, tzinfo=UTC)), name="rule"),
        gone=None,
        broken=b"{",
        list=b"[1]",
        good=definition(schedule(1), name="good"),
    )
    carried = carry_over(read_redbeat(keys))
    assert [entry.name for entry in carried.entries] == ["good"]
    assert carried.lost == 4
    assert [note.entry for note in carried.notes] == ["rule", "gone", "broken", "list"]
    assert "rrule" in carried.notes[0].why
    assert "evicted" in carried.notes[1].why


def test_times_that_are_taken_as_utc_are_said():
    keys = Keys(one=definition(crontab(hour=4)))
    assert [note.about for note in carry_over(read_redbeat(keys)).notes] == ["timezone"]
    assert carry_over(read_redbeat(keys, timezone="UTC")).notes == ()
    for interval in (schedule(60), schedule(60, relative=True)):
        assert carry_over(read_redbeat(Keys(one=definition(interval)))).notes == ()
