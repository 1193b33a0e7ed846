"""What the page reads from a real store, and that no look lasts."""

import time

import pytest
import redis

from beatd.beat.active_schedule import known_as
from beatd.cli.status import look_with
from beatd.cli.status_document import facts
from beatd.client import Schedules
from beatd.clock import SystemClock
from beatd.exceptions import StoreRefused, StoreUnavailable
from beatd.model import Entry, EntryState, Policies, RedisSettings, Settings
from beatd.schedules import parse
from beatd.store import history
from beatd.store.claims import LOAD_BATCH, Claim, Claims
from beatd.store.client import connect
from beatd.store.entry_state import EntryStates, Fingerprints
from beatd.store.keys import Keys
from beatd.store.lease import Leases
from beatd.store.server_check import ThrottledCheck
from beatd.web import store_view
from beatd.web.store_view import IDLE_S, SHARED_S, StoreView
from tests.fakes import FakeClock

KEYS = Keys("beatd")
NOW = 1_790_000_000_000
LATER = NOW + 3_600_000


def entries(*names, schedule="30s", **policies):
    return [Entry(name=name, task="t", schedule=parse(schedule), policies=Policies(**policies)) for name in names]


def view(url, timeout_ms=10_000):
    return StoreView(lambda _client: {}, lambda: url, RedisSettings(timeout_ms=timeout_ms), SystemClock())


def test_it_reads_what_claims_wrote(client, redis_url):
    leases = Leases(client, KEYS, daemon_id="d1", ttl_ms=60_000)
    held = leases.value(leases.take([0])[0])
    claims = Claims(client, KEYS)
    dict(claims.load_entries([("a", "every 30s"), ("b", "every 30s")], lease_value=held, now_ms=NOW))
    runs = [Claim("a", NOW + 1000, "celery", b"m"), Claim("a", NOW + 2000, "celery", b"m")]
    list(claims.claim([runs], lease_value=held))
    seen = view(redis_url)
    assert seen.states(entries("b", "nobody", "a"), now_ms=LATER) == [
        EntryState(NOW, NOW, 0),
        None,
        EntryState(NOW + 2000, NOW, 2),
    ]
    assert seen.runs(["b", "nobody", "a"]) == [0, 0, 2]
    assert seen.states([], now_ms=LATER) == []
    assert seen.runs([]) == []


def test_it_reads_past_runs(client, redis_url):
    client.set(KEYS.history("a"), history.run_cell(history.SENT, NOW, NOW, NOW + 3))
    client.hset(KEYS.shard().tally, "a", "overlap 2 ")
    lines, totals = view(redis_url).history("a", NOW)
    assert [(one.record.due_ms, one.record.late_ms, one.word) for one in lines] == [(NOW, 3, "queued")]
    assert totals.counts == {"overlap": 2}


def test_many_are_read_in_their_order(client, redis_url):
    names = [f"e{n}" for n in range(2 * LOAD_BATCH + 1)]
    keys = KEYS.shard()
    client.hset(keys.last_due, mapping={name: NOW + n for n, name in enumerate(names)})
    client.hset(keys.fingerprints, mapping=dict.fromkeys(names, f"{NOW} every 30s"))
    client.hset(keys.runs, mapping={name: n for n, name in enumerate(names)})
    states = EntryStates(client, KEYS)
    assert states.read(entries(*names), now_ms=LATER) == [EntryState(NOW + n, NOW, n) for n in range(len(names))]
    assert view(redis_url).runs(names) == list(range(len(names)))


def test_it_writes_nothing(client, redis_url):
    view(redis_url).states(entries("a", "b"), now_ms=LATER)
    assert client.keys("*") == []


def test_what_cannot_be_read_is_not_known(client, redis_url):
    client.hset(KEYS.shard().last_due, mapping={"a": "soon", "b": NOW})
    client.hset(KEYS.shard().fingerprints, mapping={"a": f"{NOW} x", "b": "x"})
    assert view(redis_url).states(entries("a", "b"), now_ms=LATER) == [None, None]


@pytest.mark.parametrize(
    ("schedule", "enabled", "begun_ms"),
    [
        ("30s", True, (NOW + 60_000, NOW)),
        ("7s", True, (LATER, LATER)),
        ("30s", False, (LATER, NOW)),
        ("7s", False, (LATER, LATER)),
    ],
)
def test_a_changed_entry_goes_on_from_now_as_in_a_leader(client, redis_url, schedule, enabled, begun_ms):
    leases = Leases(client, KEYS, daemon_id="d1", ttl_ms=60_000)
    held = leases.value(leases.take([0])[0])
    claims = Claims(client, KEYS)
    dict(claims.load_entries([("a", "every 30s")], lease_value=held, now_ms=NOW))
    list(claims.claim([[Claim("a", NOW + 60_000, "celery", b"m")]], lease_value=held))
    changed = entries("a", schedule=schedule, enabled=enabled)
    [seen] = view(redis_url).states(changed, now_ms=LATER)
    assert (seen.last_due_ms, seen.first_seen_ms) == begun_ms
    loaded = dict(claims.load_entries([known_as(changed[0], Fingerprints())], lease_value=held, now_ms=LATER))
    assert loaded == {"a": seen}, "one answer"


def test_a_key_of_another_type_is_refused_in_words(client, redis_url):
    client.set(KEYS.shard().last_due, "text")
    with pytest.raises(StoreRefused, match="WRONGTYPE"):
        view(redis_url).states(entries("a"), now_ms=LATER)


def test_a_store_that_does_not_answer_is_given_up(start_server):
    server = start_server()
    server.pause()
    begun = time.monotonic()
    with pytest.raises(StoreUnavailable):
        view(server.url, timeout_ms=300).states(entries("a"), now_ms=LATER)
    assert time.monotonic() - begun < 5, "which is the default"
    server.resume()


def test_it_follows_runtime_entries_and_pauses(redis_url, wait_until):
    seen = view(redis_url)
    try:
        assert (seen.mirror().tables, seen.mirror().pauses) == ({}, {})
        with Schedules(redis_url) as schedules:
            schedules.put("later", task="t", schedule="1h")
            schedules.pause("tick")
        wait_until(lambda: list(seen.mirror().tables) == ["later"], 10, "the entry to be seen")
        assert list(seen.mirror().pauses) == ["tick"]
    finally:
        seen.close()


def test_runtime_entries_are_read_by_a_new_connection_after_a_pause_too(redis_url, monkeypatch):
    """Something on the way may have forgotten one that nobody has used for long: its questions are never answered."""
    made, clock = [], FakeClock()

    def opened(*given, **options):
        made.append(connect(*given, **options))
        return made[-1]

    def forgotten(*_, **__):
        raise redis.TimeoutError("Timeout reading from socket")

    monkeypatch.setattr(store_view, "connect", opened)
    seen = StoreView(lambda _client: {}, lambda: redis_url, RedisSettings(), clock)
    assert seen.mirror().tables == {}
    made[0].execute_command = forgotten
    clock.advance(IDLE_S + 1)
    try:
        with Schedules(redis_url) as schedules:
            schedules.put("later", task="t", schedule="1h")
        assert list(seen.mirror().tables) == ["later"]
        assert len(made) == 2
    finally:
        seen.close()


def test_looks_share_a_connection(client, redis_url):
    settings, clock = Settings(redis=RedisSettings(url=redis_url)), FakeClock()
    seen = StoreView(
        lambda shared: facts(look_with(shared, settings, ThrottledCheck())), lambda: redis_url, settings.redis, clock
    )

    def look():
        clock.advance(SHARED_S + 0.1)
        assert seen.status()["state_store"]["prefix"] == "beatd"
        seen.mirror()
        return client.info("stats")["total_connections_received"]

    try:
        first = look()
        assert {look() for _ in range(20)} == {first}
    finally:
        seen.close()
