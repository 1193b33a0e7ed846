"""A new schedule of files is noted once, by whichever daemon leads."""

import pytest

from beatd.beat.audit import ScheduleAudit
from beatd.clock import SystemClock
from beatd.config.loader import load
from beatd.store.audit import Audit
from beatd.store.client import connect
from beatd.store.keys import Keys


@pytest.fixture
def book(redis_url):
    with connect(redis_url) as client:
        yield Audit(client, Keys("beatd"))


def test_a_new_schedule_is_noted_once(book, tmp_path):
    def config(*names):
        path = tmp_path / "beat.toml"
        path.write_text("".join(f'[beat_schedule.{name}]\ntask = "t"\nschedule = 30\n' for name in names))
        return load(path)

    first, second = config("a", "b"), config("b", "c")
    one, two = (ScheduleAudit(book, name, first, SystemClock()) for name in ("one", "two"))
    one.look()
    assert book.read(10) == [], "the first schedule changes nothing"
    for each in (one, two):
        each.set_base(second)
        each.look()
        each.look()
    [record] = book.read(10)
    assert (record.action, record.by, record.via, record.detail) == ("schedule", "one", "file", "+c, -a")
    assert record.after["entries"] == 2
    two.set_base(first)
    two.look()
    assert [one.detail for one in book.read(10)] == ["+a, -c", "+c, -a"]
