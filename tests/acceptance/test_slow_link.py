"""The start over a slow link: sequential round trips to the state store until the first message is sent."""

import pytest

from tests.round_trips import RoundTrips

QUEUE = "first-queue"
START, START_WITH_GAP = 6, 7
"""Round trips: connect, authenticate, check the server (runtime entries and the fleet are read meanwhile), lease, entry
state, claim. Missed runs that are not caught up are noted before the claim."""

DISPATCHER_REQUESTS = 10
"""Requests of the dispatcher's connection until the first claim. They come one after the other."""


@pytest.fixture
def count_trips(redis_url, redis_server, start_beatd, tmp_path, wait_until):
    """``count_trips(schedule, catch_up, …)``: start a daemon behind a proxy; end it after its first message."""

    def count(schedule, catch_up="latest", *, delay=0.2, of=RoundTrips.until):
        with RoundTrips(redis_server.port, delay=delay) as link:
            url = f"redis://127.0.0.1:{link.port}/{redis_url.rpartition('/')[2]}"
            entry = f'task = "t"\nqueue = "{QUEUE}"\nschedule = "{schedule}"\ncatch_up = "{catch_up}"\n'
            (tmp_path / "beat.toml").write_text(f'[redis]\nurl = "{url}"\n[beat_schedule.first]\n{entry}')
            daemon = start_beatd("run")
            link.client = daemon.pid
            trips = wait_until(lambda: of(link, QUEUE.encode()), 30, "the first message")
            print(link.listing())
            assert daemon.end() == 0
        return trips

    return count


def test_a_first_start_takes_few_round_trips(count_trips):
    assert count_trips("10ms") <= START


@pytest.mark.parametrize(("schedule", "catch_up", "trips"), [("1s", "all", START), ("100ms", "latest", START_WITH_GAP)])
def test_a_restart_takes_few_round_trips(count_trips, schedule, catch_up, trips):
    count_trips(schedule, catch_up, delay=0)
    assert count_trips(schedule, catch_up) <= trips


def test_the_dispatcher_makes_few_requests_before_its_first_message(count_trips):
    assert count_trips("10ms", delay=0, of=RoundTrips.exchanges_until) <= DISPATCHER_REQUESTS
