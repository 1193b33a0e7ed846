"""The client for programs, beside a real server."""

import threading
from datetime import timedelta

import pytest
import redis

from beatd import crontab
from beatd.client import Change, Pause, Schedules
from beatd.client.runs import RunClient
from beatd.exceptions import ConfigError, NobodyLeads, StoreUnavailable
from beatd.store.client import connect
from beatd.store.keys import Keys
from beatd.store.lease import Leases


@pytest.fixture
def schedules(redis_url):
    with Schedules(redis_url) as made:
        yield made


def test_an_entry_is_put_read_changed_and_removed(schedules):
    assert schedules.put("a", task="t", schedule=crontab(minute="30"), args=[1]) == "added"
    assert schedules.put("a", task="t", schedule=crontab(minute="30"), args=[1]) == "unchanged"
    assert schedules.put("a", task="t", schedule=timedelta(minutes=1)) == "changed"
    found = schedules.get("a")
    assert (found.name, found.table, found.pause, found.fault) == ("a", {"task": "t", "schedule": 60.0}, None, "")
    assert schedules.remove("a")
    assert not schedules.remove("a")
    assert schedules.get("a") is None


def test_entries_are_listed_by_pattern(schedules):
    for name in ("b-2", "a-1", "b-1"):
        schedules.put(name, task="t", schedule=1)
    schedules.pause("b-1", by="me")
    assert [each.name for each in schedules.list()] == ["a-1", "b-1", "b-2"]
    assert [(each.name, each.pause is None) for each in schedules.list("b-*")] == [("b-1", False), ("b-2", True)]


def test_pauses(schedules):
    assert schedules.pause("a", reason="x", by="me")
    assert not schedules.pause("a", reason="y")
    (name, pause) = schedules.paused().popitem()
    assert (name, pause.by, pause.reason) == ("a", "me", "x")
    assert pause.since_ms > 1_700_000_000_000
    assert schedules.resume("a")
    assert not schedules.resume("a")
    with pytest.raises(ConfigError, match="cannot be empty"):
        schedules.pause(" ")


def test_what_is_wrong_is_refused_and_nothing_stored(schedules):
    with pytest.raises(ConfigError, match="did you mean"):
        schedules.put("a", task="t", schedule=1, quue="x")
    assert schedules.list() == []


def test_values_of_others_are_shown_and_pause_as_well(schedules, redis_url):
    schedules._client.hset("{beatd}:schedules", "a", b"\xff")
    schedules._client.hset("{beatd}:paused", "a", "because")
    (found,) = schedules.list()
    assert found.table == {}
    assert "not a JSON document" in found.fault
    assert found.pause == Pause()


def test_two_prefixes_do_not_meet(schedules, redis_url):
    with Schedules(redis_url, prefix="other") as other:
        other.put("a", task="t", schedule=1)
    assert schedules.list() == []


def test_watching(schedules, redis_url):
    schedules.put("old", task="t", schedule=1)
    seen = schedules.watch(timeout=20)
    with Schedules(redis_url) as other:
        other.put("a", task="t", schedule=1)
        assert next(seen) == Change("put", "a", {"task": "t", "schedule": 1})
        other.pause("a", by="me")
        change = next(seen)
        assert (change.what, change.name, change.pause.by) == ("paused", "a", "me")
        other.resume("a")
        assert next(seen) == Change("resumed", "a")
        other.remove("a")
        assert next(seen) == Change("removed", "a")
    seen.close()


def test_watching_ends_when_nothing_happens(schedules):
    assert list(schedules.watch(timeout=0.1)) == []


def test_watching_goes_on_after_the_store_was_away(start_server, wait_until, caplog):
    server = start_server("--appendonly", "yes")
    with Schedules(server.url) as schedules, redis.Redis.from_url(server.url) as admin:
        seen, changes = schedules.watch(timeout=20), []
        thread = threading.Thread(target=lambda: changes.append(next(seen)))
        thread.start()
        wait_until(admin.pubsub_channels, what="a subscription")
        server.restart()
        with Schedules(server.url) as other:
            other.put("a", task="t", schedule=1)
        thread.join(20)
        assert [change.name for change in changes] == ["a"]
        seen.close()
    assert "watch_interrupted" in {getattr(record, "event", None) for record in caplog.records}


def test_a_daemon_that_leads_before_its_first_heartbeat_is_asked_for_runs(redis_url):
    with connect(redis_url) as client:
        runs, leases = RunClient(client, Keys()), Leases(client, Keys(), daemon_id="d", ttl_ms=60_000)
        with pytest.raises(NobodyLeads, match="nothing was sent"):
            runs.trigger("a", timeout=0.1)
        tokens = leases.take([0])
        with pytest.raises(NobodyLeads, match="the request was withdrawn"):
            runs.trigger("a", timeout=0.1)
        leases.release(tokens)


def test_a_store_out_of_reach_is_said_without_its_password(free_port):
    with Schedules(f"redis://:s3cret@127.0.0.1:{free_port()}/0", timeout=1) as schedules:
        with pytest.raises(StoreUnavailable) as caught:
            schedules.put("a", task="t", schedule=1)
        assert "s3cret" not in str(caught.value)


def test_a_url_that_is_none_is_refused():
    with pytest.raises(ConfigError):
        Schedules("http://localhost")
