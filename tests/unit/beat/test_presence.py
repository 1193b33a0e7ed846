"""Presence of daemons: who is taken for gone, and when; a false alarm costs one change of leadership, not many."""

import pytest
from msgspec import structs

from beatd.beat.presence import FORGIVEN_AFTER, GRACE, SETTLE, TRIPS, PresenceWatch
from beatd.store.daemon_registry import FleetView, LeaseOwner, Member, Status

TTL = 15.0


@pytest.fixture
def watch():
    return PresenceWatch("me", TTL)


def fleet(**ages_ms):
    daemons = {name: Member(Status(id=name, present=True), age) for name, age in ages_ms.items()}
    return FleetView(0, daemons, {0: LeaseOwner("a", 7, 9_000)})


def gone_after(watch, begin, *, trip=0.0):
    """Let ``a`` be absent from ``begin`` on; return after how many seconds it is gone, at most a minute."""
    for tenths in range(600):
        if watch.saw({"a"}, ["a"], begin + tenths / 10 + 1e-6 * (tenths > 0), trip):
            return tenths / 10
    return None


def test_all_others_that_can_be_seen_are_watched(watch):
    seen = fleet(me=0, a=9_000, b=0, c=0, d=9_000)
    seen.daemons["c"] = seen.daemons["c"]._replace(status=structs.replace(seen.daemons["c"].status, present=False))
    assert watch.watched(seen) == ["a", "b"], "a holds a lease; c has no channel; d is known to be gone"


def test_a_daemon_without_a_listener_is_gone_after_the_grace(watch):
    assert gone_after(watch, 100.0) == pytest.approx(GRACE)
    assert watch.gone == {"a"}
    left = watch.without_gone(fleet(me=0, a=0, b=0))
    assert set(left.daemons) == {"me", "b"}
    assert left.leases == {}


def test_one_that_connects_again_in_time_is_not(watch):
    assert not watch.saw({"a"}, ["a"], 100.0)
    assert not watch.saw(set(), ["a"], 100.3)
    assert not watch.saw({"a"}, ["a"], 100.5)
    assert watch.gone == frozenset()


def test_a_false_alarm_doubles_the_grace_up_to_the_lease_and_is_forgiven(watch):
    now, graces = 100.0, []
    for _ in range(8):
        graces.append(gone_after(watch, now))
        now += 60
        assert not watch.saw(set(), ["a"], now)
        assert watch.gone == frozenset()
    assert graces == pytest.approx([0.4, 0.8, 1.6, 3.2, 6.4, 12.8, TTL, TTL])
    assert gone_after(watch, now + FORGIVEN_AFTER + 1) == pytest.approx(GRACE)


def test_nobody_is_gone_just_after_an_interruption_of_our_own(watch):
    watch.saw({"a"}, ["a"], 100.0)
    watch.interrupted(100.3)
    assert gone_after(watch, 100.4) == pytest.approx(SETTLE - 0.1)


def test_a_slow_link_gives_more_time(watch):
    assert gone_after(watch, 100.0, trip=0.2) == pytest.approx(TRIPS * 0.2)


def test_a_short_lease_has_a_shorter_grace():
    assert gone_after(PresenceWatch("me", 0.8), 100.0) == pytest.approx(0.2)
