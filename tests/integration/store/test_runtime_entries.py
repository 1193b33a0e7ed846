"""Runtime entries, pauses and orders in a real server, and the copy that follows them."""

import pytest

from beatd.exceptions import StoreRefused, StoreUnavailable
from beatd.store.daemon_commands import CHANGED, CommandReply, DaemonCommand, DaemonCommands, subscribe
from beatd.store.keys import Keys
from beatd.store.runtime_entries import KEPT, Pause, Runtime
from beatd.store.runtime_replica import RuntimeReplica

KEYS = Keys()
TABLE = {"task": "tasks.add", "schedule": 30}


@pytest.fixture
def runtime(client):
    return Runtime(client, KEYS)


@pytest.fixture
def mirror(client):
    return RuntimeReplica(client, KEYS)


def test_put_tells_what_it_changed(runtime):
    assert runtime.put("a", TABLE) == "added"
    assert runtime.put("a", TABLE) == "unchanged"
    assert runtime.put("a", TABLE | {"queue": "x"}) == "changed"
    assert runtime.counts() == (2, 1, 0)
    assert dict(runtime.tables()) == {"a": b'{"task":"tasks.add","schedule":30,"queue":"x"}'}


def test_removing_tells_whether_it_was_there_and_leaves_the_pause(runtime):
    runtime.put("a", TABLE)
    runtime.pause(["a"], Pause(by="me"))
    assert runtime.remove("a")
    assert not runtime.remove("a")
    assert dict(runtime.pauses()) == {"a": Pause(by="me")}


def test_a_pause_keeps_what_was_noted_first(runtime):
    first = Pause(since_ms=1, by="anna", reason="x")
    assert runtime.pause(["a", "b"], first) == ["a", "b"]
    assert runtime.pause(["b", "c"], Pause(since_ms=2)) == ["c"]
    assert dict(runtime.pauses())["b"] == first
    assert runtime.resume(["a", "b", "nobody"]) == ["a", "b"]
    assert runtime.counts() == (5, 0, 1)


def test_a_resumed_entry_is_one_that_was_not_in_force_though_no_leader_noticed(runtime, client):
    known = KEYS.shard().fingerprints
    client.hset(known, mapping={"on": "123 every 30000", "off": "123 off every 30000", "odd": "x"})
    runtime.pause(["on", "off", "odd", "new"], Pause())
    runtime.resume(["on", "off", "odd", "new"])
    assert client.hgetall(known) == {
        b"on": b"123 off every 30000",
        b"off": b"123 off every 30000",
        b"odd": b"x",
    }


def test_each_change_is_heard(runtime, client):
    with subscribe(client, KEYS) as hear:
        for change in (
            lambda: runtime.put("a", TABLE),
            lambda: runtime.pause(["a"], Pause()),
            lambda: runtime.resume(["a"]),
            lambda: runtime.remove("a"),
        ):
            change()
            assert CHANGED in hear(5)
        runtime.remove("a")
        runtime.resume(["a"])
        assert hear(0.05) == frozenset()


def test_entries_that_left_are_not_known(runtime, client):
    client.hset(KEYS.shard().fingerprints, mapping={"a": "1 x", "b": "1 x"})
    client.zadd(KEYS.shard().gone, {"b": 1})
    assert runtime.entry_names() == {"a"}


def test_a_key_of_a_foreign_type_is_named(runtime, client):
    client.set(KEYS.runtime().schedules, "mine")
    with pytest.raises(StoreRefused, match="schedules is a string and should be a hash"):
        runtime.put("a", TABLE)


def test_a_revision_that_is_no_number_is_named(mirror, client):
    client.hset(KEYS.runtime().revision, "number", "x")
    with pytest.raises(StoreRefused, match="revision does not hold a number"):
        mirror.refresh()


# -- the copy ---------------------------------------------------------------------------------------------------------


def test_the_copy_follows_by_what_has_changed(runtime, mirror):
    runtime.put("a", TABLE)
    runtime.pause(["x"], Pause())
    assert set(mirror.refresh().before) == {"a", "x"}
    assert (set(mirror.tables), set(mirror.pauses), mirror.revision) == ({"a"}, {"x"}, 2)
    assert mirror.refresh().before == {}
    runtime.remove("a")
    runtime.resume(["x"])
    news = mirror.refresh()
    assert news.before["a"][0] == b'{"task":"tasks.add","schedule":30}'
    assert not news.went_back
    assert (mirror.tables, mirror.pauses, mirror.revision) == ({}, {}, 4)


def test_what_was_changed_and_changed_back_is_told(runtime, mirror):
    mirror.refresh()
    runtime.pause(["a"], Pause())
    runtime.resume(["a"])
    assert mirror.refresh().before == {"a": (None, None)}


def test_who_is_far_behind_reads_everything(runtime, mirror):
    runtime.put("first", TABLE)
    mirror.refresh()
    runtime.put("first", TABLE | {"queue": "x"})
    names = [f"n{number}" for number in range(2 * KEPT)]
    runtime.pause(names, Pause())
    runtime.resume(names)
    assert set(mirror.refresh().before) == {"first"}
    assert b"queue" in mirror.tables["first"]
    assert mirror.revision == 2 + 4 * KEPT


def test_the_names_of_the_latest_changes_are_kept_and_no_more(runtime, client):
    runtime.pause([f"n{number}" for number in range(KEPT + 10)], Pause())
    runtime.put("last", TABLE)
    assert client.zcard(KEYS.runtime().changes) == KEPT


def test_a_flushed_store_has_nothing_and_it_is_told(runtime, mirror, client):
    runtime.put("a", TABLE)
    mirror.refresh()
    client.flushall()
    news = mirror.refresh()
    assert (mirror.tables, mirror.revision, news.went_back) == ({}, 0, True)
    assert set(news.before) == {"a"}
    assert not mirror.refresh().went_back


def test_a_store_that_was_flushed_and_filled_again_is_not_taken_for_the_old_one(runtime, mirror, client):
    for name in ("a", "b"):
        runtime.put(name, TABLE)
    mirror.refresh()
    client.flushall()
    for name in ("c", "d", "e"):
        runtime.put(name, TABLE)
    mirror.refresh()
    assert set(mirror.tables) == {"c", "d", "e"}


def test_reading_anew_also_notices_that_the_store_went_back(runtime, mirror, client):
    runtime.put("a", TABLE)
    runtime.put("b", TABLE)
    mirror.refresh()
    client.flushall()
    runtime.put("c", TABLE)
    news = mirror.refresh(anew=True)
    assert news.went_back
    assert set(news.before) == {"a", "b", "c"}


def test_what_was_read_before_an_error_is_told_afterwards(runtime, mirror):
    runtime.put("a", TABLE)
    catch_up = mirror._catch_up

    def fail():
        raise StoreUnavailable("gone in between")

    mirror._catch_up = fail
    with pytest.raises(StoreUnavailable):
        mirror.refresh(anew=True)
    mirror._catch_up = catch_up
    assert mirror.refresh(anew=True).before == {"a": (None, None)}
    assert mirror.refresh().before == {}


def test_what_somebody_wrote_by_hand_is_found(runtime, mirror, client):
    runtime.put("a", TABLE)
    mirror.refresh()
    client.hset(KEYS.runtime().schedules, mapping={"hand": b"\xff", b"\xfe": "x", "empty": b""})
    mirror.refresh()
    assert mirror.tables == {"a": mirror.tables["a"], "hand": b"\xff", "\\xfe": b"x", "empty": b""}
    assert mirror.refresh().before == {}


def test_names_that_read_alike_are_read_once_and_not_at_every_refresh(runtime, mirror, client):
    """A name that is no UTF-8 is shown with its bytes escaped, and another name may be just that text."""
    for key in (KEYS.runtime().schedules, KEYS.runtime().paused):
        client.hset(key, mapping={b"\xff": "{}", b"\\xff": "{}", "b": "{}"})
    mirror.refresh()
    assert mirror.tables.keys() == mirror.pauses.keys() == {"\\xff", "b"}
    reads = count_commands(client, "hkeys")
    assert mirror.refresh().before == {}
    assert count_commands(client, "hkeys") == reads
    runtime.put("c", TABLE)
    assert set(mirror.refresh().before) == {"c"}
    client.hdel(KEYS.runtime().schedules, b"\xff")
    mirror.refresh()
    runtime.remove("b")
    mirror.refresh()
    assert mirror.tables.keys() == {"\\xff", "c"}
    assert mirror.refresh().before == {}


def count_commands(client, name):
    return client.info("commandstats").get(f"cmdstat_{name}", {"calls": 0})["calls"]


def test_ten_thousand_entries_are_read_in_slices(runtime, mirror, client):
    with client.pipeline() as pipeline:
        pipeline.hset(KEYS.runtime().schedules, mapping={f"n{number}": "{}" for number in range(10_000)})
        pipeline.hset(KEYS.runtime().revision, mapping={"number": 10_000, "began": 1})
        pipeline.execute()
    assert len(mirror.refresh().before) == 10_000
    assert client.info("commandstats")["cmdstat_evalsha"]["calls"] >= 10


# -- orders -----------------------------------------------------------------------------------------------------------


def test_orders_stay_for_a_while_and_are_answered(client):
    orders = DaemonCommands(client, KEYS)
    given = orders.send(DaemonCommand(what="step_down", daemon="a", rest_ms=1_000))
    assert orders.recent() == {given: DaemonCommand(what="step_down", daemon="a", rest_ms=1_000)}
    answer = CommandReply(ok=False, digest="d", entries=2, faults=["x"], more_faults=1)
    orders.answer(given, "a", answer)
    assert orders.answers(given) == {"a": answer}
    assert 0 < client.ttl(KEYS.orders) <= 60
    assert 0 < client.ttl(KEYS.answers(given)) <= 60


def test_orders_that_cannot_be_read_are_left_out(client):
    orders = DaemonCommands(client, KEYS)
    client.hset(KEYS.orders, mapping={"1": "x", "2": '{"what": "dance"}', b"\xff": '{"what": "reload"}'})
    assert orders.recent() == {}
